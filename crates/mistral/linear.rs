//! The four products of a decoder layer, with what an adapter adds to them.
//!
//! `y = x·Wᵀ` over a group of neighbouring projections, and for each adapted projection of the group
//! `y[:, its columns] += s·(drop(x)·Aᵀ)·Bᵀ` (Hu et al. 2021). Backwards, with `u = drop(x)·Aᵀ` computed again:
//! `dB += s·dyᵀ·u`, `du = s·dy·B`, `dA += duᵀ·drop(x)`, `dx = dy·W + drop'(du·A)`.

use std::ops::Range;

use zephyr_kernels::gemm::{self, Mat, MatMut};
use zephyr_kernels::matrix;

use crate::config::Config;
use crate::layout::LayerLayout;
use crate::lora::{AdapterLayout, LowRank};
use crate::model::Model;

/// A linear projection of a decoder layer, under its name in transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Projection {
    /// All, in the order of the arena.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// `q_proj`, …
    pub fn name(self) -> &'static str {
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"][self as usize]
    }

    /// `model.layers.3.self_attn.q_proj`
    pub fn path(self, layer: usize) -> String {
        let block = if (self as usize) < Self::Gate as usize { "self_attn" } else { "mlp" };
        format!("model.layers.{layer}.{block}.{}", self.name())
    }

    /// `[out, in]`
    pub fn shape(self, config: &Config) -> [usize; 2] {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        match self {
            Self::Q => [queries, hidden],
            Self::K | Self::V => [keys, hidden],
            Self::O => [hidden, queries],
            Self::Gate | Self::Up => [inner, hidden],
            Self::Down => [hidden, inner],
        }
    }
}

/// Projections that read the same input: neighbours in the arena, one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Qkv,
    O,
    GateUp,
    Down,
}

impl Group {
    /// All, in the order of the arena.
    pub const ALL: [Self; 4] = [Self::Qkv, Self::O, Self::GateUp, Self::Down];

    fn projections(self) -> &'static [Projection] {
        let range = match self {
            Self::Qkv => 0..3,
            Self::O => 3..4,
            Self::GateUp => 4..6,
            Self::Down => 6..7,
        };
        &Projection::ALL[range]
    }

    /// `[out, in]` of the group.
    pub fn shape(self, config: &Config) -> (usize, usize) {
        let outputs = self.projections().iter().map(|projection| projection.shape(config)[0]).sum();
        (outputs, self.projections()[0].shape(config)[1])
    }

    /// Its place in the weights' arena.
    pub fn range(self, layer: &LayerLayout) -> Range<usize> {
        match self {
            Self::Qkv => &layer.qkv,
            Self::O => &layer.o,
            Self::GateUp => &layer.gate_up,
            Self::Down => &layer.down,
        }
        .clone()
    }

    /// The adapted projections of the group, and their columns of the output.
    pub fn pairs<'a>(
        self,
        config: &Config,
        adapter: &'a AdapterLayout,
        layer: usize,
    ) -> impl Iterator<Item = (&'a LowRank, Range<usize>)> + use<'a> {
        let mut start = 0;
        let columns = self.projections().iter().map(|projection| {
            let columns = start..start + projection.shape(config)[0];
            start = columns.end;
            (*projection, columns)
        });
        let columns: Vec<(Projection, Range<usize>)> = columns.collect();
        columns.into_iter().filter_map(move |(projection, columns)| Some((adapter.find(layer, projection)?, columns)))
    }
}

/// Buffers of the adapters' products, reused from layer to layer.
#[derive(Debug, Default)]
pub(crate) struct LoraScratch {
    /// `[T, in]`, the input after dropout.
    dropped: Vec<f32>,
    /// `[T, in]`, a gradient before it goes back through dropout.
    d_dropped: Vec<f32>,
    /// `[T, r]`
    low: Vec<f32>,
    /// `[T, r]`
    d_low: Vec<f32>,
}

impl LoraScratch {
    pub fn bytes(&self) -> usize {
        let floats = self.dropped.capacity() + self.d_dropped.capacity() + self.low.capacity() + self.d_low.capacity();
        floats * size_of::<f32>()
    }
}

/// One product of one layer.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'a> {
    model: Model<'a>,
    layer: usize,
    group: Group,
    exact: bool,
}

impl<'a> Model<'a> {
    pub(crate) fn linear(self, layer: usize, group: Group) -> Linear<'a> {
        Linear { model: self, layer, group, exact: false }
    }
}

impl<'a> Linear<'a> {
    /// Whether forwards no input is rounded, even where the weights have faster products that do ([`matrix::Matrix::exact`]).
    pub fn exactly(self, exact: bool) -> Self {
        Self { exact, ..self }
    }

    /// `y[T, out] = beta·y + x[T, in]·Wᵀ` and what the adapter adds. `dropout`: the key of this micro-batch, when training.
    pub fn forward(&self, y: &mut [f32], x: &[f32], beta: f32, dropout: Option<u64>, scratch: &mut LoraScratch) {
        let (outputs, inputs) = self.shape();
        let rows = x.len() / inputs;
        let range = self.range();
        let parts = self.model.weights.matrices(&range);
        let parts: Vec<_> = parts.map(|part| if self.exact { part.exact() } else { part }).collect();
        matrix::stacked_nt(MatMut::new(y, rows, outputs), Mat::new(x, rows, inputs), &parts, beta);
        for (pair, a, b, columns) in self.pairs() {
            let rank = pair.rank;
            let LoraScratch { dropped, low, .. } = &mut *scratch;
            let x = self.dropped(x, pair, dropout, dropped);
            low.resize(rows * rank, 0.0);
            gemm::nt(MatMut::new(low, rows, rank), Mat::new(x, rows, inputs), a, 1.0, 0.0);
            let part = MatMut::strided(&mut y[columns.start..], rows, columns.len(), outputs);
            gemm::nt(part, Mat::new(low, rows, rank), b, pair.scale, 1.0);
        }
    }

    /// Overwrites `d_x[T, in]`; adds to the gradients (flat) of the adapter if there is one, else of the weights.
    pub fn backward(
        &self,
        d_y: &[f32],
        x: &[f32],
        d_x: &mut [f32],
        gradients: &mut [f32],
        dropout: Option<u64>,
        scratch: &mut LoraScratch,
    ) {
        let (outputs, inputs) = self.shape();
        let rows = x.len() / inputs;
        let whole = Mat::new(d_y, rows, outputs);
        if self.model.adapter.is_none() {
            let d_weight = MatMut::new(&mut gradients[self.range()], outputs, inputs);
            gemm::tn(d_weight, whole, Mat::new(x, rows, inputs), 1.0, 1.0);
        }
        let mut start = 0;
        for weight in self.model.weights.matrices(&self.range()) {
            let part = weight.len() / inputs;
            let columns = Mat::strided(&d_y[start..], rows, part, outputs);
            let beta = if start == 0 { 0.0 } else { 1.0 };
            matrix::nn(MatMut::new(d_x, rows, inputs), columns, weight, beta);
            start += part;
        }
        for (pair, a, b, columns) in self.pairs() {
            let rank = pair.rank;
            let d_y = Mat::strided(&d_y[columns.start..], rows, columns.len(), outputs);
            let LoraScratch { dropped, d_dropped, low, d_low } = &mut *scratch;
            let x = Mat::new(self.dropped(x, pair, dropout, dropped), rows, inputs);
            low.resize(rows * rank, 0.0);
            d_low.resize(rows * rank, 0.0);
            gemm::nt(MatMut::new(low, rows, rank), x, a, 1.0, 0.0);
            let d_b = MatMut::new(&mut gradients[pair.b.clone()], columns.len(), rank);
            gemm::tn(d_b, d_y, Mat::new(low, rows, rank), pair.scale, 1.0);
            gemm::nn(MatMut::new(d_low, rows, rank), d_y, b, pair.scale, 0.0);
            let d_low = Mat::new(d_low, rows, rank);
            gemm::tn(MatMut::new(&mut gradients[pair.a.clone()], rank, inputs), d_low, x, 1.0, 1.0);
            match pair.mask(dropout) {
                None => gemm::nn(MatMut::new(d_x, rows, inputs), d_low, a, 1.0, 1.0),
                Some(mask) => {
                    d_dropped.resize(rows * inputs, 0.0);
                    gemm::nn(MatMut::new(d_dropped, rows, inputs), d_low, a, 1.0, 0.0);
                    mask.add(d_dropped, d_x);
                }
            }
        }
    }

    fn shape(&self) -> (usize, usize) {
        self.group.shape(&self.model.weights.config)
    }

    fn range(&self) -> Range<usize> {
        self.group.range(&self.model.weights.layout.layers[self.layer])
    }

    /// The adapted projections of the group, their A `[r, in]` and B `[out, r]`, and their columns of the output.
    fn pairs(&self) -> impl Iterator<Item = (&'a LowRank, Mat<'a>, Mat<'a>, Range<usize>)> + use<'a> {
        let Self { model: Model { weights, adapter }, layer, group, .. } = *self;
        let (_, inputs) = self.shape();
        adapter.into_iter().flat_map(move |adapter| {
            group.pairs(&weights.config, &adapter.layout, layer).map(move |(pair, columns)| {
                let a = Mat::new(&adapter.data[pair.a.clone()], pair.rank, inputs);
                (pair, a, Mat::new(&adapter.data[pair.b.clone()], columns.len(), pair.rank), columns)
            })
        })
    }

    /// The input of an adapted projection: `x` itself, or `x` after dropout in `buffer`.
    fn dropped<'b>(&self, x: &'b [f32], pair: &LowRank, dropout: Option<u64>, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let Some(mask) = pair.mask(dropout) else { return x };
        buffer.resize(x.len(), 0.0);
        mask.apply(x, buffer);
        buffer
    }
}

#[cfg(test)]
mod test;
