//! Single answers in a session: KTO.

use zephyr_mistral::Model;

use super::Session;
use super::backend::Pass;
use crate::batch::Packed;
use crate::error::{Error, Result};
use crate::losses::kto::{Kto, UnpairedLogps, UnpairedLoss};
use crate::metrics::UnpairedSums;

/// What is known of the answers of a batch before the policy has seen them.
#[derive(Clone, Copy, Debug)]
pub struct Unpaired<'a> {
    /// Whether each answer is wanted.
    pub desirable: &'a [bool],
    /// Log-prob sums under the frozen reference.
    pub reference: &'a [f64],
    /// Mean of `log π − log π_ref` over mismatched prompts and answers of the whole step, so that accumulated
    /// micro-batches add up to the large batch. TRL estimates it in each micro-batch.
    pub kl: f64,
}

impl Session {
    /// Adds one micro-batch of single answers; `answers` counts those of the whole optimizer step.
    ///
    /// # Errors
    /// As [`Self::accumulate_sft`]; [`Error::ReferenceMismatch`] when the first step does not start at rewards 0.
    pub fn accumulate_kto<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        unpaired: Unpaired,
        config: &Kto,
        answers: f64,
    ) -> Result<UnpairedSums> {
        let model = model.into();
        let (loss, sums) = self.unpaired_forward(model, packed, unpaired, config, answers, true)?;
        self.finite_or_discard("loss", loss.loss)?;
        if self.starts_at_reference(model) {
            super::pairs::rewards_are_zero(&[&loss.rewards])?;
        }
        let coefficients: Vec<f32> = packed.owner.iter().map(|&owner| loss.d_logp[owner as usize] as f32).collect();
        self.backward(model, packed, Some(&coefficients))?;
        self.sums.add_kto(sums);
        self.count(packed);
        Ok(sums)
    }

    /// Adds a batch to the evaluation, without training; `answers` counts the whole evaluation set.
    pub fn evaluate_kto<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        unpaired: Unpaired,
        config: &Kto,
        answers: f64,
    ) -> Result<UnpairedSums> {
        let (_, sums) = self.unpaired_forward(model.into(), packed, unpaired, config, answers, false)?;
        self.evaluated.add_kto(sums);
        Ok(sums)
    }

    fn unpaired_forward(
        &mut self,
        model: Model,
        packed: &Packed,
        unpaired: Unpaired,
        config: &Kto,
        answers: f64,
        keep: bool,
    ) -> Result<(UnpairedLoss, UnpairedSums)> {
        let Unpaired { desirable, reference, kl } = unpaired;
        if desirable.len() != packed.sequences() {
            return Err(Error::Config(format!("{} labels for {} answers", desirable.len(), packed.sequences())));
        }
        self.forward(model, packed, Pass { keep, ..Pass::default() })?;
        let stats = self.stats()?;
        let policy = packed.sum_by_sequence(&stats.logp);
        let loss = config.loss(&UnpairedLogps { policy: &policy, reference, desirable, kl }, answers)?;
        let sums = UnpairedSums::of(stats, packed, &policy, desirable, &loss);
        Ok((loss, sums))
    }
}
