//! `cargo bench -p zephyr-kernels`: every operation at the sizes of SmolLM2-135M with 512 tokens.

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

#[path = "adamw/bench.rs"]
mod adamw;
#[path = "attention/bench.rs"]
mod attention;
#[path = "embedding/bench.rs"]
mod embedding;
#[path = "gemm/bench.rs"]
mod gemm;
#[path = "head/bench.rs"]
mod head;
#[path = "norm/bench.rs"]
mod norm;
#[path = "quantised/bench.rs"]
mod quantised;
#[path = "rms_norm/bench.rs"]
mod rms_norm;
#[path = "rope/bench.rs"]
mod rope;
#[path = "swiglu/bench.rs"]
mod swiglu;

const TOKENS: usize = 512;
const HIDDEN: usize = 576;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const INTERMEDIATE: usize = 1536;
const VOCABULARY: usize = 49_152;

/// Values in (−1, 1) without a period that a kernel could profit from.
fn values(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1u32 << 23) as f32 - 1.0).collect()
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .without_plots()
}

criterion_group! {
    name = kernels;
    config = settings();
    targets = gemm::bench, embedding::bench, rms_norm::bench, rope::bench, attention::bench, swiglu::bench, head::bench,
        adamw::bench, norm::bench, quantised::bench
}
criterion_main!(kernels);
