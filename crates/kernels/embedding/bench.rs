use crate::{HIDDEN, TOKENS, VOCABULARY, values};
use criterion::Criterion;
use zephyr_kernels::embedding;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/embedding");
    let mut table = values(VOCABULARY * HIDDEN);
    let ids: Vec<u32> = (0..TOKENS as u32).map(|token| token * 7919 % VOCABULARY as u32).collect();
    let mut out = vec![0.0; TOKENS * HIDDEN];
    group.bench_function("forward", |bencher| bencher.iter(|| embedding::forward(&table, HIDDEN, &ids, &mut out)));
    let d_out = values(TOKENS * HIDDEN);
    group.bench_function("backward", |bencher| {
        bencher.iter(|| embedding::backward(&d_out, HIDDEN, &ids, &mut table));
    });
}
