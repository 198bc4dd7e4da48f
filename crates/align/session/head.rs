//! The log-prob head: only the rows that predict something, a chunk of logits at a time.

use rayon::prelude::*;
use zephyr_kernels::head;
use zephyr_mistral::lora::dropout_key;
use zephyr_mistral::{Model, train};

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
    pub(super) fn forward(&mut self, model: Model, packed: &Packed, keep: bool) -> Result<()> {
        if keep {
            model.check_trainable()?;
        }
        // A function of place in the run, so that a resumed run draws the masks of the undisturbed one.
        self.activations.dropout = Some(dropout_key(&[self.options.seed, self.step(), self.micro_batches]));
        train::forward(model, &self.rope, &packed.batch(), &mut self.activations, keep)?;
        let width = model.weights.config.hidden_size;
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

    pub(super) fn head_forward(&mut self, model: Model, packed: &Packed) {
        let head = head_of(model, &self.options);
        let scratch = &mut self.head;
        head::forward(&head, &scratch.hidden, &packed.targets, &mut scratch.stats, &mut scratch.logits);
    }

    /// From the coefficients in the scratch to gradients: the head's, then the decoder's.
    pub(super) fn head_backward(&mut self, model: Model, packed: &Packed) {
        self.prepare_gradients(model.trainable());
        let d_weight = head_gradient(model, &mut self.gradients);
        let scratch = &mut self.head;
        head::backward(
            &head_of(model, &self.options),
            &scratch.hidden,
            &packed.targets,
            &scratch.stats.lse,
            &scratch.coefficient,
            &mut scratch.d_hidden,
            d_weight,
            &mut scratch.logits,
        );
        self.backward(model, packed);
    }
}

pub(super) fn head_of<'a>(model: Model<'a>, options: &SessionOptions) -> head::Head<'a> {
    let weights = model.weights;
    head::Head {
        weight: weights.head(),
        vocabulary: weights.config.vocab_size,
        width: weights.config.hidden_size,
        chunk: options.head_chunk,
    }
}

/// Where the head's gradient goes: under an adapter it is frozen and has none.
pub(super) fn head_gradient<'g>(model: Model, gradients: &'g mut [f32]) -> Option<&'g mut [f32]> {
    model.adapter.is_none().then(|| &mut gradients[model.weights.layout.lm_head.clone()])
}
