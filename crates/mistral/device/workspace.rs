//! The workspace of a step in device memory: sizes are known before anything is allocated, and nothing is allocated in a step.

use zephyr_kernels::attention::cuda::{CachePlan, ForwardTile, HOPPER_HEAD_DIMS, Plan};
use zephyr_kernels::cuda::{Arena, Element, Pointer};
use zephyr_kernels::noise::Noise;
use zephyr_kernels::rms_norm::cuda::backward_scratch;

use super::Decoder;
use crate::config::Config;
use crate::error::Result;
use crate::lora::{AdapterLayout, LowRank};
use crate::train::{Batch, Recompute, attention_shape};

/// Tokens that a workspace grows by.
const GROWTH: usize = 256;
/// Bytes of what the head says about a row.
pub(super) const STATS_BYTES: usize = 5 * size_of::<f32>() + 1;

/// What a workspace holds at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// T, tokens of a packed batch
    pub tokens: usize,
    /// N, rows that predict something
    pub rows: usize,
    /// Words of attention's plan
    pub words: usize,
    /// Rows whose logits exist at one time
    pub chunk: usize,
    /// Whether backward passes follow
    pub keep: bool,
    pub recompute: Recompute,
}

impl Sizes {
    /// For any batch of `tokens` tokens and `rows` predictions in documents of eight tokens or more.
    pub fn of(tokens: usize, rows: usize, chunk: usize, keep: bool, recompute: Recompute) -> Self {
        Self { tokens, rows, words: 4 * tokens + 4096, chunk, keep, recompute }
    }

    /// Whether a workspace of these sizes can be used for the other ones.
    fn hold(&self, other: &Self) -> bool {
        self.tokens >= other.tokens
            && self.rows >= other.rows
            && self.words >= other.words
            && self.chunk >= other.chunk
            && (self.keep || !other.keep)
            && self.recompute == other.recompute
    }

    /// The sizes of a larger workspace, if one of these is wanted where there is one of `held`, or none, and it does not do.
    pub fn beyond(&self, held: Option<&Self>) -> Option<Self> {
        let sizes = match held {
            Some(held) if held.hold(self) => return None,
            Some(held) => held.joined(self),
            None => *self,
        };
        let round = |size: usize| size.next_multiple_of(GROWTH);
        Some(Self { tokens: round(sizes.tokens), rows: round(sizes.rows), words: round(sizes.words), ..sizes })
    }

    /// Sizes that hold both.
    fn joined(&self, other: &Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            rows: self.rows.max(other.rows),
            words: self.words.max(other.words),
            chunk: self.chunk.max(other.chunk),
            keep: self.keep || other.keep,
            recompute: other.recompute,
        }
    }
}

/// As [`train`](crate::train)'s: what one layer's backward needs and cannot get cheaply.
#[derive(Clone, Debug)]
pub(super) struct Saved<T> {
    /// `[T]`
    pub rstd_attention: Pointer<f32>,
    /// `[T, (H + 2·KV)·D]`, after the rotation
    pub qkv: Pointer<T>,
    /// `[T, H·D]`
    pub attended: Pointer<T>,
    /// `[H, T]`
    pub lse: Pointer<f32>,
    /// `[T, h]`
    pub residual_mid: Pointer<T>,
    /// `[T]`
    pub rstd_mlp: Pointer<f32>,
    /// `[T, 2·I]`; the backward overwrites it with its gradient.
    pub gate_up: Pointer<T>,
}

/// What follows from [`Saved`] and the residual stream by one elementwise pass.
#[derive(Clone, Debug)]
pub(super) struct Derived<T> {
    /// `[T, h]`
    pub normed_attention: Pointer<T>,
    /// `[T, h]`
    pub normed_mlp: Pointer<T>,
    /// `[T, I]`
    pub product: Pointer<T>,
}

/// Buffers of the backward pass, shared by all layers; empty where none follows.
#[derive(Clone, Debug)]
pub(super) struct Flow<T> {
    pub d_residual: Pointer<T>,
    pub d_normed: Pointer<T>,
    pub d_qkv: Pointer<T>,
    pub d_attended: Pointer<T>,
    pub d_product: Pointer<T>,
    /// `[H, T]`
    pub row_sums: Pointer<f32>,
    /// Shares of a norm's gradient
    pub shares: Pointer<f32>,
}

/// Buffers of the layers.
#[derive(Clone, Debug)]
pub(super) struct Stream<T> {
    /// Input of each layer, then of the final norm; two that swap where no backward follows
    pub residuals: Vec<Pointer<T>>,
    pub saved: Vec<Saved<T>>,
    pub derived: Vec<Derived<T>>,
    pub rstd_final: Pointer<f32>,
    /// `[T, h]`, what the head reads
    pub hidden: Pointer<T>,
    /// `[T, h]`, the gradient of the last
    pub d_hidden: Pointer<T>,
    pub flow: Flow<T>,
    /// `[T, r]` each, r the largest rank
    pub low: Pointer<T>,
    pub d_low: Pointer<T>,
    /// `[T, in]`, the widest input under dropout: that input, and backwards its gradient
    pub dropped: Pointer<T>,
}

/// Buffers of the batch and of the head.
#[derive(Clone, Debug)]
pub(super) struct Ends<T> {
    ids: Pointer<u32>,
    positions: Pointer<u32>,
    rows: Pointer<u32>,
    targets: Pointer<u32>,
    words: Pointer<u32>,
    /// `[N, h]` each
    pub head_rows: Pointer<T>,
    pub d_head_rows: Pointer<T>,
    /// `[T]`, how far the noise on a token's embedding may reach
    reaches: Pointer<f32>,
    /// For the N rows of the batch `[5, N]` of f32, then `[N]` of u8, so that they are read at once
    pub stats: Pointer<u8>,
    /// `[N]`
    pub coefficient: Pointer<f32>,
    /// `[chunk, V]`
    pub logits: Pointer<f32>,
    /// `[chunk, V]`; in f32 the logits' own place
    pub d_logits: Pointer<T>,
}

/// Every buffer of forward, head and backward.
#[derive(Clone, Debug)]
pub struct Workspace<T> {
    pub sizes: Sizes,
    pub(super) stream: Stream<T>,
    pub(super) ends: Ends<T>,
}

/// The keys that the tokens of a batch see.
#[derive(Debug)]
pub(super) enum Attention {
    /// Those of the batch.
    Packed(Plan),
    /// Those in pages; what attention leaves of each stretch of them goes to `parts` and `lse`.
    Cached { plan: CachePlan, parts: Pointer<f32>, lse: Pointer<f32> },
}

impl Attention {
    fn words(&self) -> &[u32] {
        match self {
            Self::Packed(plan) => &plan.words,
            Self::Cached { plan, .. } => &plan.words,
        }
    }
}

/// A batch in device memory.
#[derive(Debug)]
pub struct Loaded {
    pub tokens: usize,
    /// Rows that predict something
    pub predictions: usize,
    pub(super) ids: Pointer<u32>,
    pub(super) positions: Pointer<u32>,
    pub(super) rows: Pointer<u32>,
    pub(super) targets: Pointer<u32>,
    pub(super) words: Pointer<u32>,
    pub(super) attention: Attention,
    pub(super) dropout: Option<u64>,
    pub(super) noise: Option<(Noise, Pointer<f32>)>,
}

/// What a training pass draws at random, besides [`crate::train::Activations`]' twins of the same names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drawn {
    /// The key of an adapter's dropout masks in this micro-batch.
    pub dropout: Option<u64>,
    /// On the embeddings.
    pub noise: Option<Noise>,
}

/// A batch that was checked, with attention's work on it.
#[derive(Debug)]
pub struct Planned<'a> {
    pub(super) batch: Batch<'a>,
    pub(super) attention: Attention,
}

impl Planned<'_> {
    /// What it wants of a workspace; `rows` of it predict something.
    pub fn sizes(&self, rows: usize, chunk: usize, keep: bool, recompute: Recompute) -> Sizes {
        Sizes { tokens: self.batch.tokens(), rows, words: self.attention.words().len(), chunk, keep, recompute }
    }
}

impl<T: Element> Stream<T> {
    fn lay(arena: &mut Arena, config: &Config, adapter: Option<&AdapterLayout>, sizes: &Sizes) -> Self {
        let Sizes { tokens, keep, recompute, .. } = *sizes;
        let Config { hidden_size: hidden, intermediate_size: inner, heads, layers, .. } = *config;
        let attended = heads * config.head_dim;
        let qkv = attended + 2 * config.kv_heads * config.head_dim;
        let rank = adapter.map_or(0, |layout| layout.pairs.iter().map(|pair| pair.rank).max().unwrap_or(0));
        let inputs = |pair: &LowRank| if pair.dropout > 0.0 { pair.a.len() / pair.rank } else { 0 };
        let dropped = adapter.map_or(0, |layout| layout.pairs.iter().map(inputs).max().unwrap_or(0));
        let back = |len: usize| if keep { len } else { 0 };
        let every = |wanted: bool| if keep && wanted { layers } else { 1 };
        let residuals = if keep { layers + 1 } else { 2 };
        Self {
            residuals: (0..residuals).map(|_| arena.part("residual", tokens * hidden)).collect(),
            saved: (0..every(recompute != Recompute::Layer))
                .map(|_| Saved {
                    rstd_attention: arena.part("rstd_attention", tokens),
                    qkv: arena.part("qkv", tokens * qkv),
                    attended: arena.part("attended", tokens * attended),
                    lse: arena.part("lse", tokens * heads),
                    residual_mid: arena.part("residual_mid", tokens * hidden),
                    rstd_mlp: arena.part("rstd_mlp", tokens),
                    gate_up: arena.part("gate_up", tokens * 2 * inner),
                })
                .collect(),
            derived: (0..every(recompute == Recompute::None))
                .map(|_| Derived {
                    normed_attention: arena.part("normed_attention", tokens * hidden),
                    normed_mlp: arena.part("normed_mlp", tokens * hidden),
                    product: arena.part("product", tokens * inner),
                })
                .collect(),
            rstd_final: arena.part("rstd_final", tokens),
            hidden: arena.part("hidden", tokens * hidden),
            d_hidden: arena.part("d_hidden", back(tokens * hidden)),
            flow: Flow {
                d_residual: arena.part("d_residual", back(tokens * hidden)),
                d_normed: arena.part("d_normed", back(tokens * hidden)),
                d_qkv: arena.part("d_qkv", back(tokens * qkv)),
                d_attended: arena.part("d_attended", back(tokens * attended)),
                d_product: arena.part("d_product", back(tokens * inner)),
                row_sums: arena.part("row_sums", back(tokens * heads)),
                shares: arena.part("shares", back(backward_scratch(tokens, hidden))),
            },
            low: arena.part("low", tokens * rank),
            d_low: arena.part("d_low", back(tokens * rank)),
            dropped: arena.part("dropped", back(tokens * dropped)),
        }
    }
}

impl<T: Element> Ends<T> {
    fn lay(arena: &mut Arena, config: &Config, sizes: &Sizes) -> Self {
        let Sizes { tokens, rows, words, chunk, keep, .. } = *sizes;
        let (hidden, logits) = (config.hidden_size, chunk.min(rows) * config.vocab_size);
        let back = |len: usize| if keep { len } else { 0 };
        let mut ends = Self {
            ids: arena.part("ids", tokens),
            positions: arena.part("positions", tokens),
            rows: arena.part("rows", rows),
            targets: arena.part("targets", rows),
            words: arena.part("plan", words),
            head_rows: arena.part("head_rows", rows * hidden),
            d_head_rows: arena.part("d_head_rows", back(rows * hidden)),
            reaches: arena.part("reaches", back(tokens)),
            stats: arena.part("stats", STATS_BYTES * rows),
            coefficient: arena.part("coefficient", back(rows)),
            logits: arena.part("logits", logits),
            d_logits: Pointer::NULL,
        };
        ends.d_logits = match T::LETTER {
            'f' => Pointer::new(ends.logits.address),
            _ => arena.part("d_logits", back(logits)),
        };
        ends
    }
}

/// Bytes of a workspace: of the layers, and of the batch and the head.
pub fn plan_workspace<T: Element>(config: &Config, adapter: Option<&AdapterLayout>, sizes: &Sizes) -> (usize, usize) {
    let stream = Arena::measure(|arena| Stream::<T>::lay(arena, config, adapter, sizes));
    (stream, Arena::measure(|arena| Ends::<T>::lay(arena, config, sizes)))
}

impl<T: Element> Workspace<T> {
    /// Lays the buffers one behind the other.
    pub fn lay(arena: &mut Arena, config: &Config, adapter: Option<&AdapterLayout>, sizes: &Sizes) -> Self {
        let stream = Stream::lay(arena, config, adapter, sizes);
        Self { sizes: *sizes, stream, ends: Ends::lay(arena, config, sizes) }
    }
}

impl<T: Element> Decoder<T> {
    /// Checks a batch and plans attention over it.
    ///
    /// # Errors
    /// As [`Batch::check`].
    pub fn planned<'a>(&self, batch: Batch<'a>) -> Result<Planned<'a>> {
        batch.check(&self.config, self.positions)?;
        let (bf16, head_dim) = (T::LETTER == 'b', self.config.head_dim);
        let shape = attention_shape(&self.config, &batch);
        let plan = if bf16 && self.device.takes_hopper_kernels() && HOPPER_HEAD_DIMS.contains(&head_dim) {
            Plan::for_hopper(&shape)
        } else {
            let large = bf16 && head_dim >= 64;
            Plan::new(&shape, if large { ForwardTile::Rows128 } else { ForwardTile::Rows64 })
        };
        Ok(Planned { batch, attention: Attention::Packed(plan) })
    }

    /// Copies a batch to the device, with the rows that predict something and their targets.
    ///
    /// # Errors
    /// The device's.
    pub fn load(
        &self,
        workspace: &Workspace<T>,
        planned: Planned,
        rows: &[u32],
        targets: &[u32],
        drawn: Drawn,
    ) -> Result<Loaded> {
        let Planned { batch, attention } = planned;
        let Workspace { sizes, ends, .. } = workspace;
        let fits = sizes.tokens >= batch.tokens() && sizes.rows >= rows.len() && sizes.words >= attention.words().len();
        assert!(fits && rows.len() == targets.len(), "a batch that the workspace holds");
        self.device.upload(batch.ids, ends.ids)?;
        self.device.upload(batch.positions, ends.positions)?;
        self.device.upload(rows, ends.rows)?;
        self.device.upload(targets, ends.targets)?;
        self.device.upload(attention.words(), ends.words)?;
        if let Some(noise) = drawn.noise {
            self.device.upload(&noise.reaches(batch.segments, self.config.hidden_size), ends.reaches)?;
        }
        Ok(Loaded {
            tokens: batch.tokens(),
            predictions: rows.len(),
            ids: ends.ids,
            positions: ends.positions,
            rows: ends.rows,
            targets: ends.targets,
            words: ends.words,
            attention,
            dropout: drawn.dropout,
            noise: drawn.noise.map(|noise| (noise, ends.reaches)),
        })
    }
}
