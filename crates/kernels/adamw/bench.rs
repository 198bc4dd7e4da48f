use crate::values;
use criterion::{Criterion, Throughput};
use zephyr_kernels::adamw::{Config, step};

/// A quarter of the model's parameters: far more than any cache holds.
const PARAMETERS: usize = 34_000_000;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/adamw");
    let (mut params, grads) = (values(PARAMETERS), values(PARAMETERS));
    let (mut m, mut v) = (vec![0.0; PARAMETERS], vec![0.0; PARAMETERS]);
    let config = Config { lr: 1e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 10, grad_scale: 0.5 };
    // Four arrays read, three written.
    group.throughput(Throughput::Bytes(28 * PARAMETERS as u64));
    group.bench_function("step", |bencher| bencher.iter(|| step(&mut params, &grads, &mut m, &mut v, &config)));
}
