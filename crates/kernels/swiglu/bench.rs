use crate::{INTERMEDIATE, TOKENS, values};
use criterion::{BatchSize, Criterion};
use zephyr_kernels::swiglu;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/swiglu");
    let (gate_up, d_out) = (values(TOKENS * 2 * INTERMEDIATE), values(TOKENS * INTERMEDIATE));
    let mut out = vec![0.0; d_out.len()];
    group.bench_function("forward", |bencher| bencher.iter(|| swiglu::forward(&gate_up, INTERMEDIATE, &mut out)));
    // In place: run after run on its own result would soon multiply denormal numbers.
    group.bench_function("backward", |bencher| {
        bencher.iter_batched_ref(
            || gate_up.clone(),
            |gate_up| swiglu::backward(&d_out, INTERMEDIATE, gate_up),
            BatchSize::LargeInput,
        );
    });
}
