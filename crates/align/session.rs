//! One training session: accumulate micro-batches, apply an optimizer step.
//!
//! The loop itself (epochs, order, logging, saving) belongs to the caller; a session owns what one step needs:
//! gradients, moments, activations, the head's scratch. Nothing is allocated inside a step after the largest batch.

use std::sync::Arc;

use rayon::prelude::*;
use zephyr_kernels::{adamw, head, norm, rope};
use zephyr_mistral::lora::dropout_key;
use zephyr_mistral::train::{self, Activations, Recompute};
use zephyr_mistral::{Model, Parameters, TensorSpec, Weights};

use crate::batch::Packed;
use crate::checkpoint::{Section, SectionMut};
use crate::error::{Error, Result};
use crate::losses::{self, Denominator, LossConfig, PairLogps, PairLoss};
use crate::metrics::{PairSums, TokenSums};

/// The sums of micro-batches since the last optimizer step (or since the last evaluation was taken).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sums {
    #[default]
    Nothing,
    Sft(TokenSums),
    Dpo(PairSums),
}

impl Sums {
    fn add_sft(&mut self, sums: TokenSums) {
        match self {
            Self::Sft(total) => *total += sums,
            _ => *self = Self::Sft(sums),
        }
    }

    fn add_dpo(&mut self, sums: PairSums) {
        match self {
            Self::Dpo(total) => *total += sums,
            _ => *self = Self::Dpo(sums),
        }
    }
}

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
    /// Of an adapter's dropout masks.
    pub seed: u64,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { recompute: Recompute::default(), head_chunk: 128, max_length: 2048, reference_is_start: false, seed: 0 }
    }
}

/// AdamW and clipping for one step (PyTorch's AdamW, `clip_grad_norm_`). Norm weights are not decayed, as in
/// transformers' `get_decay_parameter_names`.
#[derive(Clone, Debug)]
pub struct Update {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    /// `None`: no clipping.
    pub max_grad_norm: Option<f64>,
}

/// AdamW's first and second moments (flat, the parameters' layout); empty before the first step.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Moments {
    pub(crate) fn zeros(parameters: usize) -> Self {
        Self { first: vec![0.0; parameters], second: vec![0.0; parameters] }
    }

    /// The optimizer's part of a checkpoint.
    pub(crate) fn sections(&self) -> [Section<'_>; 2] {
        [Section::floats("first_moment", &self.first), Section::floats("second_moment", &self.second)]
    }

    /// Where that part is read back to.
    pub(crate) fn sections_mut(&mut self) -> [SectionMut<'_>; 2] {
        [SectionMut::floats("first_moment", &mut self.first), SectionMut::floats("second_moment", &mut self.second)]
    }
}

/// Sequence log-probabilities under the frozen reference, `[pairs]` each.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceLogps<'a> {
    pub chosen: &'a [f64],
    pub rejected: &'a [f64],
}

/// Gradients, moments and workspace of one model in training.
pub struct Session {
    options: SessionOptions,
    rope: rope::Table,
    activations: Activations,
    head: HeadScratch,
    gradients: Vec<f32>,
    /// Shared with a checkpoint that is being written; a step copies them only if one still holds them.
    moments: Arc<Moments>,
    /// Optimizer steps done.
    step: u64,
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

/// Buffers of the log-prob head: only predicted rows, a chunk of logits at a time.
#[derive(Default)]
struct HeadScratch {
    hidden: Vec<f32>,
    d_hidden: Vec<f32>,
    coefficient: Vec<f32>,
    stats: head::Stats,
    logits: Vec<f32>,
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
            moments: Arc::default(),
            step: 0,
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
        self.step
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

    /// AdamW's first and second moments (flat, the layout of what is trained); empty before the first step.
    pub fn moments(&self) -> (&[f32], &[f32]) {
        (&self.moments.first, &self.moments.second)
    }

    /// The moments for a checkpoint, without a copy.
    pub(crate) fn shared_moments(&self) -> Arc<Moments> {
        self.moments.clone()
    }

    /// Goes back to a saved step boundary.
    pub(crate) fn restore(&mut self, step: u64, tokens_seen: u64, moments: Moments) {
        self.step = step;
        self.tokens_seen = tokens_seen;
        self.moments = Arc::new(moments);
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
            + self.moments.first.capacity()
            + self.moments.second.capacity()
            + self.head.hidden.capacity()
            + self.head.d_hidden.capacity()
            + self.head.logits.capacity();
        floats * size_of::<f32>() + self.activations.bytes()
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
        self.forward(model, packed, true)?;
        self.prepare_gradients(model.trainable());
        let coefficient = (-1.0 / tokens_in_step) as f32;
        self.head.coefficient.clear();
        self.head.coefficient.resize(packed.rows.len(), coefficient);
        let head = head_of(model, &self.options);
        let d_weight = head_gradient(model, &mut self.gradients);
        let scratch = &mut self.head;
        head::forward_backward(
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

    /// Adds one micro-batch of DPO. `packed` holds the pairs interleaved: chosen 0, rejected 0, chosen 1, …
    ///
    /// # Errors
    /// As [`Self::accumulate_sft`]; [`Error::ReferenceMismatch`] when the first step does not start at rewards 0.
    pub fn accumulate_dpo<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        reference: ReferenceLogps,
        config: &LossConfig,
        denominator: Denominator,
    ) -> Result<PairSums> {
        let model = model.into();
        let (loss, sums) = self.pair_forward(model, packed, reference, config, denominator, true)?;
        self.finite_or_discard("loss", loss.loss)?;
        // Dropout in a trained adapter moves the policy away from its own start; without one, rewards are 0.
        let dropped = model.adapter.is_some_and(|adapter| adapter.config.dropout > 0.0 && !adapter.is_neutral());
        if self.options.reference_is_start && self.step == 0 && !dropped {
            rewards_are_zero(&loss)?;
        }
        self.prepare_gradients(model.trainable());
        let d_weight = head_gradient(model, &mut self.gradients);
        let scratch = &mut self.head;
        scratch.coefficient.clear();
        scratch.coefficient.extend(packed.owner.iter().map(|&owner| {
            let pair = owner as usize / 2;
            (if owner.is_multiple_of(2) { loss.d_chosen[pair] } else { loss.d_rejected[pair] }) as f32
        }));
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
        self.sums.add_dpo(sums);
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
        let moments = Arc::make_mut(&mut self.moments);
        if moments.first.is_empty() {
            *moments = Moments::zeros(data.len());
        }
        self.step += 1;
        for (range, decayed) in decay_runs(tensors) {
            adamw::step(
                &mut data[range.clone()],
                &self.gradients[range.clone()],
                &mut moments.first[range.clone()],
                &mut moments.second[range],
                &adamw::Config {
                    lr: update.learning_rate,
                    beta1: update.beta1,
                    beta2: update.beta2,
                    eps: update.epsilon,
                    weight_decay: if decayed { update.weight_decay } else { 0.0 },
                    step: self.step,
                    grad_scale: scale as f32,
                },
            );
        }
        self.gradients.fill(0.0);
        let sums = std::mem::take(&mut self.sums);
        let computed_tokens = std::mem::take(&mut self.computed_tokens);
        self.tokens_seen += std::mem::take(&mut self.step_tokens);
        self.micro_batches = 0;
        Ok(StepResult { step: self.step, grad_norm, sums, tokens_seen: self.tokens_seen, computed_tokens })
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

    /// Adds a batch to the evaluation: DPO sums without training; `denominator` counts the whole evaluation set.
    pub fn evaluate_dpo<'m>(
        &mut self,
        model: impl Into<Model<'m>>,
        packed: &Packed,
        reference: ReferenceLogps,
        config: &LossConfig,
        denominator: Denominator,
    ) -> Result<PairSums> {
        let (_, sums) = self.pair_forward(model.into(), packed, reference, config, denominator, false)?;
        self.evaluated.add_dpo(sums);
        Ok(sums)
    }

    fn pair_forward(
        &mut self,
        model: Model,
        packed: &Packed,
        reference: ReferenceLogps,
        config: &LossConfig,
        denominator: Denominator,
        keep: bool,
    ) -> Result<(PairLoss, PairSums)> {
        let pairs = packed.sequences() / 2;
        if !packed.sequences().is_multiple_of(2) || reference.chosen.len() != pairs || reference.rejected.len() != pairs
        {
            return Err(Error::Config(format!(
                "{} sequences with {} + {} reference log-probs are not pairs",
                packed.sequences(),
                reference.chosen.len(),
                reference.rejected.len()
            )));
        }
        self.forward(model, packed, keep)?;
        self.head_forward(model, packed);
        let sums = packed.sum_by_sequence(&self.head.stats.logp);
        let side = |values: &[f64], offset: usize| values.iter().skip(offset).step_by(2).copied().collect::<Vec<f64>>();
        let lengths: Vec<f64> = packed.predicted.iter().map(|&count| f64::from(count)).collect();
        let (chosen, rejected) = (side(&sums, 0), side(&sums, 1));
        let (chosen_tokens, rejected_tokens) = (side(&lengths, 0), side(&lengths, 1));
        let logps = PairLogps {
            policy_chosen: &chosen,
            policy_rejected: &rejected,
            ref_chosen: reference.chosen,
            ref_rejected: reference.rejected,
            chosen_tokens: &chosen_tokens,
            rejected_tokens: &rejected_tokens,
        };
        let loss = losses::pair_loss(config, &logps, denominator)?;
        let sums = PairSums::of(&self.head.stats, packed, &logps, &loss);
        Ok((loss, sums))
    }

    fn score(&mut self, model: Model, packed: &Packed) -> Result<()> {
        self.forward(model, packed, false)?;
        self.head_forward(model, packed);
        Ok(())
    }

    /// Runs the decoder and gathers the rows that predict something.
    fn forward(&mut self, model: Model, packed: &Packed, keep: bool) -> Result<()> {
        if keep {
            model.check_trainable()?;
        }
        // A function of place in the run, so that a resumed run draws the masks of the undisturbed one.
        self.activations.dropout = Some(dropout_key(&[self.options.seed, self.step, self.micro_batches]));
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

    fn head_forward(&mut self, model: Model, packed: &Packed) {
        let head = head_of(model, &self.options);
        let scratch = &mut self.head;
        head::forward(&head, &scratch.hidden, &packed.targets, &mut scratch.stats, &mut scratch.logits);
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
        Err(Error::NonFinite { what, value, step: self.step + 1 })
    }
}

fn head_of<'a>(model: Model<'a>, options: &SessionOptions) -> head::Head<'a> {
    let weights = model.weights;
    head::Head {
        weight: weights.head(),
        vocabulary: weights.config.vocab_size,
        width: weights.config.hidden_size,
        chunk: options.head_chunk,
    }
}

/// Where the head's gradient goes: under an adapter it is frozen and has none.
fn head_gradient<'g>(model: Model, gradients: &'g mut [f32]) -> Option<&'g mut [f32]> {
    model.adapter.is_none().then(|| &mut gradients[model.weights.layout.lm_head.clone()])
}

/// The first step against the policy's own start: every reward is 0 up to the rounding of f32 log-prob sums.
fn rewards_are_zero(loss: &PairLoss) -> Result<()> {
    const ROUNDING: f64 = 1e-3;
    let off = |rewards: &[f64]| rewards.iter().copied().find(|reward| reward.abs() > ROUNDING);
    match off(&loss.rewards_chosen).or_else(|| off(&loss.rewards_rejected)) {
        Some(reward) => Err(Error::ReferenceMismatch { what: format!("a reward of {reward}") }),
        None => Ok(()),
    }
}

/// Neighbouring parameters of equal decay as one run: few kernel calls for a whole model.
fn decay_runs(tensors: &[TensorSpec]) -> Vec<(std::ops::Range<usize>, bool)> {
    let mut runs: Vec<(std::ops::Range<usize>, bool)> = Vec::new();
    for tensor in tensors {
        let decayed = tensor.shape.len() > 1;
        match runs.last_mut() {
            Some((range, same)) if *same == decayed && range.end == tensor.range.start => range.end = tensor.range.end,
            _ => runs.push((tensor.range.clone(), decayed)),
        }
    }
    runs
}
