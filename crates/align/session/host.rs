//! A session's arrays on the host: what the CPU kernels work on.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use zephyr_kernels::{head, norm, rope};
use zephyr_mistral::generate::{Generation, Generator, Request};
use zephyr_mistral::train::{self, Activations, Recompute};
use zephyr_mistral::{Config, Model, Parameters};

use super::backend::{Backend, Pass};
use super::{Optimizer, SessionOptions, Update, Work, decay_runs};
use crate::batch::Packed;
use crate::error::Result;

/// Activations, gradients, and the buffers of the log-prob head: only predicted rows, a chunk of logits at a time. Nothing
/// is allocated inside a step after the largest batch.
pub(super) struct Host {
    recompute: Recompute,
    /// Rows of the head computed at once
    chunk: usize,
    rope: rope::Table,
    activations: Activations,
    gradients: Vec<f32>,
    hidden: Vec<f32>,
    d_hidden: Vec<f32>,
    coefficients: Vec<f32>,
    stats: head::Stats,
    logits: Vec<f32>,
}

impl Host {
    pub fn new(config: &Config, options: &SessionOptions) -> Self {
        let rope = train::rope_table(config, options.max_length);
        Self::empty(rope, options.recompute, options.head_chunk, options.stop.clone())
    }

    fn empty(rope: rope::Table, recompute: Recompute, chunk: usize, stop: Arc<AtomicBool>) -> Self {
        let mut activations = Activations::new(recompute);
        activations.stop = stop;
        Self {
            recompute,
            chunk,
            rope,
            activations,
            gradients: Vec::new(),
            hidden: Vec::new(),
            d_hidden: Vec::new(),
            coefficients: Vec::new(),
            stats: head::Stats::default(),
            logits: Vec::new(),
        }
    }

    /// What the rows say about their targets.
    ///
    /// With a known coefficient their gradient is made at once. A frozen head has no gradient of its own, and that of a row
    /// is linear in the row's coefficient: it is made here for coefficient 1, from logits that are there, so that no logits
    /// are computed a second time.
    fn head_forward(&mut self, model: Model, packed: &Packed, pass: Pass) {
        let head = head_of(model, self.chunk);
        let Self { gradients, hidden, d_hidden, coefficients, stats, logits, .. } = self;
        let known = pass.coefficient.or((pass.keep && model.adapter.is_some()).then_some(1.0));
        let Some(known) = known else {
            return head::forward(&head, hidden, &packed.targets, stats, logits);
        };
        coefficients.clear();
        coefficients.resize(packed.rows.len(), known);
        let d_weight = head_gradient(model, gradients);
        head::forward_backward(&head, hidden, &packed.targets, coefficients, d_hidden, d_weight, stats, logits);
    }

    /// From coefficients to the gradients of the head and of its rows.
    fn head_backward(&mut self, model: Model, packed: &Packed, coefficients: &[f32]) {
        let head = head_of(model, self.chunk);
        let Self { gradients, hidden, d_hidden, stats, logits, .. } = self;
        match head_gradient(model, gradients) {
            None => d_hidden.par_chunks_mut(head.width).zip(coefficients).for_each(|(row, coefficient)| {
                row.iter_mut().for_each(|x| *x *= *coefficient);
            }),
            d_weight => {
                head::backward(&head, hidden, &packed.targets, &stats.lse, coefficients, d_hidden, d_weight, logits);
            }
        }
    }

    fn prepare_gradients(&mut self, trainable: usize) {
        if self.gradients.is_empty() {
            self.gradients = vec![0.0; trainable];
        }
    }
}

impl Backend for Host {
    fn prepare(&mut self, model: Model, _: &Optimizer) -> Result<()> {
        self.prepare_gradients(model.trainable());
        Ok(())
    }

    fn reserve(&mut self, _: Model, _: &Optimizer, _: Work) -> Result<()> {
        Ok(())
    }

    fn forward(&mut self, model: Model, packed: &Packed, pass: Pass) -> Result<()> {
        self.activations.dropout = pass.dropout;
        self.activations.noise = pass.noise;
        let outcome = train::forward(model, &self.rope, &packed.batch(), &mut self.activations, pass.keep);
        self.activations.noise = None;
        outcome?;
        let width = model.weights.config.hidden_size;
        self.hidden.resize(packed.rows.len() * width, 0.0);
        let hidden = &self.activations.hidden;
        self.hidden.par_chunks_mut(width).zip(&packed.rows).for_each(|(target, &row)| {
            target.copy_from_slice(&hidden[row as usize * width..][..width]);
        });
        if pass.keep {
            self.d_hidden.resize(packed.rows.len() * width, 0.0);
        }
        self.head_forward(model, packed, pass);
        Ok(())
    }

    fn generate(&mut self, model: Model, requests: &[Request], abort: Arc<AtomicBool>) -> Result<Vec<Generation>> {
        let mut generator = Generator::new(model).with_abort(abort);
        Ok(generator.generate_batch(requests, |_, _, _| ControlFlow::Continue(()))?)
    }

    fn wait_for_stats(&mut self) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> &head::Stats {
        &self.stats
    }

    /// Adds the head's gradient to its rows (one that predicts two answers gets both) and runs the decoder's backward.
    fn backward(&mut self, model: Model, packed: &Packed, coefficients: Option<&[f32]>) -> Result<()> {
        if let Some(coefficients) = coefficients {
            self.head_backward(model, packed, coefficients);
        }
        let width = model.weights.config.hidden_size;
        let d_hidden = &mut self.activations.d_hidden;
        d_hidden.fill(0.0);
        for (row, gradient) in packed.rows.iter().zip(self.d_hidden.chunks_exact(width)) {
            let sum = &mut d_hidden[*row as usize * width..][..width];
            sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
        }
        Ok(train::backward(model, &self.rope, &packed.batch(), &mut self.activations, &mut self.gradients)?)
    }

    fn gradients(&self) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self.gradients))
    }

    fn clear_gradients(&mut self) {
        self.gradients.fill(0.0);
    }

    fn grad_norm(&mut self) -> Result<f64> {
        Ok(norm::sum_of_squares(&self.gradients).sqrt())
    }

    fn step(&mut self, trained: Parameters, optimizer: &mut Arc<Optimizer>, update: &Update) -> Result<f64> {
        let Parameters { data, tensors } = trained;
        self.prepare_gradients(data.len());
        let grad_norm = self.grad_norm()?;
        if !grad_norm.is_finite() {
            return Ok(grad_norm);
        }
        // clip_grad_norm_ of PyTorch: coefficient max / (norm + 1e-6), never above 1.
        let scale = update.max_grad_norm.map_or(1.0, |max| (max / (grad_norm + 1e-6)).min(1.0));
        let runs = decay_runs(tensors);
        Arc::make_mut(optimizer).step(data, &self.gradients, &runs, update, scale as f32);
        self.gradients.fill(0.0);
        Ok(grad_norm)
    }

    fn fetch(&mut self, _: Parameters, _: &mut Arc<Optimizer>) -> Result<()> {
        Ok(())
    }

    fn is_ahead(&self) -> bool {
        false
    }

    fn refresh(&mut self) {}

    fn release(&mut self) {
        let rope = std::mem::replace(&mut self.rope, rope::Table::new(2, 1.0, 0));
        *self = Self::empty(rope, self.recompute, self.chunk, self.activations.stop.clone());
    }

    fn bytes(&self) -> usize {
        let floats =
            self.gradients.capacity() + self.hidden.capacity() + self.d_hidden.capacity() + self.logits.capacity();
        floats * size_of::<f32>() + self.activations.bytes()
    }
}

fn head_of<'a>(model: Model<'a>, chunk: usize) -> head::Head<'a> {
    let weights = model.weights;
    head::Head {
        weight: weights.head(),
        vocabulary: weights.config.vocab_size,
        width: weights.config.hidden_size,
        chunk,
    }
}

/// Where the head's gradient goes: under an adapter it is frozen and has none.
fn head_gradient<'g>(model: Model, gradients: &'g mut [f32]) -> Option<&'g mut [f32]> {
    model.adapter.is_none().then(|| &mut gradients[model.weights.layout.lm_head.clone()])
}
