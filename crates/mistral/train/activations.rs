//! The workspace of a step: every activation and every backward buffer, allocated once and reused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zephyr_kernels::noise::Noise;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::linear::LoraScratch;
use crate::storage::Storage;

/// What the backward finds saved and what it computes again. All three give the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Everything is saved: fastest, most memory.
    None,
    /// Normalised inputs and the MLP's product are computed again (cheap elementwise passes).
    #[default]
    NormsAndSwiglu,
    /// Only each layer's input is saved; its forward runs again in the backward (+1/3 of the arithmetic).
    Layer,
}

impl Recompute {
    /// The names of DESIGN §3: `none`, `norms-and-swiglu`, `layer`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "norms-and-swiglu" => Some(Self::NormsAndSwiglu),
            "layer" => Some(Self::Layer),
            _ => None,
        }
    }

    /// What the CPU takes where nothing is said. Over a quantised base it is `layer`, as PEFT's `prepare_model_for_kbit_training`
    /// turns gradient checkpointing on: else activations would take what the quantisation gave.
    pub fn over(base: Storage) -> Self {
        match base {
            Storage::Nf4 | Storage::Gguf => Self::Layer,
            Storage::F32 | Storage::Bf16 => Self::default(),
        }
    }

    /// As [`Self::parse`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NormsAndSwiglu => "norms-and-swiglu",
            Self::Layer => "layer",
        }
    }
}

/// What one layer's backward needs and cannot get cheaply. Sizes in floats; T tokens.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// `[T]`
    pub rstd_attention: Vec<f32>,
    /// `[T, (H + 2·KV)·D]`, after the rotation.
    pub qkv: Vec<f32>,
    /// `[T, H·D]`
    pub attended: Vec<f32>,
    /// `[H, T]`
    pub lse: Vec<f32>,
    /// `[T, h]`, the stream between attention and MLP.
    pub residual_mid: Vec<f32>,
    /// `[T]`
    pub rstd_mlp: Vec<f32>,
    /// `[T, 2·I]`; the backward overwrites it with its gradient.
    pub gate_up: Vec<f32>,
}

/// What follows from [`Saved`] and the residual stream by one elementwise pass.
#[derive(Debug, Default)]
pub(super) struct Derived {
    /// `[T, h]`
    pub normed_attention: Vec<f32>,
    /// `[T, h]`
    pub normed_mlp: Vec<f32>,
    /// `[T, I]`
    pub product: Vec<f32>,
}

/// Buffers of the backward pass, shared by all layers.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// `[T, h]`, gradient of the residual stream.
    pub d_residual: Vec<f32>,
    /// `[T, h]`
    pub d_normed: Vec<f32>,
    /// `[T, (H + 2·KV)·D]`
    pub d_qkv: Vec<f32>,
    /// `[T, H·D]`
    pub d_attended: Vec<f32>,
    /// `[T, I]`
    pub d_product: Vec<f32>,
}

/// Activations of one forward, and the buffers of its backward. Grows to the largest batch seen, never shrinks.
#[derive(Debug, Default)]
pub struct Activations {
    pub(super) recompute: Recompute,
    pub(super) kept: bool,
    /// Input of each layer, then of the final norm: `layers + 1` buffers `[T, h]` (two when nothing is kept).
    pub(super) residuals: Vec<Vec<f32>>,
    pub(super) saved: Vec<Saved>,
    pub(super) derived: Vec<Derived>,
    pub(super) rstd_final: Vec<f32>,
    /// The final hidden states after the last norm, `[T, h]`: what the head reads.
    pub hidden: Vec<f32>,
    /// Gradient of [`Self::hidden`], `[T, h]`, written by the head before the backward.
    pub d_hidden: Vec<f32>,
    pub(super) flow: Flow,
    pub(super) lora: LoraScratch,
    /// The key of an adapter's dropout masks in this micro-batch: set before a forward with `keep`, and left until its
    /// backward is done. `None`, and every forward without `keep`: no dropout.
    pub dropout: Option<u64>,
    /// Added to the embeddings by the next forwards, until it is taken away.
    pub noise: Option<Noise>,
    /// Whoever sets it ends the pass that is under way, before its next layer.
    pub stop: Arc<AtomicBool>,
}

/// Refuses to go on where a stop is asked for.
///
/// # Errors
/// [`Error::Aborted`]
pub fn go_on(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Aborted) } else { Ok(()) }
}

/// Sets the length; what is new is zero, what was there stays: every reader overwrites first.
fn fit(buffer: &mut Vec<f32>, len: usize) {
    buffer.resize(len, 0.0);
}

impl Activations {
    /// An empty workspace with that policy.
    pub fn new(recompute: Recompute) -> Self {
        Self { recompute, ..Self::default() }
    }

    /// Sizes every buffer for `tokens`; with `keep` also what the backward needs.
    pub(super) fn prepare(&mut self, config: &Config, tokens: usize, keep: bool) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let attended = config.heads * config.head_dim;
        let qkv = attended + 2 * config.kv_heads * config.head_dim;
        self.kept = keep;
        let grow = |have: usize, want: usize| want.max(have);
        let residuals = if keep { config.layers + 1 } else { 2 };
        let saved = if keep && self.recompute != Recompute::Layer { config.layers } else { 1 };
        let derived = if keep && self.recompute == Recompute::None { config.layers } else { 1 };
        self.residuals.resize_with(grow(self.residuals.len(), residuals), Vec::new);
        self.saved.resize_with(grow(self.saved.len(), saved), Saved::default);
        self.derived.resize_with(grow(self.derived.len(), derived), Derived::default);
        for buffer in &mut self.residuals[..residuals] {
            fit(buffer, tokens * hidden);
        }
        for layer in &mut self.saved[..saved] {
            fit(&mut layer.rstd_attention, tokens);
            fit(&mut layer.qkv, tokens * qkv);
            fit(&mut layer.attended, tokens * attended);
            fit(&mut layer.lse, tokens * config.heads);
            fit(&mut layer.residual_mid, tokens * hidden);
            fit(&mut layer.rstd_mlp, tokens);
            fit(&mut layer.gate_up, tokens * 2 * inner);
        }
        for layer in &mut self.derived[..derived] {
            fit(&mut layer.normed_attention, tokens * hidden);
            fit(&mut layer.normed_mlp, tokens * hidden);
            fit(&mut layer.product, tokens * inner);
        }
        fit(&mut self.rstd_final, tokens);
        fit(&mut self.hidden, tokens * hidden);
        if keep {
            fit(&mut self.d_hidden, tokens * hidden);
            fit(&mut self.flow.d_residual, tokens * hidden);
            fit(&mut self.flow.d_normed, tokens * hidden);
            fit(&mut self.flow.d_qkv, tokens * qkv);
            fit(&mut self.flow.d_attended, tokens * attended);
            fit(&mut self.flow.d_product, tokens * inner);
        }
    }

    pub(super) fn saved_slot(&self, layer: usize) -> usize {
        if self.kept && self.recompute != Recompute::Layer { layer } else { 0 }
    }

    pub(super) fn derived_slot(&self, layer: usize) -> usize {
        if self.kept && self.recompute == Recompute::None { layer } else { 0 }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let saved: usize = self
            .saved
            .iter()
            .map(|layer| {
                layer.rstd_attention.capacity()
                    + layer.qkv.capacity()
                    + layer.attended.capacity()
                    + layer.lse.capacity()
                    + layer.residual_mid.capacity()
                    + layer.rstd_mlp.capacity()
                    + layer.gate_up.capacity()
            })
            .sum();
        let derived: usize = self
            .derived
            .iter()
            .map(|layer| layer.normed_attention.capacity() + layer.normed_mlp.capacity() + layer.product.capacity())
            .sum();
        let stream: usize = self.residuals.iter().map(Vec::capacity).sum();
        let flow = self.flow.d_residual.capacity()
            + self.flow.d_normed.capacity()
            + self.flow.d_qkv.capacity()
            + self.flow.d_attended.capacity()
            + self.flow.d_product.capacity();
        let ends = self.rstd_final.capacity() + self.hidden.capacity() + self.d_hidden.capacity();
        (saved + derived + stream + flow + ends) * size_of::<f32>() + self.lora.bytes()
    }
}
