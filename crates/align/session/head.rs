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

    /// What the rows say about their targets. With `keep` the gradient follows by [`Self::head_backward`].
    ///
    /// A frozen head has no gradient of its own, and that of a row is linear in the row's coefficient: it is made here for
    /// coefficient 1, from logits that are there, so that no logits are computed a second time.
    pub(super) fn head_forward(&mut self, model: Model, packed: &Packed, keep: bool) {
        let head = head_of(model, &self.options);
        let HeadScratch { hidden, d_hidden, coefficient, stats, logits } = &mut self.head;
        if keep && model.adapter.is_some() {
            coefficient.clear();
            coefficient.resize(packed.rows.len(), 1.0);
            head::forward_backward(&head, hidden, &packed.targets, coefficient, d_hidden, None, stats, logits);
        } else {
            head::forward(&head, hidden, &packed.targets, stats, logits);
        }
    }

    /// From the coefficients in the scratch to gradients: the head's, then the decoder's.
    pub(super) fn head_backward(&mut self, model: Model, packed: &Packed) {
        self.prepare_gradients(model.trainable());
        let head = head_of(model, &self.options);
        let HeadScratch { hidden, d_hidden, coefficient, stats, logits } = &mut self.head;
        match head_gradient(model, &mut self.gradients) {
            None => d_hidden.par_chunks_mut(head.width).zip(coefficient).for_each(|(row, coefficient)| {
                row.iter_mut().for_each(|x| *x *= *coefficient);
            }),
            d_weight => {
                head::backward(&head, hidden, &packed.targets, &stats.lse, coefficient, d_hidden, d_weight, logits);
            }
        }
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
