//! Preference pairs in a session: log-probs of both sides, their loss, and its gradient.

use zephyr_kernels::head;
use zephyr_mistral::Weights;

use super::Session;
use super::head::head_of;
use crate::batch::Packed;
use crate::error::{Error, Result};
use crate::losses::{self, Denominator, LossConfig, PairLogps, PairLoss};
use crate::metrics::PairSums;

/// Sequence log-probabilities under the frozen reference, `[pairs]` each.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceLogps<'a> {
    pub chosen: &'a [f64],
    pub rejected: &'a [f64],
}

impl Session {
    /// Adds one micro-batch of DPO. `packed` holds the pairs interleaved: chosen 0, rejected 0, chosen 1, …
    ///
    /// # Errors
    /// As [`Self::accumulate_sft`]; [`Error::ReferenceMismatch`] when the first step does not start at rewards 0.
    pub fn accumulate_dpo(
        &mut self,
        weights: &Weights,
        packed: &Packed,
        reference: ReferenceLogps,
        config: &LossConfig,
        denominator: Denominator,
    ) -> Result<PairSums> {
        let (loss, sums) = self.pair_forward(weights, packed, reference, config, denominator, true)?;
        self.finite_or_discard("loss", loss.loss)?;
        if self.options.reference_is_start && self.step() == 0 {
            rewards_are_zero(&loss)?;
        }
        self.prepare_gradients(weights);
        let scratch = &mut self.head;
        scratch.coefficient.clear();
        scratch.coefficient.extend(packed.owner.iter().map(|&owner| {
            let pair = owner as usize / 2;
            (if owner.is_multiple_of(2) { loss.d_chosen[pair] } else { loss.d_rejected[pair] }) as f32
        }));
        head::backward(
            &head_of(weights, &self.options),
            &scratch.hidden,
            &packed.targets,
            &scratch.stats.lse,
            &scratch.coefficient,
            &mut scratch.d_hidden,
            Some(&mut self.gradients[weights.layout.lm_head.clone()]),
            &mut scratch.logits,
        );
        self.backward(weights, packed);
        self.sums.add_dpo(sums);
        self.count(packed);
        Ok(sums)
    }

    /// Adds a batch to the evaluation: DPO sums without training; `denominator` counts the whole evaluation set.
    pub fn evaluate_dpo(
        &mut self,
        weights: &Weights,
        packed: &Packed,
        reference: ReferenceLogps,
        config: &LossConfig,
        denominator: Denominator,
    ) -> Result<PairSums> {
        let (_, sums) = self.pair_forward(weights, packed, reference, config, denominator, false)?;
        self.evaluated.add_dpo(sums);
        Ok(sums)
    }

    fn pair_forward(
        &mut self,
        weights: &Weights,
        packed: &Packed,
        reference: ReferenceLogps,
        config: &LossConfig,
        denominator: Denominator,
        keep: bool,
    ) -> Result<(PairLoss, PairSums)> {
        let pairs = packed.sequences() / 2;
        if !packed.sequences().is_multiple_of(2) || reference.chosen.len() != pairs || reference.rejected.len() != pairs
        {
            return Err(Error::Config(format!(
                "{} sequences with {} + {} reference log-probs are not pairs",
                packed.sequences(),
                reference.chosen.len(),
                reference.rejected.len()
            )));
        }
        self.forward(weights, packed, keep)?;
        self.head_forward(weights, packed);
        let sums = packed.sum_by_sequence(&self.head.stats.logp);
        let side = |values: &[f64], offset: usize| values.iter().skip(offset).step_by(2).copied().collect::<Vec<f64>>();
        let lengths: Vec<f64> = packed.predicted.iter().map(|&count| f64::from(count)).collect();
        let (chosen, rejected) = (side(&sums, 0), side(&sums, 1));
        let (chosen_tokens, rejected_tokens) = (side(&lengths, 0), side(&lengths, 1));
        let logps = PairLogps {
            policy_chosen: &chosen,
            policy_rejected: &rejected,
            ref_chosen: reference.chosen,
            ref_rejected: reference.rejected,
            chosen_tokens: &chosen_tokens,
            rejected_tokens: &rejected_tokens,
        };
        let loss = losses::pair_loss(config, &logps, denominator)?;
        let sums = PairSums::of(&self.head.stats, packed, &logps, &loss);
        Ok((loss, sums))
    }
}

/// The first step against the policy's own start: every reward is 0 up to the rounding of f32 log-prob sums.
fn rewards_are_zero(loss: &PairLoss) -> Result<()> {
    const ROUNDING: f64 = 1e-3;
    let off = |rewards: &[f64]| rewards.iter().copied().find(|reward| reward.abs() > ROUNDING);
    match off(&loss.rewards_chosen).or_else(|| off(&loss.rewards_rejected)) {
        Some(reward) => Err(Error::ReferenceMismatch { what: format!("a reward of {reward}") }),
        None => Ok(()),
    }
}
