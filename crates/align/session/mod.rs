//! One training session: accumulate micro-batches, apply an optimizer step.
//!
//! The loop itself (epochs, order, logging, saving) belongs to the caller; a session owns what one step needs:
//! gradients, moments, activations, the head's scratch. Nothing is allocated inside a step after the largest batch.

mod backend;
mod device;
mod host;
mod optimizer;
mod pairs;
mod plan;
mod sums;
mod unpaired;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use zephyr_kernels::cuda::{Bf16, Device};
use zephyr_kernels::head::Stats;
use zephyr_kernels::noise::Noise;
use zephyr_mistral::generate::{Generation, Request};
use zephyr_mistral::lora::dropout_key;
use zephyr_mistral::train::{self, Recompute};
use zephyr_mistral::{Model, Parameters, Weights};

use self::backend::{Backend, Pass};
use self::device::OnDevice;
use self::host::Host;
pub use self::optimizer::{Optimizer, OptimizerKind, Update, decay_runs, state_bytes};
pub use self::pairs::{PairObjective, ReferenceLogps};
pub use self::plan::{MemoryPlan, Precision, Work};
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
    /// Whoever sets it ends the pass that is under way with `ZA_ABORTED`, on the CPU before its next layer, and every later one.
    /// Nothing of the step that was being accumulated is left.
    pub stop: Arc<AtomicBool>,
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
            stop: Arc::default(),
        }
    }
}

/// Gradients, moments and workspace of one model in training, on the host or on a device.
pub struct Session {
    options: SessionOptions,
    backend: Box<dyn Backend>,
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
        Self::with(Box::new(Host::new(&weights.config, &options)), options)
    }

    /// A session on a device, of one model: it is copied there at its first use and trained there, and the host's weights and
    /// the optimizer's moments stay what they were until [`Self::fetch`].
    pub fn on(device: Arc<dyn Device>, precision: Precision, options: SessionOptions) -> Self {
        let backend: Box<dyn Backend> = match precision {
            Precision::F32 => Box::new(OnDevice::<f32>::new(device, &options)),
            Precision::Bf16 => Box::new(OnDevice::<Bf16>::new(device, &options)),
        };
        Self::with(backend, options)
    }

    fn with(backend: Box<dyn Backend>, options: SessionOptions) -> Self {
        Self {
            backend,
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

    /// Brings what was trained on a device to the host: the weights or adapter to `trained`, the moments to the optimizer.
    /// Before saving, generating, or going on with the model elsewhere. Nothing to do on the host.
    ///
    /// # Errors
    /// The device's.
    pub fn fetch<'p>(&mut self, trained: impl Into<Parameters<'p>>) -> Result<()> {
        self.backend.fetch(trained.into(), &mut self.optimizer)
    }

    /// Allocates all that a run needs on a device, and copies the model there. Nothing to do on the host.
    ///
    /// # Errors
    /// `ZA_OUT_OF_MEMORY` (see [`MemoryPlan::fitting`]), `ZA_DEVICE_UNSUPPORTED`, the device's.
    pub fn reserve<'m>(&mut self, model: impl Into<Model<'m>>, work: Work) -> Result<()> {
        self.backend.reserve(model.into(), &self.optimizer, work)
    }

    /// Whether the device has made steps that the host has not seen ([`Self::fetch`]).
    pub fn is_ahead(&self) -> bool {
        self.backend.is_ahead()
    }

    /// The model's weights were changed on the host: a device gets them anew at the next use.
    pub fn refresh(&mut self) {
        self.backend.refresh();
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
        self.backend.refresh();
        self.discard();
    }

    /// The accumulated gradient (flat, the layout of what is trained); empty before the first accumulation.
    ///
    /// # Errors
    /// The device's; none on the host.
    pub fn gradients(&self) -> Result<Cow<'_, [f32]>> {
        self.backend.gradients()
    }

    /// Gives all memory back: gradients, moments and workspace. The session can be used again, as a new one.
    pub fn release(&mut self) {
        self.backend.release();
        self.optimizer = Arc::new(Optimizer::new(self.options.optimizer));
        self.tokens_seen = 0;
        self.discard();
        self.evaluated = Sums::Nothing;
    }

    /// Bytes of gradients, moments, activations and head buffers; on a device those of its memory, the weights' included.
    pub fn bytes(&self) -> usize {
        self.backend.bytes() + self.optimizer.bytes()
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
        let noise = self.options.embedding_noise.map(|EmbeddingNoise { alpha }| Noise {
            alpha,
            seed: self.options.seed,
            counter: self.tokens_seen(),
        });
        let coefficient = (-1.0 / tokens_in_step) as f32;
        self.forward(model, packed, Pass { keep: true, noise, coefficient: Some(coefficient), ..Pass::default() })?;
        // Before the loss is looked at, so that a device has work meanwhile.
        self.backward(model, packed, None)?;
        let sums = TokenSums::of(self.stats()?, tokens_in_step);
        self.finite_or_discard("loss", sums.loss)?;
        self.sums.add_sft(sums);
        self.count(packed);
        Ok(sums)
    }

    /// Norm of the gradient accumulated so far, before clipping.
    ///
    /// # Errors
    /// The device's; none on the host.
    pub fn grad_norm(&mut self) -> Result<f64> {
        self.backend.grad_norm()
    }

    /// Clips, updates what is trained (weights or adapter) by AdamW and clears the gradient and the sums. On a device
    /// `trained` stays as it is until [`Self::fetch`].
    ///
    /// # Errors
    /// A non-finite norm: nothing is updated, the gradient is cleared.
    pub fn apply<'p>(&mut self, trained: impl Into<Parameters<'p>>, update: &Update) -> Result<StepResult> {
        let grad_norm = self.backend.step(trained.into(), &mut self.optimizer, update)?;
        self.finite_or_discard("grad_norm", grad_norm)?;
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
        self.backend.clear_gradients();
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
        Ok(packed.sum_by_sequence(&self.stats()?.logp))
    }

    /// Log-probability of each predicted token, in the order of `packed.targets`.
    pub fn token_logps<'m>(&mut self, model: impl Into<Model<'m>>, packed: &Packed) -> Result<&[f32]> {
        self.score(model.into(), packed)?;
        Ok(&self.stats()?.logp)
    }

    /// Adds a batch to the evaluation: SFT sums without training; `tokens_in_set` counts the whole evaluation set.
    pub fn evaluate_sft<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        tokens_in_set: f64,
    ) -> Result<TokenSums> {
        self.score(model.into(), packed)?;
        let sums = TokenSums::of(self.stats()?, tokens_in_set);
        self.evaluated.add_sft(sums);
        Ok(sums)
    }

    /// Continues prompts with the model as it was trained so far. On a device with the weights that are there, which need not be
    /// fetched for it; memory beside the training's is taken and given back.
    ///
    /// # Errors
    /// As [`Generator::generate_batch`](zephyr_mistral::generate::Generator::generate_batch).
    pub fn generate<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        requests: &[Request],
        abort: Arc<AtomicBool>,
    ) -> Result<Vec<Generation>> {
        self.backend.generate(model.into(), requests, abort)
    }

    fn score(&mut self, model: Model, packed: &Packed) -> Result<()> {
        self.forward(model, packed, Pass::default())
    }

    /// Runs decoder and head; what the rows say about their targets is then in [`Self::stats`].
    fn forward(&mut self, model: Model, packed: &Packed, pass: Pass) -> Result<()> {
        if pass.keep {
            model.check_trainable()?;
            self.backend.prepare(model, &self.optimizer)?;
        }
        // A function of place in the run, so that a resumed run draws the masks of the undisturbed one.
        let dropout = Some(dropout_key(&[self.options.seed, self.step(), self.micro_batches]));
        let done = self.go_on().and_then(|()| self.backend.forward(model, packed, Pass { dropout, ..pass }));
        self.done_or_discard(done)
    }

    /// As [`Backend::backward`].
    fn backward(&mut self, model: Model, packed: &Packed, coefficients: Option<&[f32]>) -> Result<()> {
        let done = self.go_on().and_then(|()| self.backend.backward(model, packed, coefficients));
        self.done_or_discard(done)
    }

    fn stats(&mut self) -> Result<&Stats> {
        let done = self.backend.wait_for_stats();
        self.done_or_discard(done)?;
        Ok(self.backend.stats())
    }

    fn go_on(&self) -> Result<()> {
        Ok(train::go_on(&self.options.stop)?)
    }

    /// What was not finished leaves no gradient behind: it would be added to the next step.
    fn done_or_discard(&mut self, done: Result<()>) -> Result<()> {
        if done.is_err() {
            self.discard();
        }
        done
    }

    /// A step that cannot be finished leaves no gradient behind: it would be added to the next one.
    fn finite_or_discard(&mut self, what: &'static str, value: f64) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        self.done_or_discard(Err(Error::NonFinite { what, value, step: self.step() + 1 }))
    }
}
