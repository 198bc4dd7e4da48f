//! Forward and explicit backward of the decoder over one packed batch.
//!
//! No tape: the forward saves named activations in a reused [`Activations`], the backward walks the layers down and
//! accumulates into one flat gradient arena of the weights' [`Layout`](crate::layout::Layout). What is saved and what
//! is computed again is the [`Recompute`] policy; every policy gives the same bits.

mod activations;
mod backward;
mod forward;
#[cfg(test)]
mod lora_test;
#[cfg(test)]
pub(crate) mod test;

pub use activations::{Activations, Recompute, go_on};
pub use backward::backward;
pub use forward::forward;

use zephyr_kernels::{attention, rope};

use crate::config::Config;
use crate::error::{Error, Result};

/// Documents laid end to end, without padding.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids, `[T]`.
    pub ids: &'a [u32],
    /// Position of each token in its own document, a shared prefix included, `[T]`.
    pub positions: &'a [u32],
    /// Where documents begin and end: `0, …, T` (cumulative lengths); attention never crosses a boundary.
    pub segments: &'a [u32],
    /// Tokens that each document shares with an earlier one, `[S]`, or empty when none does: document s goes on after the
    /// first `prefixes[s]` tokens of the last document before it whose entry is 0, and holds only what follows them. Its
    /// positions go on there too. A pair with a shared prompt is `[prompt + chosen]` with 0 and `[rejected]` with the
    /// prompt's length; the rejected tokens never see the chosen ones.
    pub prefixes: &'a [u32],
}

impl Batch<'_> {
    /// Tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Refuses ids outside the vocabulary, positions outside the rotary table, segments that don't tile the batch and
    /// prefixes that are not there.
    pub fn check(&self, config: &Config, positions: usize) -> Result<()> {
        let vocabulary = config.vocab_size;
        if let Some(position) = self.ids.iter().position(|&id| id as usize >= vocabulary) {
            return Err(Error::TokenRange { position, id: self.ids[position], vocabulary });
        }
        if let Some(&position) = self.positions.iter().find(|&&position| position as usize >= positions) {
            return Err(Error::ContextLength { length: position as usize + 1, limit: positions });
        }
        let tiled = self.segments.first() == Some(&0)
            && self.segments.last().is_some_and(|&end| end as usize == self.ids.len())
            && self.segments.windows(2).all(|pair| pair[0] <= pair[1]);
        if !tiled || self.positions.len() != self.ids.len() {
            return Err(Error::Batch(format!(
                "segments {:?} and {} positions do not tile {} tokens",
                self.segments,
                self.positions.len(),
                self.ids.len()
            )));
        }
        if let Some(document) = attention::misplaced_prefix(self.segments, self.prefixes) {
            return Err(Error::Batch(format!(
                "document {document} of {} has no prefix that is there: prefixes {:?} in segments {:?}",
                self.segments.len() - 1,
                self.prefixes,
                self.segments
            )));
        }
        Ok(())
    }
}

/// The rotary table of a model for documents of up to `positions` tokens.
pub fn rope_table(config: &Config, positions: usize) -> rope::Table {
    rope::Table::new(config.head_dim, config.rope_theta, positions)
}

pub(crate) fn attention_shape<'a>(config: &Config, batch: &Batch<'a>) -> attention::Shape<'a> {
    attention::Shape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        window: config.sliding_window,
        scale: (config.head_dim as f32).sqrt().recip(),
        segments: batch.segments,
        prefixes: batch.prefixes,
    }
}
