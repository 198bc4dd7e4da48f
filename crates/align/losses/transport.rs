//! Alignment by optimal transport (AOT, arXiv 2406.05882): distributions over the batch are compared, not pairs.
//!
//! Values are matched by rank, so a pair's term depends on every other pair of the call: a batch cut into micro-batches
//! is another loss, in TRL as here; the step's pair count still makes the mean right.
//! Equal values keep the order of the batch, so the derivative at a tie is one fixed choice of the valid ones.

use super::config::LossConfig;
use super::margin::smoothed_logistic;
use super::{Pair, PairTerm};

/// Indices that sort `values` ascending; stable; NaN sorts last and comes out as NaN.
fn ranks(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

/// `aot`: `q = sort(log π_c − log π_r) − sort(log ref_c − log ref_r)`;
/// `−(1−ε) log σ(βq) − ε log σ(−βq)`. Equal to `sigmoid` where both sort alike.
///
/// The term of a rank is reported at the pair that holds this rank in the policy's order.
pub fn aot(config: &LossConfig, pairs: &[Pair]) -> Vec<PairTerm> {
    let policy: Vec<f64> = pairs.iter().map(|pair| pair.chosen.logp - pair.rejected.logp).collect();
    let mut reference: Vec<f64> = pairs.iter().map(|pair| pair.chosen.ref_logp - pair.rejected.ref_logp).collect();
    reference.sort_by(f64::total_cmp);
    let mut terms = vec![PairTerm::default(); pairs.len()];
    for (rank, &pair) in ranks(&policy).iter().enumerate() {
        let quantile = policy[pair] - reference[rank];
        let (value, slope) = smoothed_logistic(config.beta * quantile, config.label_smoothing);
        terms[pair] = PairTerm { value, chosen: slope * config.beta, rejected: -slope * config.beta };
    }
    terms
}

/// `aot_unpaired`: `q = sort(d_c) − sort(d_r)`; same loss of q. The chosen of a rank may belong to another pair than
/// the rejected of this rank; the value is reported at the chosen one's pair.
pub fn aot_unpaired(config: &LossConfig, pairs: &[Pair]) -> Vec<PairTerm> {
    let chosen: Vec<f64> = pairs.iter().map(|pair| pair.chosen.ratio).collect();
    let rejected: Vec<f64> = pairs.iter().map(|pair| pair.rejected.ratio).collect();
    let mut terms = vec![PairTerm::default(); pairs.len()];
    for (&c, &r) in ranks(&chosen).iter().zip(&ranks(&rejected)) {
        let quantile = chosen[c] - rejected[r];
        let (value, slope) = smoothed_logistic(config.beta * quantile, config.label_smoothing);
        terms[c].value = value;
        terms[c].chosen = slope * config.beta;
        terms[r].rejected = -slope * config.beta;
    }
    terms
}
