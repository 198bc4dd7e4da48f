use crate::{HIDDEN, TOKENS, VOCABULARY, values};
use criterion::{Criterion, Throughput};
use zephyr_kernels::head::{Head, Stats, backward, forward, forward_backward};

/// Throughput is in multiply-adds: 1 Gelem/s is 2 GFLOP/s. Two products of the logits' size follow the logits' own.
pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/head");
    let (weight, mut d_weight) = (values(VOCABULARY * HIDDEN), vec![0.0; VOCABULARY * HIDDEN]);
    let hidden: Vec<f32> = values(TOKENS * HIDDEN).iter().map(|x| x * 0.2).collect();
    let targets: Vec<u32> = (0..TOKENS as u32).map(|token| token * 7919 % VOCABULARY as u32).collect();
    let (coefficient, mut d_hidden) = (vec![1.0 / TOKENS as f32; TOKENS], vec![0.0; hidden.len()]);
    let head = Head { weight: weight[..].into(), vocabulary: VOCABULARY, width: HIDDEN, chunk: 256 };
    let (mut stats, mut scratch) = (Stats::default(), Vec::new());
    let product = (TOKENS * VOCABULARY * HIDDEN) as u64;
    group.throughput(Throughput::Elements(product));
    group.bench_function("forward", |bencher| {
        bencher.iter(|| forward(&head, &hidden, &targets, &mut stats, &mut scratch));
    });
    let lse = stats.lse.clone();
    group.throughput(Throughput::Elements(3 * product));
    group.bench_function("backward", |bencher| {
        bencher.iter(|| {
            let d_weight = Some(&mut d_weight[..]);
            backward(&head, &hidden, &targets, &lse, &coefficient, &mut d_hidden, d_weight, &mut scratch);
        });
    });
    group.bench_function("forward_backward", |bencher| {
        bencher.iter(|| {
            let d = Some(&mut d_weight[..]);
            forward_backward(&head, &hidden, &targets, &coefficient, &mut d_hidden, d, &mut stats, &mut scratch);
        });
    });
}
