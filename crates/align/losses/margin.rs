//! Losses of the margin `x = β(s_c − s_r)`: only the difference of the two scores counts, so every f-divergence fits.

use super::config::{IpoNormalisation, LossConfig};
use super::divergence::MAX_EXPONENT;
use super::logistic::{log_sigmoid, sigmoid, sigmoid_slope, softplus};
use super::{Pair, PairTerm};

/// Turns `value` and `d value/dx` at `x = β(s_c − s_r)` into the term of the pair.
fn of_margin(config: &LossConfig, pair: &Pair, loss: impl Fn(f64) -> (f64, f64)) -> PairTerm {
    let (value, slope) = loss(config.beta * (pair.chosen.score - pair.rejected.score));
    PairTerm {
        value,
        chosen: slope * config.beta * pair.chosen.slope,
        rejected: -slope * config.beta * pair.rejected.slope,
    }
}

/// The same over scores per token, `δ = s_c/|y_c| − s_r/|y_r|`, not yet times β.
fn of_mean_margin(pair: &Pair, loss: impl Fn(f64) -> (f64, f64)) -> PairTerm {
    let (chosen, rejected) = (&pair.chosen, &pair.rejected);
    let (value, slope) = loss(chosen.score / chosen.tokens - rejected.score / rejected.tokens);
    PairTerm {
        value,
        chosen: slope * chosen.slope / chosen.tokens,
        rejected: -slope * rejected.slope / rejected.tokens,
    }
}

/// `−(1−ε) log σ(x) − ε log σ(−x)` and its slope.
pub(super) fn smoothed_logistic(x: f64, smoothing: f64) -> (f64, f64) {
    let value = (1.0 - smoothing) * softplus(-x) + smoothing * softplus(x);
    let slope = smoothing * sigmoid(x) - (1.0 - smoothing) * sigmoid(-x);
    (value, slope)
}

/// `sigmoid`: DPO (arXiv 2305.18290, eq. 7), with label smoothing ε cDPO (Mitchell 2023):
/// `−(1−ε) log σ(x) − ε log σ(−x)`.
///
/// TRL ≥ 0.29 ignores `label_smoothing` here without a word; OpenRLHF, LLaMA-Factory, torchtune, TRL ≤ 0.28 and this
/// crate apply it.
pub fn sigmoid_loss(config: &LossConfig, pair: &Pair) -> PairTerm {
    of_margin(config, pair, |x| smoothed_logistic(x, config.label_smoothing))
}

/// `sigmoid_norm`: length-normalised DPO, of scores per token (Tülu 3, arXiv 2411.15124):
/// `−(1−ε) log σ(βδ) − ε log σ(−βδ)`, `δ = s_c/|y_c| − s_r/|y_r|`.
///
/// TRL has it with ε = 0 and ignores `label_smoothing`.
pub fn sigmoid_norm(config: &LossConfig, pair: &Pair) -> PairTerm {
    of_mean_margin(pair, |delta| {
        let (value, slope) = smoothed_logistic(config.beta * delta, config.label_smoothing);
        (value, slope * config.beta)
    })
}

/// `hinge`: RSO / SLiC (arXiv 2309.06657): `max(0, 1 − x)`. Slope 0 at the kink, as PyTorch's relu.
pub fn hinge(config: &LossConfig, pair: &Pair) -> PairTerm {
    of_margin(config, pair, |x| if x >= 1.0 { (0.0, 0.0) } else { (1.0 - x, -1.0) })
}

/// `ipo` (arXiv 2310.12036, eq. 17): `(Δ − 1/(2β))²`, β the paper's τ.
///
/// Implementations disagree on Δ: scores per token `s_c/|y_c| − s_r/|y_r|` (TRL, LLaMA-Factory;
/// `ipo_normalisation: "tokens"`, the default) or sums `s_c − s_r` (the paper's text, OpenRLHF, the reference code
/// of DPO; `"none"`).
pub fn ipo(config: &LossConfig, pair: &Pair) -> PairTerm {
    let square = |delta: f64| {
        let error = delta - 0.5 / config.beta;
        (error * error, 2.0 * error)
    };
    match config.ipo_normalisation {
        IpoNormalisation::Tokens => of_mean_margin(pair, square),
        IpoNormalisation::None => of_margin(config, pair, |x| {
            let (value, slope) = square(x / config.beta);
            (value, slope / config.beta)
        }),
    }
}

/// `exo_pair` (arXiv 2402.00856, eq. 16): KL of the policy's preference from the smoothed label, two answers:
/// `σ(x)(log σ(x) − log(1−ε)) + σ(−x)(log σ(−x) − log ε)`.
///
/// Needs ε > 0 (the paper uses 1e-3). TRL ≤ 0.28 replaced ε = 0 by 1e-3; TRL ≥ 0.29 and this crate refuse it.
/// Its slope is `σ'(x)(x − log(1−ε) + log ε)`: it vanishes on both far sides.
pub fn exo_pair(config: &LossConfig, pair: &Pair) -> PairTerm {
    let keep = (-config.label_smoothing).ln_1p();
    let flip = config.label_smoothing.ln();
    of_margin(config, pair, |x| {
        let value = sigmoid(x) * (log_sigmoid(x) - keep) + sigmoid(-x) * (log_sigmoid(-x) - flip);
        (value, sigmoid_slope(x) * (x - keep + flip))
    })
}

/// `robust` DPO (arXiv 2403.00409): the unbiased estimate of the loss under labels flipped with rate ε,
/// `[−(1−ε) log σ(x) + ε log σ(−x)]/(1−2ε)`. Needs ε < ½; DPO at ε = 0.
pub fn robust(config: &LossConfig, pair: &Pair) -> PairTerm {
    let smoothing = config.label_smoothing;
    let scale = 1.0 / (1.0 - 2.0 * smoothing);
    of_margin(config, pair, |x| {
        let value = (1.0 - smoothing) * softplus(-x) - smoothing * softplus(x);
        let slope = -(1.0 - smoothing) * sigmoid(-x) - smoothing * sigmoid(x);
        (value * scale, slope * scale)
    })
}

/// `discopop` (arXiv 2406.08414, eq. 5): `m = σ(x/τ)`, `−log σ(x)(1−m) + e^−x m`; TRL option `discopop_tau`, .05.
///
/// `e^−x m` is taken as one exponential, so that x ≪ 0 gives its limit where TRL computes ∞·0 = NaN.
/// For τ > 1 the exponential does grow; it is held at e^80 with slope 0.
pub fn discopop(config: &LossConfig, pair: &Pair) -> PairTerm {
    let tau = config.discopop_tau;
    of_margin(config, pair, |x| {
        let (blend, rest) = (sigmoid(x / tau), sigmoid(-x / tau));
        let exponent = -x + log_sigmoid(x / tau);
        let exponential = exponent.min(MAX_EXPONENT).exp();
        let exponential_slope = if exponent > MAX_EXPONENT { 0.0 } else { exponential * (rest / tau - 1.0) };
        let value = softplus(-x) * rest + exponential;
        let slope = -sigmoid(-x) * rest - softplus(-x) * blend * rest / tau + exponential_slope;
        (value, slope)
    })
}
