//! Preference losses over summed log-probs: value and derivative, pure f64.
//!
//! A loss sees four numbers per pair — log-prob sums of the chosen and the rejected answer under the policy and under
//! the reference — and the answers' token counts. Notation in all files: `d = log π − log π_ref` of one answer,
//! `s` = f-divergence score of d ([`FDivergence`]), `|y|` = completion tokens, ε = label smoothing, σ = logistic.
//! Formulas follow TRL 1.13–1.16 `trainer/dpo_trainer.py`; each function says where others differ.

pub mod config;
pub mod cpo;
pub mod divergence;
pub mod kto;
pub mod logistic;
pub mod margin;
pub mod objective;
pub mod orpo;
pub mod policy;
#[cfg(test)]
mod policy_test;
pub mod reward;
pub mod supervised;
pub mod table;
#[cfg(test)]
mod test;
pub mod transport;

pub use config::{DpoLoss, InvalidLossConfig, IpoNormalisation, LossConfig, LossSettings, Problem};
pub use divergence::FDivergence;
pub use objective::Objective;
pub use policy::{PolicyLogps, PolicyLoss};
use table::Form;

/// Log-probs of a batch of pairs, one entry a pair; sums over completion tokens, natural logarithm.
#[derive(Clone, Copy, Debug)]
pub struct PairLogps<'a> {
    pub policy_chosen: &'a [f64],
    pub policy_rejected: &'a [f64],
    pub ref_chosen: &'a [f64],
    pub ref_rejected: &'a [f64],
    /// `|y_c|`: completion tokens of the chosen answers. A count below 1 is taken as 1 where it divides, as in TRL.
    pub chosen_tokens: &'a [f64],
    /// `|y_r|`.
    pub rejected_tokens: &'a [f64],
    /// Weight of each pair, as a constant (WPO); empty for 1.
    pub weights: &'a [f64],
}

/// What the sums are divided by: counts of the whole optimizer step (or evaluation set), so that accumulated
/// micro-batches add up to the large batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denominator {
    /// Pairs of the step.
    pub pairs: f64,
    /// Chosen completion tokens of the step; read by `sft` alone.
    pub chosen_tokens: f64,
}

/// The part of the step's loss that one batch of pairs contributes.
#[derive(Clone, Debug, PartialEq)]
pub struct PairLoss {
    /// Weighted sum of the losses, already divided: the step's loss is the plain sum over its micro-batches.
    pub loss: f64,
    /// `dL/d` policy log-prob sum of each chosen answer, already divided: the coefficient of each of its tokens.
    pub d_chosen: Vec<f64>,
    /// The same for the rejected answers.
    pub d_rejected: Vec<f64>,
    /// `dL/d` log-prob of each prompt token of a chosen sequence, where the loss learns prompts too (ORPO).
    pub d_prompt: f64,
    /// Each loss of [`LossConfig::losses`], divided, weight not applied.
    pub per_loss: Vec<f64>,
    /// Log-prob of each chosen answer as TRL logs it: the sum over its tokens, or the mean where the loss takes means.
    pub logps_chosen: Vec<f64>,
    pub logps_rejected: Vec<f64>,
    /// `β d_c` of each pair, whatever the loss and divergence (TRL's `rewards/chosen` before the mean).
    pub rewards_chosen: Vec<f64>,
    /// `β d_r` of each pair.
    pub rewards_rejected: Vec<f64>,
    pub parts: Parts,
}

/// What some losses log beside the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Mean cross-entropy, already divided by the step's count (ORPO, CPO).
    pub nll: Option<f64>,
    /// Sum over the pairs of `log σ` of the log odds ratio (ORPO).
    pub log_odds_ratio: Option<f64>,
    /// Sum over the pairs of the log odds ratio (ORPO).
    pub log_odds_chosen: Option<f64>,
}

/// Arguments that do not fit together: a fault of the calling code, not of data.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LossError {
    #[error("{field} has {got} entries for {expected} pairs. Remedy: give one entry a pair")]
    Length { field: &'static str, expected: usize, got: usize },
    #[error("the step's count of {field} is {got}. Remedy: give the count of the whole optimizer step, above 0")]
    Denominator { field: &'static str, got: f64 },
}

impl LossError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            LossError::Length { .. } => "ZA_LOSS_LENGTH",
            LossError::Denominator { .. } => "ZA_LOSS_DENOMINATOR",
        }
    }
}

/// One answer of a pair as the loss functions see it.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Policy log-prob sum.
    pub logp: f64,
    /// Reference log-prob sum.
    pub ref_logp: f64,
    /// `d = logp − ref_logp`.
    pub ratio: f64,
    /// `s(d)`.
    pub score: f64,
    /// `ds/dd`.
    pub slope: f64,
    /// `|y|`, at least 1.
    pub tokens: f64,
}

/// One pair as the loss functions see it.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub chosen: Side,
    pub rejected: Side,
}

/// Value of one pair, and its derivative by the two policy log-prob sums; undivided.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairTerm {
    pub value: f64,
    pub chosen: f64,
    pub rejected: f64,
}

/// Value and derivative of the configured losses over a batch of pairs.
///
/// `config` is taken as validated ([`LossConfig::validate`]). Finite inputs give finite results; a non-finite
/// log-prob comes out as a non-finite loss, for the caller to skip and count.
///
/// # Errors
/// [`LossError`] when slices differ in length or a needed count of `denominator` is not positive. No pairs: loss 0.
pub fn pair_loss(config: &LossConfig, logps: &PairLogps, denominator: Denominator) -> Result<PairLoss, LossError> {
    check(config, logps, denominator)?;
    let pairs: Vec<Pair> = (0..logps.policy_chosen.len()).map(|i| pair(config.f_divergence, logps, i)).collect();
    let mut result = PairLoss {
        loss: 0.0,
        d_chosen: vec![0.0; pairs.len()],
        d_rejected: vec![0.0; pairs.len()],
        d_prompt: 0.0,
        per_loss: Vec::with_capacity(config.losses.len()),
        logps_chosen: logps.policy_chosen.to_vec(),
        logps_rejected: logps.policy_rejected.to_vec(),
        rewards_chosen: pairs.iter().map(|pair| config.beta * pair.chosen.ratio).collect(),
        rewards_rejected: pairs.iter().map(|pair| config.beta * pair.rejected.ratio).collect(),
        parts: Parts::default(),
    };
    for &(loss, weight) in &config.losses {
        let (terms, count): (Vec<PairTerm>, f64) = match loss.row().form {
            Form::Pair(each) => (pairs.iter().map(|pair| each(config, pair)).collect(), denominator.pairs),
            Form::Batch(all) => (all(config, &pairs), denominator.pairs),
            Form::ChosenTokens(each) => {
                (pairs.iter().map(|pair| each(config, pair)).collect(), denominator.chosen_tokens)
            }
        };
        if pairs.is_empty() {
            result.per_loss.push(0.0);
            continue;
        }
        let weighted = |i: usize| logps.weights.get(i).copied().unwrap_or(1.0);
        let value = terms.iter().enumerate().map(|(i, term)| weighted(i) * term.value).sum::<f64>() / count;
        for (i, term) in terms.iter().enumerate() {
            result.d_chosen[i] += weight * weighted(i) * term.chosen / count;
            result.d_rejected[i] += weight * weighted(i) * term.rejected / count;
        }
        result.loss += weight * value;
        result.per_loss.push(value);
    }
    Ok(result)
}

fn check(config: &LossConfig, logps: &PairLogps, denominator: Denominator) -> Result<(), LossError> {
    let expected = logps.policy_chosen.len();
    let slices = [
        ("policy_rejected", logps.policy_rejected),
        ("ref_chosen", logps.ref_chosen),
        ("ref_rejected", logps.ref_rejected),
        ("chosen_tokens", logps.chosen_tokens),
        ("rejected_tokens", logps.rejected_tokens),
        ("weights", if logps.weights.is_empty() { logps.policy_chosen } else { logps.weights }),
    ];
    for (field, slice) in slices {
        if slice.len() != expected {
            return Err(LossError::Length { field, expected, got: slice.len() });
        }
    }
    for &(loss, _) in &config.losses {
        let (field, got) = match loss.row().form {
            Form::ChosenTokens(_) => ("chosen tokens", denominator.chosen_tokens),
            Form::Pair(_) | Form::Batch(_) => ("pairs", denominator.pairs),
        };
        if !(got > 0.0 && got.is_finite()) && expected > 0 {
            return Err(LossError::Denominator { field, got });
        }
    }
    Ok(())
}

fn pair(divergence: FDivergence, logps: &PairLogps, i: usize) -> Pair {
    Pair {
        chosen: side(divergence, logps.policy_chosen[i], logps.ref_chosen[i], logps.chosen_tokens[i]),
        rejected: side(divergence, logps.policy_rejected[i], logps.ref_rejected[i], logps.rejected_tokens[i]),
    }
}

fn side(divergence: FDivergence, logp: f64, ref_logp: f64, tokens: f64) -> Side {
    let ratio = logp - ref_logp;
    let (score, slope) = divergence.score(ratio);
    Side { logp, ref_logp, ratio, score, slope, tokens: tokens.max(1.0) }
}
