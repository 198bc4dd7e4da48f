//! Cross-entropy on the chosen answer, beside a preference loss.

use super::config::LossConfig;
use super::{Pair, PairTerm};

/// `sft`: `−Σ log π(y_c) / Σ |y_c|`, the mean over all chosen completion tokens of the step, not a mean of means.
/// With `sigmoid` and weights it is RPO (arXiv 2404.19733; TRL's former `rpo_alpha`) and MPO (arXiv 2411.10442).
///
/// TRL divides by the tokens of the micro-batch and averages micro-batches; here the denominator is the whole step's
/// count. Equal without accumulation. Label smoothing and the reference play no part.
pub fn sft(_config: &LossConfig, pair: &Pair) -> PairTerm {
    PairTerm { value: -pair.chosen.logp, chosen: -1.0, rejected: 0.0 }
}
