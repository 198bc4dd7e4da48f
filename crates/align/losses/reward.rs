//! Losses of the two rewards `r_c = β d_c`, `r_r = β d_r` by themselves.
//!
//! They hold the chosen and the rejected reward against zero, not only against each other. A general f-divergence
//! leaves a `β log Z` in each reward that cancels only in the difference: these take `reverse_kl` alone, as in TRL.

use super::config::LossConfig;
use super::logistic::{sigmoid, sigmoid_slope, softplus};
use super::{Pair, PairTerm};

fn rewards(config: &LossConfig, pair: &Pair) -> (f64, f64) {
    (config.beta * pair.chosen.ratio, config.beta * pair.rejected.ratio)
}

/// `nca_pair` (arXiv 2402.05369): `−log σ(r_c) − ½ log σ(−r_c) − ½ log σ(−r_r)`.
pub fn nca_pair(config: &LossConfig, pair: &Pair) -> PairTerm {
    let (chosen, rejected) = rewards(config, pair);
    PairTerm {
        value: softplus(-chosen) + 0.5 * softplus(chosen) + 0.5 * softplus(rejected),
        chosen: config.beta * (0.5 * sigmoid(chosen) - sigmoid(-chosen)),
        rejected: config.beta * 0.5 * sigmoid(rejected),
    }
}

/// `bco_pair` (arXiv 2404.04656): `−log σ(r_c) − log σ(−r_r)`.
///
/// The paper, TRL ≤ 0.24 and LLaMA-Factory subtract a running mean δ of all rewards; TRL 1.x and this crate do not.
pub fn bco_pair(config: &LossConfig, pair: &Pair) -> PairTerm {
    let (chosen, rejected) = rewards(config, pair);
    PairTerm {
        value: softplus(-chosen) + softplus(rejected),
        chosen: -config.beta * sigmoid(-chosen),
        rejected: config.beta * sigmoid(rejected),
    }
}

/// `sppo_hard` (arXiv 2405.00675, eq. 4.7 with P = 1 for the winner, 0 for the loser):
/// `(d_c − 1/(2β))² + (d_r + 1/(2β))²`, over sums of log-probs, not means.
pub fn sppo_hard(config: &LossConfig, pair: &Pair) -> PairTerm {
    let winner = pair.chosen.ratio - 0.5 / config.beta;
    let loser = pair.rejected.ratio + 0.5 / config.beta;
    PairTerm { value: winner * winner + loser * loser, chosen: 2.0 * winner, rejected: 2.0 * loser }
}

/// `apo_zero` (arXiv 2408.06266, eq. 7): `(1 − σ(r_c)) + σ(r_r)`: chosen answers better than the model's own.
pub fn apo_zero(config: &LossConfig, pair: &Pair) -> PairTerm {
    let (chosen, rejected) = rewards(config, pair);
    PairTerm {
        value: sigmoid(-chosen) + sigmoid(rejected),
        chosen: -config.beta * sigmoid_slope(chosen),
        rejected: config.beta * sigmoid_slope(rejected),
    }
}

/// `apo_down` (arXiv 2408.06266, eq. 8): `σ(r_c) + (1 − σ(r_c − r_r))`: chosen answers worse than the model's own.
pub fn apo_down(config: &LossConfig, pair: &Pair) -> PairTerm {
    let (chosen, rejected) = rewards(config, pair);
    let margin = chosen - rejected;
    PairTerm {
        value: sigmoid(chosen) + sigmoid(-margin),
        chosen: config.beta * (sigmoid_slope(chosen) - sigmoid_slope(margin)),
        rejected: config.beta * sigmoid_slope(margin),
    }
}
