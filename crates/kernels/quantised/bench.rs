use crate::{HIDDEN, INTERMEDIATE, TOKENS, values};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::convert::Infallible;
use zephyr_kernels::gemm::{Mat, MatMut};
use zephyr_kernels::quantised::{Kind, Quantised, nt};

/// Multiply-adds a second: of one token (memory sets the pace) and of a prompt.
pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/quantised");
    let (rows, columns) = (2 * INTERMEDIATE, HIDDEN.next_multiple_of(256));
    for kind in Kind::ALL {
        let weights = Quantised::pack(kind, rows, columns, |_, bytes| {
            // Small codes under small scales, whatever the type's layout.
            bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = if index % 2 == 1 { 0x11 } else { 0x33 });
            Ok::<(), Infallible>(())
        });
        let Ok(weights) = weights;
        for tokens in [1, 4, TOKENS] {
            let x = values(tokens * columns);
            let mut y = vec![0.0; tokens * rows];
            group.throughput(Throughput::Elements((tokens * rows * columns) as u64));
            group.bench_function(BenchmarkId::new(format!("{kind:?}"), tokens), |bencher| {
                bencher.iter(|| {
                    nt(MatMut::new(&mut y, tokens, rows), Mat::new(&x, tokens, columns), &[&weights], 0.0);
                });
            });
        }
    }
}
