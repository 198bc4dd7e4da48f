//! The log-prob head: only the rows that predict something, a chunk of logits at a time.

use rayon::prelude::*;
use zephyr_kernels::head;
use zephyr_mistral::Weights;
use zephyr_mistral::train;

use super::{Session, SessionOptions};
use crate::batch::Packed;
use crate::error::Result;

/// Buffers of the log-prob head: only predicted rows, a chunk of logits at a time.
#[derive(Default)]
pub(super) struct HeadScratch {
    pub hidden: Vec<f32>,
    pub d_hidden: Vec<f32>,
    pub coefficient: Vec<f32>,
    pub stats: head::Stats,
    pub logits: Vec<f32>,
}

impl Session {
    /// Runs the decoder and gathers the rows that predict something.
    pub(super) fn forward(&mut self, weights: &Weights, packed: &Packed, keep: bool) -> Result<()> {
        train::forward(weights, &self.rope, &packed.batch(), &mut self.activations, keep)?;
        let width = weights.config.hidden_size;
        self.head.hidden.resize(packed.rows.len() * width, 0.0);
        let hidden = &self.activations.hidden;
        self.head.hidden.par_chunks_mut(width).zip(&packed.rows).for_each(|(target, &row)| {
            target.copy_from_slice(&hidden[row as usize * width..][..width]);
        });
        if keep {
            self.head.d_hidden.resize(packed.rows.len() * width, 0.0);
        }
        Ok(())
    }

    pub(super) fn head_forward(&mut self, weights: &Weights, packed: &Packed) {
        let head = head_of(weights, &self.options);
        let scratch = &mut self.head;
        head::forward(&head, &scratch.hidden, &packed.targets, &mut scratch.stats, &mut scratch.logits);
    }

    /// From the coefficients in the scratch to gradients: the head's, then the decoder's.
    pub(super) fn head_backward(&mut self, weights: &Weights, packed: &Packed) {
        self.prepare_gradients(weights);
        let scratch = &mut self.head;
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
    }
}

pub(super) fn head_of<'a>(weights: &'a Weights, options: &SessionOptions) -> head::Head<'a> {
    head::Head {
        weight: &weights.data[weights.layout.lm_head.clone()],
        vocabulary: weights.config.vocab_size,
        width: weights.config.hidden_size,
        chunk: options.head_chunk,
    }
}
