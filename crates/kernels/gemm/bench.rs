use crate::{HIDDEN, INTERMEDIATE, TOKENS, VOCABULARY, values};
use criterion::{Criterion, Throughput};
use zephyr_kernels::gemm::{Mat, MatMut, nn, nt, tn};

/// Throughput is in multiply-adds: 1 Gelem/s is 2 GFLOP/s.
pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/gemm");
    let mut run = |name: &str, (m, n, k): (usize, usize, usize)| {
        let (a, b, mut out) = (values(m * k), values(n * k), vec![0.0; m * n]);
        group.throughput(Throughput::Elements((m * n * k) as u64));
        group.bench_function(format!("{name} [{m}, {n}] over {k}"), |bencher| {
            bencher.iter(|| {
                let out = MatMut::new(&mut out, m, n);
                match name {
                    "nt" => nt(out, Mat::new(&a, m, k), Mat::new(&b, n, k), 1.0, 0.0),
                    "nn" => nn(out, Mat::new(&a, m, k), Mat::new(&b, k, n), 1.0, 0.0),
                    _ => tn(out, Mat::new(&a, k, m), Mat::new(&b, k, n), 1.0, 1.0),
                }
            });
        });
    };
    run("nt", (TOKENS, INTERMEDIATE, HIDDEN));
    run("nt", (TOKENS, 2 * INTERMEDIATE, HIDDEN));
    run("nt", (TOKENS, HIDDEN, INTERMEDIATE));
    run("nn", (TOKENS, HIDDEN, INTERMEDIATE));
    run("tn", (INTERMEDIATE, HIDDEN, TOKENS));
    // Decoding: one row, and a few.
    run("nt", (1, INTERMEDIATE, HIDDEN));
    run("nt", (1, VOCABULARY, HIDDEN));
    run("nt", (16, VOCABULARY, HIDDEN));
}
