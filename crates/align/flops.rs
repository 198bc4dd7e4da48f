//! How many floating-point operations a training step needs: the measure of its speed that does not depend on how it is done.
//!
//! Model FLOPs as PaLM counts them (Chowdhery et al. 2022, appendix B): each product once forward and twice backward, without
//! what is computed again to save memory; norms and other passes over memory are not counted. A product of `[T, in]` and
//! `[out, in]` is 2·T·in·out. Attention counts the (query, key) pairs that are seen: 4·D a head forward, twice that backward.
//! The head counts its predicted rows. Under an adapter the frozen weights get no gradient, which is a third less.

use zephyr_mistral::{Config, Model, Projection};

use crate::batch::Packed;

/// Forward and backward of a micro-batch.
pub fn training(model: Model, batch: &Packed) -> f64 {
    let config = &model.weights.config;
    let tokens = batch.ids.len() as f64;
    let product = |[outputs, inputs]: [usize; 2]| 2.0 * outputs as f64 * inputs as f64;
    let layer: f64 = Projection::ALL.iter().map(|projection| product(projection.shape(config))).sum();
    let head = product([config.vocab_size, config.hidden_size]);
    let linear = tokens * config.layers as f64 * layer + batch.rows.len() as f64 * head;
    // Forward, gradient of the input, gradient of the weight.
    let passes = if model.adapter.is_some() { 2.0 } else { 3.0 };
    let adapter = model.adapter.map_or(0.0, |adapter| {
        let ends = |rank: usize, [outputs, inputs]: [usize; 2]| 2.0 * rank as f64 * (outputs + inputs) as f64;
        let pairs = adapter.layout.pairs.iter();
        3.0 * tokens * pairs.map(|pair| ends(pair.rank, pair.projection.shape(config))).sum::<f64>()
    });
    passes * linear + adapter + 3.0 * attention(config, batch)
}

/// Forward.
fn attention(config: &Config, batch: &Packed) -> f64 {
    let window = config.sliding_window.unwrap_or(usize::MAX);
    let pairs: f64 = (0..batch.sequences())
        .map(|segment| {
            let prefix = batch.prefixes[segment] as usize;
            let length = (batch.segments[segment + 1] - batch.segments[segment]) as usize;
            seen(prefix + length, window) - seen(prefix, window)
        })
        .sum();
    4.0 * (config.heads * config.head_dim * config.layers) as f64 * pairs
}

/// Pairs in the first `length` positions: the query at i sees min(i + 1, window) keys.
fn seen(length: usize, window: usize) -> f64 {
    let (length, window) = (length as f64, window as f64);
    let growing = length.min(window);
    growing * (growing + 1.0) / 2.0 + (length - growing) * window
}
