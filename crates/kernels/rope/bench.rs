use crate::{HEAD_DIM, HEADS, KV_HEADS, TOKENS, values};
use criterion::Criterion;
use zephyr_kernels::rope::{Direction, Table, apply};

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/rope");
    let stride = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
    let (mut qkv, table) = (values(TOKENS * stride), Table::new(HEAD_DIM, 100_000.0, TOKENS));
    let positions: Vec<u32> = (0..TOKENS as u32).collect();
    group.bench_function("apply", |bencher| {
        bencher.iter(|| {
            apply(&mut qkv, stride, HEADS + KV_HEADS, HEAD_DIM, &positions, &table, Direction::Forward);
        });
    });
}
