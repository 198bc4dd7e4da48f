//! Preference pairs in a session: log-probs of both sides, their loss, and its gradient.

use zephyr_kernels::head::Stats;
use zephyr_mistral::Model;

use super::Session;
use super::backend::Pass;
use crate::batch::{Packed, sides};
use crate::error::{Error, Result};
use crate::losses::{self, Denominator, DpoLoss, LossConfig, PairLogps, PairLoss, PolicyLogps, PolicyLoss};
use crate::metrics::PairSums;

/// Sequence log-probabilities under the frozen reference, `[pairs]` each.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceLogps<'a> {
    pub chosen: &'a [f64],
    pub rejected: &'a [f64],
}

/// What pairs are trained by.
#[derive(Clone, Copy, Debug)]
pub enum PairObjective<'a> {
    Dpo(&'a LossConfig, ReferenceLogps<'a>),
    Policy(PolicyLoss<'a>),
}

impl Session {
    /// Adds one micro-batch of DPO. `packed` holds the pairs interleaved: chosen 0, rejected 0, chosen 1, …
    ///
    /// # Errors
    /// As [`Self::accumulate_sft`]; [`Error::ReferenceMismatch`] when the first step does not start at rewards 0.
    pub fn accumulate_dpo<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        reference: ReferenceLogps,
        config: &LossConfig,
        denominator: Denominator,
    ) -> Result<PairSums> {
        self.accumulate_pairs(model, packed, PairObjective::Dpo(config, reference), denominator)
    }

    /// Adds one micro-batch of pairs, interleaved: chosen 0, rejected 0, chosen 1, … ORPO wants the prompts of the chosen
    /// side among the rows ([`Packed::with_chosen_prompts`]).
    ///
    /// # Errors
    /// As [`Self::accumulate_dpo`].
    pub fn accumulate_pairs<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        objective: PairObjective,
        denominator: Denominator,
    ) -> Result<PairSums> {
        let model = model.into();
        let (loss, sums) = self.pair_forward(model, packed, objective, denominator, true)?;
        self.finite_or_discard("loss", loss.loss)?;
        if self.starts_at_reference(model) {
            rewards_are_zero(&[&loss.rewards_chosen, &loss.rewards_rejected])?;
        }
        let of_answers = packed.answer_owners().iter().enumerate().map(|(row, &owner)| {
            let pair = owner as usize / 2;
            let slope = if owner.is_multiple_of(2) { loss.d_chosen[pair] } else { loss.d_rejected[pair] };
            (packed.weight(row) * slope) as f32
        });
        let mut coefficients: Vec<f32> = of_answers.collect();
        coefficients.resize(packed.rows.len(), loss.d_prompt as f32);
        self.backward(model, packed, Some(&coefficients))?;
        self.sums.add_dpo(sums);
        self.count(packed);
        Ok(sums)
    }

    /// Adds a batch to the evaluation: DPO sums without training; `denominator` counts the whole evaluation set.
    pub fn evaluate_dpo<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        reference: ReferenceLogps,
        config: &LossConfig,
        denominator: Denominator,
    ) -> Result<PairSums> {
        self.evaluate_pairs(model, packed, PairObjective::Dpo(config, reference), denominator)
    }

    /// Adds a batch to the evaluation, without training; `denominator` counts the whole evaluation set.
    pub fn evaluate_pairs<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        objective: PairObjective,
        denominator: Denominator,
    ) -> Result<PairSums> {
        let (_, sums) = self.pair_forward(model.into(), packed, objective, denominator, false)?;
        self.evaluated.add_dpo(sums);
        Ok(sums)
    }

    /// Whether the policy must still be the reference. Dropout in a trained adapter moves it away from its own start.
    pub(super) fn starts_at_reference(&self, model: Model) -> bool {
        let dropped = model.adapter.is_some_and(|adapter| adapter.config.dropout > 0.0 && !adapter.is_neutral());
        self.options.reference_is_start && self.step() == 0 && !dropped
    }

    fn pair_forward(
        &mut self,
        model: Model,
        packed: &Packed,
        objective: PairObjective,
        denominator: Denominator,
        keep: bool,
    ) -> Result<(PairLoss, PairSums)> {
        check_pairs(packed, objective)?;
        self.forward(model, packed, Pass { keep, ..Pass::default() })?;
        let stats = self.stats()?;
        let sums = packed.sum_by_sequence(&stats.logp);
        let lengths: Vec<f64> = packed.predicted.iter().map(|&count| f64::from(count)).collect();
        let (chosen, rejected) = sides(&sums);
        let (chosen_tokens, rejected_tokens) = sides(&lengths);
        let loss = match objective {
            PairObjective::Dpo(config, reference) => {
                let pair_weights = if config.use_weighting { pair_weights(packed, stats) } else { Vec::new() };
                let logps = PairLogps {
                    policy_chosen: &chosen,
                    policy_rejected: &rejected,
                    ref_chosen: reference.chosen,
                    ref_rejected: reference.rejected,
                    chosen_tokens: &chosen_tokens,
                    rejected_tokens: &rejected_tokens,
                    weights: &pair_weights,
                };
                losses::pair_loss(config, &logps, denominator)?
            }
            PairObjective::Policy(policy) => {
                let logps = PolicyLogps {
                    chosen: &chosen,
                    rejected: &rejected,
                    chosen_tokens: &chosen_tokens,
                    rejected_tokens: &rejected_tokens,
                    prompts: packed.sum_of_prompts(&stats.logp),
                };
                policy.of(&logps, denominator)?
            }
        };
        let sums = PairSums::of(stats, packed, &loss);
        Ok((loss, sums))
    }
}

/// WPO, eq. 2: the probabilities of the two answers, each the geometric mean over its tokens of `p / Σ p²`, so that a
/// token drawn from the policy counts about 1 wherever it stands. A constant for the gradient, as in TRL.
fn pair_weights(packed: &Packed, stats: &Stats) -> Vec<f64> {
    let mut sums = vec![0.0; packed.sequences()];
    for (row, &owner) in packed.answer_owners().iter().enumerate() {
        sums[owner as usize] += f64::from(stats.logp[row]) - f64::from(stats.log_collision[row]);
    }
    let mean = |side: usize| sums[side] / f64::from(packed.predicted[side]);
    (0..sums.len() / 2).map(|pair| (mean(2 * pair) + mean(2 * pair + 1)).exp()).collect()
}

fn check_pairs(packed: &Packed, objective: PairObjective) -> Result<()> {
    let (sequences, pairs) = (packed.sequences(), packed.sequences() / 2);
    if let PairObjective::Dpo(_, ReferenceLogps { chosen, rejected }) = objective
        && (!sequences.is_multiple_of(2) || chosen.len() != pairs || rejected.len() != pairs)
    {
        return Err(Error::Config(format!(
            "{sequences} sequences with {} + {} reference log-probs are not pairs",
            chosen.len(),
            rejected.len()
        )));
    }
    if !sequences.is_multiple_of(2) {
        return Err(Error::Config(format!("{sequences} sequences are not pairs")));
    }
    let sft = |config: &LossConfig| config.losses.iter().any(|(loss, _)| *loss == DpoLoss::Sft);
    if !packed.weights.is_empty() && !matches!(objective, PairObjective::Dpo(config, _) if !sft(config)) {
        return Err(Error::Config(
            "tails are discounted for losses of DPO's log-prob sums alone, not for sft".to_owned(),
        ));
    }
    let learns_prompts = matches!(objective, PairObjective::Policy(PolicyLoss::Orpo(_)));
    if !learns_prompts && packed.prompt_rows > 0 {
        return Err(Error::Config("only ORPO learns the tokens of prompts".to_owned()));
    }
    Ok(())
}

/// The first step against the policy's own start: every reward is 0 up to the rounding of f32 log-prob sums.
pub(super) fn rewards_are_zero(rewards: &[&[f64]]) -> Result<()> {
    const ROUNDING: f64 = 1e-3;
    match rewards.iter().copied().flatten().find(|reward| reward.abs() > ROUNDING) {
        Some(reward) => Err(Error::ReferenceMismatch { what: format!("a reward of {reward}") }),
        None => Ok(()),
    }
}
