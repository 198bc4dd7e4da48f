//! Where the arrays of a session live. What a loss, a step and a metric are is the session's own business; a backend
//! computes log-probabilities, turns coefficients into gradients, and gradients into an update.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use zephyr_kernels::head::Stats;
use zephyr_kernels::noise::Noise;
use zephyr_mistral::generate::{Generation, Request};
use zephyr_mistral::{Model, Parameters};

use super::{Optimizer, Update, Work};
use crate::batch::Packed;
use crate::error::Result;

/// How a forward pass is run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pass {
    /// A backward pass follows.
    pub keep: bool,
    /// Key of an adapter's dropout masks.
    pub dropout: Option<u64>,
    pub noise: Option<Noise>,
    /// The loss's derivative by each log-probability, where it is known before: then no logits are computed twice.
    pub coefficient: Option<f32>,
}

/// The arrays of one session, and what is computed with them.
pub(super) trait Backend: Send {
    /// Makes gradients and optimizer state ready, once.
    fn prepare(&mut self, model: Model, optimizer: &Optimizer) -> Result<()>;

    /// Allocates everything for the largest micro-batch of a run.
    fn reserve(&mut self, model: Model, optimizer: &Optimizer, work: Work) -> Result<()>;

    /// Runs decoder and head on a batch, or has a device do it.
    fn forward(&mut self, model: Model, packed: &Packed, pass: Pass) -> Result<()>;

    /// Continues prompts with the model as it is here, in memory that is given back afterwards.
    fn generate(&mut self, model: Model, requests: &[Request], abort: Arc<AtomicBool>) -> Result<Vec<Generation>>;

    /// Waits for what the rows of the last batch say about their targets, and not for a backward pass that was asked for since.
    fn wait_for_stats(&mut self) -> Result<()>;

    /// What they say, once it was waited for.
    fn stats(&self) -> &Stats;

    /// Adds to the gradients, from the loss's derivative by each log-probability; `None`: the one that the forward pass was
    /// given.
    fn backward(&mut self, model: Model, packed: &Packed, coefficients: Option<&[f32]>) -> Result<()>;

    /// Flat, in the layout of what is trained; empty before the first accumulation.
    fn gradients(&self) -> Result<Cow<'_, [f32]>>;

    fn clear_gradients(&mut self);

    /// Before clipping.
    fn grad_norm(&mut self) -> Result<f64>;

    /// Clips, updates and clears the gradients. Gives the norm before clipping; if that is not finite, nothing is changed.
    fn step(&mut self, trained: Parameters, optimizer: &mut Arc<Optimizer>, update: &Update) -> Result<f64>;

    /// Brings what was trained to the host.
    fn fetch(&mut self, trained: Parameters, optimizer: &mut Arc<Optimizer>) -> Result<()>;

    /// Whether there is something to fetch.
    fn is_ahead(&self) -> bool;

    /// The host's weights or the optimizer's state are other ones than before.
    fn refresh(&mut self);

    /// Gives all memory back.
    fn release(&mut self);

    fn bytes(&self) -> usize;
}
