//! Packed batches on their way to the core.

use std::sync::{Arc, PoisonError};

use napi::bindgen_prelude::{Uint8Array, Uint32Array};
use napi_derive::napi;
use zephyr_align::{Packed, Pair, Sequence};

use crate::failure::{Failure, guard};
use crate::model::NativeModel;

/// Sequences laid end to end, with the mask of supervised tokens. Pairs are interleaved: chosen 0, rejected 0, chosen 1, …
#[napi]
pub struct NativeBatch {
    pub(crate) packed: Arc<Packed>,
}

#[napi]
impl NativeBatch {
    /// `ids` and `supervised` (0 or 1) of all sequences end to end, `lengths` one entry a sequence.
    #[napi(constructor)]
    pub fn new(ids: Uint32Array, supervised: Uint8Array, lengths: Uint32Array) -> napi::Result<Self> {
        guard(|| {
            let mask: Vec<bool> = supervised.iter().map(|&flag| flag != 0).collect();
            Ok(Self { packed: Arc::new(Packed::new(sequences(&ids, &mask, &lengths)?)?) })
        })
    }

    /// Preference pairs: sequences as for the constructor, chosen 0, rejected 0, chosen 1, …, each with its prompt, and
    /// the prompt's length of each pair. With `shared` each prompt is computed once, for both of its answers. With
    /// `chosen_prompts` the chosen sequences' prompts are learnt too (ORPO). `ld_alpha` weighs the tokens of the longer
    /// answer of a pair that the shorter one does not have (LD-DPO).
    #[napi(factory)]
    pub fn pairs(
        ids: Uint32Array,
        supervised: Uint8Array,
        lengths: Uint32Array,
        prompt_lengths: Uint32Array,
        shared: bool,
        chosen_prompts: bool,
        ld_alpha: Option<f64>,
    ) -> napi::Result<Self> {
        guard(|| {
            if lengths.len() != 2 * prompt_lengths.len() {
                let message = format!("{} sequences are not {} pairs", lengths.len(), prompt_lengths.len());
                return Err(Failure::new("ZA_ARGUMENT", message));
            }
            let mask: Vec<bool> = supervised.iter().map(|&flag| flag != 0).collect();
            let sequences = sequences(&ids, &mask, &lengths)?;
            let pairs = sequences
                .as_chunks::<2>()
                .0
                .iter()
                .zip(prompt_lengths.iter())
                .map(|(&[chosen, rejected], &prompt)| Pair { prompt: prompt as usize, chosen, rejected });
            let packed = Packed::pairs(pairs, shared)?;
            let packed = if chosen_prompts { packed.with_chosen_prompts() } else { packed };
            let packed = match ld_alpha {
                Some(alpha) => packed.with_discounted_tails(alpha as f32),
                None => packed,
            };
            Ok(Self { packed: Arc::new(packed) })
        })
    }

    /// Tokens of all sequences, prompts included, those of a shared prompt for each side.
    #[napi(getter)]
    pub fn tokens(&self) -> u32 {
        self.packed.tokens() as u32
    }

    /// Floating-point operations of training on it, forward and backward: the measure of a step's speed.
    #[napi]
    pub fn training_flops(&self, model: &NativeModel) -> f64 {
        let parts = model.parts.read().unwrap_or_else(PoisonError::into_inner);
        zephyr_align::flops::training(parts.model(), &self.packed)
    }

    /// Tokens that go through the decoder: those of a shared prompt once.
    #[napi(getter)]
    pub fn computed_tokens(&self) -> u32 {
        self.packed.computed_tokens() as u32
    }

    /// Predicted tokens of each sequence, |y|.
    #[napi(getter)]
    pub fn predicted(&self) -> Uint32Array {
        Uint32Array::new(self.packed.predicted.clone())
    }
}

/// Sequences that lie end to end, apart.
fn sequences<'a>(ids: &'a [u32], mask: &'a [bool], lengths: &[u32]) -> Result<Vec<Sequence<'a>>, Failure> {
    let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    if total != ids.len() as u64 || ids.len() != mask.len() {
        let message =
            format!("lengths add up to {total}, but there are {} ids and {} mask entries", ids.len(), mask.len());
        return Err(Failure::new("ZA_ARGUMENT", message));
    }
    let mut start = 0;
    let sequence = |&length: &u32| {
        let range = start..start + length as usize;
        start = range.end;
        Sequence { ids: &ids[range.clone()], supervised: &mask[range] }
    };
    Ok(lengths.iter().map(sequence).collect())
}
