//! The network on the CPU: one step over tokens of several sequences, each with its key/value cache.

use super::network::{Cache, Network, Step};
use crate::config::Config;
use crate::error::Result;
use crate::layout::Weights;
use crate::linear::{Group, LoraScratch};
use crate::model::Model;
use crate::storage::Storage;
use zephyr_kernels::attention::{self, CacheType};
use zephyr_kernels::{head, rms_norm, rope, swiglu};

/// Rows of the head computed at a time where log-probabilities are asked for.
const HEAD_CHUNK: usize = 128;

/// Keys and values of one sequence in memory.
pub struct HostCache {
    layers: Vec<LayerCache>,
    length: usize,
}

struct LayerCache {
    keys: attention::Cache,
    values: attention::Cache,
}

impl HostCache {
    fn new(config: &Config, kind: CacheType) -> Self {
        let empty = || attention::Cache::new(kind, config.kv_heads, config.head_dim);
        let layers = (0..config.layers).map(|_| LayerCache { keys: empty(), values: empty() });
        Self { layers: layers.collect(), length: 0 }
    }

    /// Forgets what lies behind the first `length` positions.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        for LayerCache { keys, values } in &mut self.layers {
            keys.truncate(length);
            values.truncate(length);
        }
    }

    pub fn length(&self) -> usize {
        self.length
    }
}

/// Activations, kept from step to step.
#[derive(Default)]
struct Workspace {
    residual: Vec<f32>,
    normed: Vec<f32>,
    rstd: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    delta: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    lora: LoraScratch,
    stats: head::Stats,
    logits: Vec<f32>,
}

pub(super) struct Decoder<'a> {
    model: Model<'a>,
    table: rope::Table,
    work: Workspace,
}

impl<'a> Decoder<'a> {
    pub fn new(model: Model<'a>) -> Self {
        let config = &model.weights.config;
        let table = rope::Table::new(config.head_dim, config.rope_theta, 0);
        Decoder { model, table, work: Workspace::default() }
    }

    fn head(&self, exact: bool) -> head::Head<'a> {
        let Weights { config, .. } = self.model.weights;
        let weight = self.model.weights.head();
        head::Head {
            weight: if exact { weight.exact() } else { weight },
            vocabulary: config.vocab_size,
            width: config.hidden_size,
            chunk: HEAD_CHUNK,
        }
    }

    /// Appends `pieces[i]` to the sequence of `caches[i]` and leaves the final normed states of all their tokens,
    /// `[tokens, hidden_size]`, piece after piece, in the workspace.
    fn forward(&mut self, caches: &mut [&mut HostCache], pieces: &[&[u32]], exact: bool) {
        let model = self.model;
        let weights = model.weights;
        let Weights { config, layout, .. } = weights;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let width = queries + 2 * keys;
        let ids: Vec<u32> = pieces.concat();
        let rows = ids.len();
        let positions: Vec<u32> = (caches.iter().zip(pieces))
            .flat_map(|(cache, piece)| (cache.length..cache.length + piece.len()).map(|position| position as u32))
            .collect();
        self.cover(positions.iter().max().map_or(0, |last| *last as usize + 1));
        let shape = attention::CacheShape {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            window: config.sliding_window,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
        };

        let linear = |layer, group| model.linear(layer, group).exactly(exact);
        let work = &mut self.work;
        for (buffer, columns) in [
            (&mut work.residual, hidden),
            (&mut work.normed, hidden),
            (&mut work.rstd, 1),
            (&mut work.qkv, width),
            (&mut work.attended, queries),
            (&mut work.delta, hidden),
            (&mut work.gate_up, 2 * inner),
            (&mut work.activated, inner),
        ] {
            buffer.resize(rows * columns, 0.0);
        }
        weights.embed(&ids, &mut work.residual);
        let eps = config.rms_norm_eps;
        let first = layout.layers.first().map_or(&layout.final_norm, |layer| &layer.input_norm);
        rms_norm::forward(&work.residual, weights.vector(first), eps, &mut work.normed, &mut work.rstd);
        for (index, layer) in layout.layers.iter().enumerate() {
            linear(index, Group::Qkv).forward(&mut work.qkv, &work.normed, 0.0, None, &mut work.lora);
            // Key heads follow the query heads and turn with them.
            let turned = config.heads + config.kv_heads;
            let direction = rope::Direction::Forward;
            rope::apply(&mut work.qkv, width, turned, config.head_dim, &positions, &self.table, direction);
            let cached = caches.iter_mut().map(|cache| &mut cache.layers[index]);
            attend(cached, pieces, &work.qkv, width, &shape, &mut work.attended);
            linear(index, Group::O).forward(&mut work.delta, &work.attended, 0.0, None, &mut work.lora);
            let norm = weights.vector(&layer.post_norm);
            rms_norm::forward_add(&mut work.residual, &work.delta, norm, eps, &mut work.normed, &mut work.rstd);
            linear(index, Group::GateUp).forward(&mut work.gate_up, &work.normed, 0.0, None, &mut work.lora);
            swiglu::forward(&work.gate_up, inner, &mut work.activated);
            linear(index, Group::Down).forward(&mut work.delta, &work.activated, 0.0, None, &mut work.lora);
            let next = layout.layers.get(index + 1).map_or(&layout.final_norm, |layer| &layer.input_norm);
            let norm = weights.vector(next);
            rms_norm::forward_add(&mut work.residual, &work.delta, norm, eps, &mut work.normed, &mut work.rstd);
        }
        for (cache, piece) in caches.iter_mut().zip(pieces) {
            cache.length += piece.len();
        }
    }

    /// Makes the rotation table long enough; by doubling, as its full length can be many megabytes.
    fn cover(&mut self, positions: usize) {
        let Config { head_dim, rope_theta, max_position_embeddings, .. } = self.model.weights.config;
        if positions > self.table.positions() {
            let length = positions.next_power_of_two().max(256).min(max_position_embeddings.max(positions));
            self.table = rope::Table::new(head_dim, rope_theta, length);
        }
    }
}

impl Network for Decoder<'_> {
    fn config(&self) -> &Config {
        &self.model.weights.config
    }

    /// Unless the caller says otherwise no finer than the weights.
    fn cache(&self, kind: Option<CacheType>, exact: bool) -> Result<Cache> {
        let by_weights = match self.model.weights.storage() {
            Storage::Gguf if !exact => CacheType::F16,
            _ => CacheType::F32,
        };
        Ok(Cache::Host(HostCache::new(self.config(), kind.unwrap_or(by_weights))))
    }

    fn step(&mut self, caches: &mut [Cache], step: &Step, out: &mut Vec<f32>) -> Result<()> {
        let mut own: Vec<&mut HostCache> = caches.iter_mut().map(of_host).collect();
        self.forward(&mut own, step.pieces, step.exact);
        let head = self.head(step.exact);
        let Workspace { normed, delta, stats, logits, .. } = &mut self.work;
        let width = head.width;
        let rows = if step.rows.len() * width == normed.len() {
            normed
        } else {
            delta.clear();
            step.rows.iter().for_each(|&row| delta.extend_from_slice(&normed[row as usize * width..][..width]));
            delta
        };
        match step.targets {
            Some(targets) => {
                head::forward(&head, rows, targets, stats, logits);
                out.extend_from_slice(&stats.logp);
            }
            None => {
                let before = out.len();
                out.resize(before + step.rows.len() * head.vocabulary, 0.0);
                head::logits(&head, rows, &mut out[before..]);
            }
        }
        Ok(())
    }

    fn takes_threads(&self) -> bool {
        true
    }
}

fn of_host(cache: &mut Cache) -> &mut HostCache {
    match cache {
        Cache::Host(cache) => cache,
        Cache::Device(_) => unreachable!("a cache of another network"),
    }
}

/// Puts the new keys and values into the caches, and lets every piece attend to its own.
fn attend<'c>(
    caches: impl Iterator<Item = &'c mut LayerCache>,
    pieces: &[&[u32]],
    qkv: &[f32],
    width: usize,
    shape: &attention::CacheShape,
    attended: &mut [f32],
) {
    let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let mut sequences = Vec::with_capacity(pieces.len());
    let (mut qkv, mut attended) = (qkv, attended);
    for (cache, piece) in caches.zip(pieces) {
        let (mine, rest) = qkv.split_at(piece.len() * width);
        let (out, others) = attended.split_at_mut(piece.len() * queries);
        (qkv, attended) = (rest, others);
        for row in mine.chunks_exact(width) {
            cache.keys.push(&row[queries..queries + keys]);
            cache.values.push(&row[queries + keys..]);
        }
        sequences.push(attention::Sequence { q: mine, keys: &cache.keys, values: &cache.values, out });
    }
    attention::cached(&mut sequences, width, shape);
}
