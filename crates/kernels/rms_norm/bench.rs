use crate::{HIDDEN, TOKENS, values};
use criterion::Criterion;
use zephyr_kernels::rms_norm;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/rms_norm");
    let (x, weight, d_out) = (values(TOKENS * HIDDEN), values(HIDDEN), values(TOKENS * HIDDEN));
    let (mut out, mut rstd) = (vec![0.0; x.len()], vec![0.0; TOKENS]);
    group.bench_function("forward", |bencher| {
        bencher.iter(|| rms_norm::forward(&x, &weight, 1e-5, &mut out, &mut rstd));
    });
    let (mut residual, delta) = (x.clone(), vec![0.0; x.len()]);
    group.bench_function("forward_add", |bencher| {
        bencher.iter(|| rms_norm::forward_add(&mut residual, &delta, &weight, 1e-5, &mut out, &mut rstd));
    });
    let (mut d_x, mut d_weight) = (vec![0.0; x.len()], vec![0.0; HIDDEN]);
    group.bench_function("backward", |bencher| {
        bencher.iter(|| rms_norm::backward(&d_out, &x, &weight, &rstd, &mut d_x, Some(&mut d_weight)));
    });
}
