use crate::{HEAD_DIM, HEADS, KV_HEADS, TOKENS, values};
use criterion::{Criterion, Throughput};
use zephyr_kernels::attention::{Cache, CacheShape, CacheType, Sequence, Shape, backward, cached, forward};

/// Throughput is in the multiply-adds that causality leaves: 1 Gelem/s is 2 GFLOP/s.
pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels/attention");
    let (heads, kv_heads, head_dim, scale) = (HEADS, KV_HEADS, HEAD_DIM, 0.125);
    let qkv = values(TOKENS * (HEADS + 2 * KV_HEADS) * HEAD_DIM);
    let d_out = values(TOKENS * HEADS * HEAD_DIM);
    let (mut out, mut lse, mut d_qkv) = (vec![0.0; d_out.len()], vec![0.0; TOKENS * HEADS], vec![0.0; qkv.len()]);
    let quarter = TOKENS as u32 / 4;
    let layouts: [(&str, &[u32], &[u32]); 3] = [
        ("1 segment", &[0, TOKENS as u32], &[]),
        ("4 segments", &[0, quarter, 2 * quarter, 3 * quarter, TOKENS as u32], &[]),
        (
            "2 pairs with shared prompts",
            &[0, quarter, 2 * quarter, 3 * quarter, TOKENS as u32],
            &[0, quarter - 50, 0, 50],
        ),
    ];
    for (name, segments, prefixes) in layouts {
        let shape = Shape { heads, kv_heads, head_dim, window: None, scale, segments, prefixes };
        let seen = |(index, range): (usize, &[u32])| {
            let (len, prefix) =
                (u64::from(range[1] - range[0]), prefixes.get(index).map_or(0, |&rows| u64::from(rows)));
            len * (len + 1) / 2 + len * prefix
        };
        let pairs: u64 = segments.windows(2).enumerate().map(seen).sum();
        let products = pairs * (HEADS * HEAD_DIM) as u64;
        group.throughput(Throughput::Elements(2 * products));
        group.bench_function(format!("forward, {name}"), |bencher| {
            bencher.iter(|| forward(&qkv, &shape, &mut out, &mut lse));
        });
        group.throughput(Throughput::Elements(5 * products));
        group.bench_function(format!("backward, {name}"), |bencher| {
            bencher.iter(|| backward(&d_out, &qkv, &out, &lse, &shape, &mut d_qkv));
        });
    }
    let len = 2048;
    let shape = CacheShape { heads, kv_heads, head_dim, window: None, scale };
    let columns = HEADS * HEAD_DIM;
    group.throughput(Throughput::Elements((2 * len * columns) as u64));
    for kind in [CacheType::F32, CacheType::F16, CacheType::Q8] {
        let mut cache = Cache::new(kind, KV_HEADS, HEAD_DIM);
        for row in values(len * KV_HEADS * HEAD_DIM).chunks(KV_HEADS * HEAD_DIM) {
            cache.push(row);
        }
        group.bench_function(format!("cached, 1 query at 2048, {kind:?}"), |bencher| {
            bencher.iter(|| {
                let (q, out) = (&qkv[..columns], &mut out[..columns]);
                cached(&mut [Sequence { q, keys: &cache, values: &cache, out }], columns, &shape);
            });
        });
    }
}
