use crate::values;
use criterion::{Criterion, Throughput};
use zephyr_kernels::norm::sum_of_squares;

/// A quarter of the model's parameters: far more than any cache holds.
const PARAMETERS: usize = 34_000_000;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/norm");
    let gradient = values(PARAMETERS);
    group.throughput(Throughput::Bytes(4 * PARAMETERS as u64));
    group.bench_function("sum_of_squares", |bencher| bencher.iter(|| sum_of_squares(&gradient)));
}
