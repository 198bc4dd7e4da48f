//! KTO: single answers that are wanted or not, against a reference and a common point of comparison.

use serde::Deserialize;

use super::LossError;
use super::logistic::{sigmoid, sigmoid_slope};

/// A loss of TRL's `KTOConfig.loss_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KtoLoss {
    /// Against the estimated KL divergence (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 7 and 8).
    Kto,
    /// Against 0 (APO-zero, arXiv 2408.06266, unpaired).
    ApoZeroUnpaired,
}

/// Constants of KTO by TRL's names.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kto {
    pub beta: f64,
    pub loss_type: KtoLoss,
    /// λ_D: weight of the wanted answers.
    pub desirable_weight: f64,
    /// λ_U: weight of the unwanted ones.
    pub undesirable_weight: f64,
}

/// Answers of a batch, one entry each.
#[derive(Clone, Copy, Debug)]
pub struct UnpairedLogps<'a> {
    /// Log-prob sums under the policy.
    pub policy: &'a [f64],
    /// The same under the reference.
    pub reference: &'a [f64],
    /// Whether the answer is wanted.
    pub desirable: &'a [bool],
    /// Mean of `log π − log π_ref` over mismatched prompts and answers of the whole step, not below 0: `z₀`. No
    /// gradient flows through it. Not read by `apo_zero_unpaired`.
    pub kl: f64,
}

/// The part of the step's loss that one batch of answers contributes.
#[derive(Clone, Debug, PartialEq)]
pub struct UnpairedLoss {
    /// Already divided: the step's loss is the plain sum over its micro-batches.
    pub loss: f64,
    /// `dL/d` policy log-prob sum of each answer.
    pub d_logp: Vec<f64>,
    /// `β (log π − log π_ref)` of each answer.
    pub rewards: Vec<f64>,
    /// The point of comparison that was used.
    pub kl: f64,
}

impl Kto {
    /// `λ_D (1 − σ(β(d − z)))` of wanted and `λ_U (1 − σ(β(z − d)))` of unwanted answers, `d = log π − log π_ref`; mean
    /// over all answers of the step (`answers`), wanted or not, as TRL.
    ///
    /// # Errors
    /// Slices of different lengths, a count that is not positive.
    pub fn loss(&self, logps: &UnpairedLogps, answers: f64) -> Result<UnpairedLoss, LossError> {
        let expected = logps.policy.len();
        for (field, got) in [("reference", logps.reference.len()), ("desirable", logps.desirable.len())] {
            if got != expected {
                return Err(LossError::Length { field, expected, got });
            }
        }
        if !(answers > 0.0 && answers.is_finite()) {
            return Err(LossError::Denominator { field: "answers", got: answers });
        }
        let kl = match self.loss_type {
            // max takes the number beside a NaN: an estimate that is none must show.
            KtoLoss::Kto if logps.kl.is_nan() => logps.kl,
            KtoLoss::Kto => logps.kl.max(0.0),
            KtoLoss::ApoZeroUnpaired => 0.0,
        };
        let mut result = UnpairedLoss { loss: 0.0, d_logp: Vec::new(), rewards: Vec::new(), kl };
        for ((&policy, &reference), &desirable) in logps.policy.iter().zip(logps.reference).zip(logps.desirable) {
            let ratio = policy - reference;
            let (weight, sign) = if desirable { (self.desirable_weight, 1.0) } else { (self.undesirable_weight, -1.0) };
            let x = sign * self.beta * (ratio - kl);
            result.loss += weight * sigmoid(-x) / answers;
            result.d_logp.push(-weight * sign * self.beta * sigmoid_slope(x) / answers);
            result.rewards.push(self.beta * ratio);
        }
        Ok(result)
    }
}
