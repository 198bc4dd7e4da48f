//! CPO, SimPO and AlphaPO: preference losses of the policy's own log-probs, without a reference.

use serde::Deserialize;

use super::divergence::MAX_EXPONENT;
use super::margin::smoothed_logistic;
use super::policy::{Answers, PolicyTerm, Term};

/// A loss of TRL's `CPOConfig.loss_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpoLoss {
    Sigmoid,
    Hinge,
    Ipo,
    Simpo,
}

/// One loss of the table.
struct Row {
    /// Whether rewards are of the mean log-prob of an answer's tokens instead of the sum.
    mean: bool,
    /// Whether `label_smoothing` is part of the formula.
    smoothing: bool,
    /// Value and slope by the difference of the rewards.
    loss: fn(&Cpo, f64) -> (f64, f64),
}

/// Every loss, in the order of [`CpoLoss`]: a new one is a function and a row.
static LOSSES: [Row; 4] = [
    Row { mean: false, smoothing: true, loss: sigmoid },
    Row { mean: false, smoothing: false, loss: hinge },
    Row { mean: true, smoothing: false, loss: ipo },
    Row { mean: true, smoothing: true, loss: simpo },
];

/// Constants of CPO (Xu et al. 2024, arXiv 2401.08417), SimPO (Meng et al. 2024, arXiv 2405.14734) and AlphaPO
/// (arXiv 2501.03884), by TRL's names.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cpo {
    pub beta: f64,
    pub loss_type: CpoLoss,
    /// ε: the assumed rate of flipped labels.
    pub label_smoothing: f64,
    /// Weight of the cross-entropy on the chosen answers (completion tokens).
    pub cpo_alpha: f64,
    /// γ of SimPO: the margin that is wanted between the rewards.
    pub simpo_gamma: f64,
    /// α of AlphaPO's reward; 0 is the log-prob itself.
    pub alpha: f64,
}

impl Cpo {
    /// Whether the loss reads `label_smoothing`.
    pub(super) fn smooths(&self) -> bool {
        LOSSES[self.loss_type as usize].smoothing
    }

    /// The loss of `Δ = r_c − r_r`, rewards `r` of the answers' log-probs (sums, or means per token).
    pub(super) fn pair(&self, pair: &Answers) -> PolicyTerm {
        let row = &LOSSES[self.loss_type as usize];
        let (count_chosen, count_rejected) =
            if row.mean { (pair.chosen_tokens, pair.rejected_tokens) } else { (1.0, 1.0) };
        let (chosen, rejected) = (pair.chosen_logp / count_chosen, pair.rejected_logp / count_rejected);
        let ((reward_chosen, slope_chosen), (reward_rejected, slope_rejected)) =
            (self.reward(chosen), self.reward(rejected));
        let (value, slope) = (row.loss)(self, reward_chosen - reward_rejected);
        PolicyTerm {
            term: Term {
                value,
                chosen: slope * slope_chosen / count_chosen,
                rejected: -slope * slope_rejected / count_rejected,
            },
            logps: [chosen, rejected],
            rewards: [self.beta * reward_chosen, self.beta * reward_rejected],
            log_odds: 0.0,
        }
    }

    /// AlphaPO's reward `(1 − p^−α)/α` of `log p`, and its slope `p^−α`; `log p` at α = 0. The exponent is held at
    /// [`MAX_EXPONENT`], with slope 0.
    fn reward(&self, logp: f64) -> (f64, f64) {
        if self.alpha == 0.0 {
            return (logp, 1.0);
        }
        let exponent = -self.alpha * logp;
        if exponent > MAX_EXPONENT {
            (-MAX_EXPONENT.exp_m1() / self.alpha, 0.0)
        } else {
            (-exponent.exp_m1() / self.alpha, exponent.exp())
        }
    }
}

/// `−(1−ε) log σ(βΔ) − ε log σ(−βΔ)` (CPO, eq. 3, at ε = 0).
fn sigmoid(config: &Cpo, delta: f64) -> (f64, f64) {
    let (value, slope) = smoothed_logistic(config.beta * delta, config.label_smoothing);
    (value, slope * config.beta)
}

/// `max(0, 1 − βΔ)` (SLiC, arXiv 2305.10425). Slope 0 at the kink, as PyTorch's relu.
fn hinge(config: &Cpo, delta: f64) -> (f64, f64) {
    let x = config.beta * delta;
    if x >= 1.0 { (0.0, 0.0) } else { (1.0 - x, -config.beta) }
}

/// `(Δ − 1/(2β))²`.
fn ipo(config: &Cpo, delta: f64) -> (f64, f64) {
    let error = delta - 0.5 / config.beta;
    (error * error, 2.0 * error)
}

/// SimPO, eq. 6: `−log σ(βΔ − γ)`, with the label smoothing of TRL.
fn simpo(config: &Cpo, delta: f64) -> (f64, f64) {
    sigmoid(config, delta - config.simpo_gamma / config.beta)
}
