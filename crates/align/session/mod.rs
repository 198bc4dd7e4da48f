//! One training session: accumulate micro-batches, apply an optimizer step.
//!
//! The loop itself (epochs, order, logging, saving) belongs to the caller; a session owns what one step needs:
//! gradients, moments, activations, the head's scratch. Nothing is allocated inside a step after the largest batch.

mod head;
mod optimizer;
mod pairs;
mod sums;
mod unpaired;

use std::sync::Arc;

use zephyr_kernels::{norm, rope};
use zephyr_mistral::train::{self, Activations, Noise, Recompute};
use zephyr_mistral::{Model, Parameters, Weights};

use self::head::{HeadScratch, head_gradient, head_of};
pub use self::optimizer::{Optimizer, OptimizerKind, Update, decay_runs, state_bytes};
pub use self::pairs::{PairObjective, ReferenceLogps};
pub use self::sums::Sums;
pub use self::unpaired::Unpaired;
use crate::batch::Packed;
use crate::error::{Error, Result};
use crate::metrics::TokenSums;

/// What one optimizer step did.
#[derive(Clone, Copy, Debug)]
pub struct StepResult {
    /// Steps done, this one included.
    pub step: u64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    pub sums: Sums,
    /// Tokens trained on since the run began, prompts included, for each side of a pair.
    pub tokens_seen: u64,
    /// Tokens that went through the decoder in this step: a shared prompt once.
    pub computed_tokens: u64,
}

/// What a session is built with.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    pub recompute: Recompute,
    /// Token rows of the head computed at once; the logits buffer is `head_chunk · vocabulary` floats.
    pub head_chunk: usize,
    /// Longest document: the size of the rotary table.
    pub max_length: usize,
    /// The reference is the policy as it starts: rewards of the first DPO step must be 0, or the run is refused.
    pub reference_is_start: bool,
    pub optimizer: OptimizerKind,
    /// Noise on the embeddings of SFT's training batches; `None`: none.
    pub embedding_noise: Option<EmbeddingNoise>,
    /// Of an adapter's dropout masks and of the noise.
    pub seed: u64,
}

/// NEFTune (Jain et al. 2023, arXiv 2310.05914; TRL `neftune_noise_alpha`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingNoise {
    /// α: each element moves by up to `α/√(L·h)`, L the tokens of its document.
    pub alpha: f32,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            recompute: Recompute::default(),
            head_chunk: 128,
            max_length: 2048,
            reference_is_start: false,
            optimizer: OptimizerKind::default(),
            embedding_noise: None,
            seed: 0,
        }
    }
}

/// Gradients, moments and workspace of one model in training.
pub struct Session {
    options: SessionOptions,
    rope: rope::Table,
    activations: Activations,
    head: HeadScratch,
    gradients: Vec<f32>,
    /// Shared with a checkpoint that is being written; a step copies it only if one still holds it.
    optimizer: Arc<Optimizer>,
    /// Of finished steps.
    tokens_seen: u64,
    /// Of the step that is being accumulated.
    step_tokens: u64,
    /// Since the last optimizer step.
    computed_tokens: u64,
    /// Since the last optimizer step.
    micro_batches: u64,
    sums: Sums,
    evaluated: Sums,
}

impl Session {
    /// A session for models of that shape. Gradients and moments are allocated at the first training step, so that a
    /// session that only scores holds no more than activations.
    pub fn new(weights: &Weights, options: SessionOptions) -> Self {
        Self { rope: train::rope_table(&weights.config, options.max_length), ..Self::empty(options) }
    }

    fn empty(options: SessionOptions) -> Self {
        Self {
            rope: rope::Table::new(2, 1.0, 0),
            activations: Activations::new(options.recompute),
            head: HeadScratch::default(),
            gradients: Vec::new(),
            optimizer: Arc::new(Optimizer::new(options.optimizer)),
            tokens_seen: 0,
            step_tokens: 0,
            computed_tokens: 0,
            micro_batches: 0,
            sums: Sums::Nothing,
            evaluated: Sums::Nothing,
            options,
        }
    }

    /// Optimizer steps done.
    pub fn step(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Tokens trained on since the run began, prompts included, for each side of a pair; those of the step that is being
    /// accumulated as well.
    pub fn tokens_seen(&self) -> u64 {
        self.tokens_seen + self.step_tokens
    }

    /// Tokens of finished steps.
    pub(crate) fn finished_tokens(&self) -> u64 {
        self.tokens_seen
    }

    /// AdamW's first and second moments (flat, the layout of what is trained); empty before the first step, and when they are coded.
    pub fn moments(&self) -> (&[f32], &[f32]) {
        self.optimizer.moments()
    }

    /// The optimizer with its state.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimizer for a checkpoint, without a copy.
    pub(crate) fn shared_optimizer(&self) -> Arc<Optimizer> {
        self.optimizer.clone()
    }

    /// Goes back to a saved step boundary.
    pub(crate) fn restore(&mut self, tokens_seen: u64, optimizer: Optimizer) {
        self.tokens_seen = tokens_seen;
        self.optimizer = Arc::new(optimizer);
        self.discard();
    }

    /// The accumulated gradient (flat, the layout of what is trained); empty before the first accumulation.
    pub fn gradients(&self) -> &[f32] {
        &self.gradients
    }

    /// Gives all memory back: gradients, moments and workspace. The session can be used again, as a new one.
    pub fn release(&mut self) {
        *self = Self {
            rope: std::mem::replace(&mut self.rope, rope::Table::new(2, 1.0, 0)),
            ..Self::empty(self.options.clone())
        };
    }

    /// Bytes of gradients, moments, activations and head buffers.
    pub fn bytes(&self) -> usize {
        let floats = self.gradients.capacity()
            + self.head.hidden.capacity()
            + self.head.d_hidden.capacity()
            + self.head.logits.capacity();
        floats * size_of::<f32>() + self.optimizer.bytes() + self.activations.bytes()
    }

    /// Adds one micro-batch of SFT: mean cross-entropy of the predicted tokens over `tokens_in_step`, the count of
    /// predicted tokens of the whole optimizer step.
    ///
    /// # Errors
    /// A loss that is not finite, an id outside the vocabulary, a document longer than `max_length`. After a loss that
    /// is not finite nothing of the step is left; the weights are untouched in any case.
    pub fn accumulate_sft<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        tokens_in_step: f64,
    ) -> Result<TokenSums> {
        let model = model.into();
        // Differs for every micro-batch of a run, and a resumed run goes on with it.
        self.activations.noise = self.options.embedding_noise.map(|EmbeddingNoise { alpha }| Noise {
            alpha,
            seed: self.options.seed,
            counter: self.tokens_seen(),
        });
        let outcome = self.forward(model, packed, true);
        self.activations.noise = None;
        outcome?;
        self.prepare_gradients(model.trainable());
        let coefficient = (-1.0 / tokens_in_step) as f32;
        self.head.coefficient.clear();
        self.head.coefficient.resize(packed.rows.len(), coefficient);
        let head = head_of(model, &self.options);
        let d_weight = head_gradient(model, &mut self.gradients);
        let scratch = &mut self.head;
        zephyr_kernels::head::forward_backward(
            &head,
            &scratch.hidden,
            &packed.targets,
            &scratch.coefficient,
            &mut scratch.d_hidden,
            d_weight,
            &mut scratch.stats,
            &mut scratch.logits,
        );
        let sums = TokenSums::of(&self.head.stats, tokens_in_step);
        self.finite_or_discard("loss", sums.loss)?;
        self.backward(model, packed);
        self.sums.add_sft(sums);
        self.count(packed);
        Ok(sums)
    }

    /// Norm of the gradient accumulated so far, before clipping.
    pub fn grad_norm(&self) -> f64 {
        norm::sum_of_squares(&self.gradients).sqrt()
    }

    /// Clips, updates what is trained (weights or adapter) by AdamW and clears the gradient and the sums.
    ///
    /// # Errors
    /// A non-finite norm: nothing is updated, the gradient is cleared.
    pub fn apply<'p>(&mut self, trained: impl Into<Parameters<'p>>, update: &Update) -> Result<StepResult> {
        let Parameters { data, tensors } = trained.into();
        self.prepare_gradients(data.len());
        let grad_norm = self.grad_norm();
        self.finite_or_discard("grad_norm", grad_norm)?;
        // clip_grad_norm_ of PyTorch: coefficient max / (norm + 1e-6), never above 1.
        let scale = update.max_grad_norm.map_or(1.0, |max| (max / (grad_norm + 1e-6)).min(1.0));
        let runs = decay_runs(tensors);
        Arc::make_mut(&mut self.optimizer).step(data, &self.gradients, &runs, update, scale as f32);
        self.gradients.fill(0.0);
        let sums = std::mem::take(&mut self.sums);
        let computed_tokens = std::mem::take(&mut self.computed_tokens);
        self.tokens_seen += std::mem::take(&mut self.step_tokens);
        self.micro_batches = 0;
        Ok(StepResult { step: self.optimizer.steps(), grad_norm, sums, tokens_seen: self.tokens_seen, computed_tokens })
    }

    fn count(&mut self, packed: &Packed) {
        self.step_tokens += packed.tokens();
        self.computed_tokens += packed.computed_tokens();
        self.micro_batches += 1;
    }

    /// Forgets what was accumulated since the last [`Self::apply`], its tokens included.
    pub fn discard(&mut self) {
        self.gradients.fill(0.0);
        self.step_tokens = 0;
        self.computed_tokens = 0;
        self.micro_batches = 0;
        self.sums = Sums::Nothing;
    }

    /// The sums of all evaluation batches since the last call.
    pub fn take_evaluation(&mut self) -> Sums {
        std::mem::take(&mut self.evaluated)
    }

    /// Sum of log-probabilities of each sequence's predicted tokens, `[S]`; nothing is kept for a backward.
    pub fn sequence_logps<'m>(&mut self, model: impl Into<Model<'m>>, packed: &Packed) -> Result<Vec<f64>> {
        self.score(model.into(), packed)?;
        Ok(packed.sum_by_sequence(&self.head.stats.logp))
    }

    /// Log-probability of each predicted token, in the order of `packed.targets`.
    pub fn token_logps<'m>(&mut self, model: impl Into<Model<'m>>, packed: &Packed) -> Result<&[f32]> {
        self.score(model.into(), packed)?;
        Ok(&self.head.stats.logp)
    }

    /// Adds a batch to the evaluation: SFT sums without training; `tokens_in_set` counts the whole evaluation set.
    pub fn evaluate_sft<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        tokens_in_set: f64,
    ) -> Result<TokenSums> {
        self.score(model.into(), packed)?;
        let sums = TokenSums::of(&self.head.stats, tokens_in_set);
        self.evaluated.add_sft(sums);
        Ok(sums)
    }

    fn score(&mut self, model: Model, packed: &Packed) -> Result<()> {
        self.forward(model, packed, false)?;
        self.head_forward(model, packed, false);
        Ok(())
    }

    /// Adds the head's gradient to its rows (one that predicts two answers gets both) and runs the decoder's backward.
    fn backward(&mut self, model: Model, packed: &Packed) {
        let width = model.weights.config.hidden_size;
        let d_hidden = &mut self.activations.d_hidden;
        d_hidden.fill(0.0);
        for (row, gradient) in packed.rows.iter().zip(self.head.d_hidden.chunks_exact(width)) {
            let sum = &mut d_hidden[*row as usize * width..][..width];
            sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
        }
        train::backward(model, &self.rope, &packed.batch(), &mut self.activations, &mut self.gradients);
    }

    fn prepare_gradients(&mut self, trainable: usize) {
        if self.gradients.is_empty() {
            self.gradients = vec![0.0; trainable];
        }
    }

    /// A step that cannot be finished leaves no gradient behind: it would be added to the next one.
    fn finite_or_discard(&mut self, what: &'static str, value: f64) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        self.discard();
        Err(Error::NonFinite { what, value, step: self.step() + 1 })
    }
}
