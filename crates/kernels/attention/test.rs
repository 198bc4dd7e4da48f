mod prefix;

use super::{Cache, CacheShape, CacheType, Sequence, Shape, backward, cached, forward};
use crate::oracle::{assert_close, assert_deterministic, differences, elements, random, tensor, weighted};
use candle_core::{D, Tensor, Var};
use proptest::prelude::*;

fn shape(heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>, segments: &[u32]) -> Shape<'_> {
    Shape { heads, kv_heads, head_dim, window, scale: 1.0 / (head_dim as f32).sqrt(), segments, prefixes: &[] }
}

fn tokens(shape: &Shape) -> usize {
    shape.segments[shape.segments.len() - 1] as usize
}

fn run_forward(qkv: &[f32], shape: &Shape) -> (Vec<f32>, Vec<f32>) {
    let count = tokens(shape);
    let mut out = vec![f32::NAN; count * shape.heads * shape.head_dim];
    let mut lse = vec![f32::NAN; count * shape.heads];
    forward(qkv, shape, &mut out, &mut lse);
    (out, lse)
}

fn run_backward(d_out: &[f32], qkv: &[f32], shape: &Shape) -> Vec<f32> {
    let (out, lse) = run_forward(qkv, shape);
    let mut d_qkv = vec![f32::NAN; qkv.len()];
    backward(d_out, qkv, &out, &lse, shape, &mut d_qkv);
    d_qkv
}

fn data(shape: &Shape, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let qkv = random(tokens(shape) * shape.row(), seed).iter().map(|x| x * 1.5).collect();
    (qkv, random(tokens(shape) * shape.heads * shape.head_dim, seed + 1))
}

/// Plain masked softmax attention, segment by segment. Returns out `[T, H·D]` and log-sum-exp `[H, T]`.
fn candle_attention(qkv: &Tensor, shape: &Shape) -> (Tensor, Tensor) {
    let (heads, kv_heads, dim) = (shape.heads, shape.kv_heads, shape.head_dim);
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for segment in shape.segments.windows(2).filter(|segment| segment[0] < segment[1]) {
        let (start, len) = (segment[0] as usize, (segment[1] - segment[0]) as usize);
        let rows = qkv.narrow(0, start, len).unwrap();
        let part = |first: usize, count: usize| {
            let part = rows.narrow(1, first * dim, count * dim).unwrap().reshape((len, count, dim)).unwrap();
            part.transpose(0, 1).unwrap().contiguous().unwrap()
        };
        let repeat = |x: Tensor| {
            let group = heads / kv_heads;
            let wide = x.unsqueeze(1).unwrap().broadcast_as((kv_heads, group, len, dim)).unwrap();
            wide.contiguous().unwrap().reshape((heads, len, dim)).unwrap()
        };
        let (q, k, v) = (part(0, heads), repeat(part(heads, kv_heads)), repeat(part(heads + kv_heads, kv_heads)));
        let window = shape.window.unwrap_or(usize::MAX);
        let mask: Vec<f32> = (0..len * len)
            .map(
                |cell| {
                    if cell % len <= cell / len && cell / len - cell % len < window { 0.0 } else { f32::NEG_INFINITY }
                },
            )
            .collect();
        let scores = (q.matmul(&k.t().unwrap()).unwrap() * f64::from(shape.scale)).unwrap();
        let scores = scores.broadcast_add(&tensor(&mask, &[len, len])).unwrap();
        lses.push(scores.log_sum_exp(2).unwrap());
        let out = candle_nn::ops::softmax(&scores, D::Minus1).unwrap().matmul(&v).unwrap();
        outs.push(out.transpose(0, 1).unwrap().reshape((len, heads * dim)).unwrap());
    }
    (Tensor::cat(&outs, 0).unwrap(), Tensor::cat(&lses, 1).unwrap())
}

fn compare_with_candle(shape: &Shape) {
    let (qkv, d_out) = data(shape, 1);
    let count = tokens(shape);
    let var = Var::from_tensor(&tensor(&qkv, &[count, shape.row()])).unwrap();
    let (their_out, their_lse) = candle_attention(&var, shape);
    let loss = (&their_out * tensor(&d_out, &[count, shape.heads * shape.head_dim])).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let what = format!("{shape:?}");
    let (out, lse) = run_forward(&qkv, shape);
    assert_close(&format!("out of {what}"), &out, &elements(&their_out), 1e-5);
    assert_close(&format!("lse of {what}"), &lse, &elements(&their_lse), 1e-5);
    let d_qkv = run_backward(&d_out, &qkv, shape);
    assert_close(&format!("d_qkv of {what}"), &d_qkv, &elements(gradients.get(&var).unwrap()), 3e-5);
}

#[test]
fn agrees_with_candle_for_every_length_and_window() {
    for count in [1, 2, 17, 33, 64, 65, 130] {
        for window in [None, Some(1), Some(5), Some(64), Some(70), Some(1000)] {
            compare_with_candle(&shape(2, 1, 16, window, &[0, count]));
        }
    }
}

#[test]
fn agrees_with_candle_for_every_head_layout() {
    for (heads, kv_heads) in [(1, 1), (3, 3), (3, 1), (6, 2), (4, 1), (8, 1), (16, 2)] {
        for dim in [8, 16, 24, 32, 64, 128] {
            compare_with_candle(&shape(heads, kv_heads, dim, Some(20), &[0, 37]));
        }
    }
}

#[test]
fn agrees_with_candle_for_several_segments() {
    for window in [None, Some(7)] {
        compare_with_candle(&shape(3, 1, 32, window, &[0, 0, 1, 1, 18, 18, 100, 101, 101]));
        // Enough segments that heads of a group share a task in the backward pass.
        let many: Vec<u32> = (0..20).map(|n| n * n / 2).collect();
        compare_with_candle(&shape(4, 2, 16, window, &many));
    }
}

#[test]
fn agrees_with_finite_differences() {
    for window in [None, Some(2)] {
        let shape = shape(2, 1, 8, window, &[0, 3, 3, 7]);
        let (qkv, d_out) = data(&shape, 5);
        let expected = differences(&qkv, |qkv| weighted(&run_forward(qkv, &shape).0, &d_out));
        assert_close("d_qkv", &run_backward(&d_out, &qkv, &shape), &expected, 5e-4);
    }
}

#[test]
fn no_tokens_is_no_work() {
    for segments in [&[0][..], &[0, 0, 0]] {
        let shape = shape(2, 1, 8, None, segments);
        forward(&[], &shape, &mut [], &mut []);
        backward(&[], &[], &[], &[], &shape, &mut []);
    }
}

#[test]
fn large_scores_stay_finite() {
    let shape = shape(1, 1, 16, None, &[0, 70]);
    let (mut qkv, d_out) = data(&shape, 1);
    qkv.iter_mut().for_each(|x| *x *= 100.0);
    assert!(run_forward(&qkv, &shape).0.iter().all(|x| x.is_finite()));
    assert!(run_backward(&d_out, &qkv, &shape).iter().all(|x| x.is_finite()));
}

#[test]
fn same_bits_every_time() {
    let many: Vec<u32> = (0..12).map(|n| n * n).collect();
    for segments in [&[0, 300][..], &many] {
        let shape = shape(6, 2, 32, None, segments);
        let (qkv, d_out) = data(&shape, 1);
        assert_deterministic("attention", || {
            [run_forward(&qkv, &shape).0, run_backward(&d_out, &qkv, &shape)].concat()
        });
    }
}

#[test]
fn the_cache_continues_the_sequence() {
    for (len, queries) in [(1, 1), (5, 1), (70, 1), (70, 2), (70, 66), (130, 130), (600, 1)] {
        for window in [None, Some(1), Some(9), Some(65)] {
            for (heads, kv_heads, dim) in [(3, 1, 16), (2, 2, 24), (8, 2, 64)] {
                let segments = [0, len as u32];
                let shape = shape(heads, kv_heads, dim, window, &segments);
                let (qkv, _) = data(&shape, 1);
                let expected = run_forward(&qkv, &shape).0;
                let columns = |first: usize, count: usize| -> Vec<f32> {
                    qkv.chunks(shape.row()).flat_map(|row| &row[first * dim..(first + count) * dim]).copied().collect()
                };
                let cached_rows = |first: usize, kind: CacheType| {
                    let mut cache = Cache::new(kind, kv_heads, dim);
                    columns(first, kv_heads).chunks(kv_heads * dim).for_each(|row| cache.push(row));
                    cache
                };
                let cache = CacheShape { heads, kv_heads, head_dim: dim, window, scale: shape.scale };
                let q = &qkv[(len - queries) * shape.row()..];
                let expected = &expected[(len - queries) * heads * dim..];
                for (kind, tolerance) in [(CacheType::F32, 1e-5), (CacheType::F16, 2e-3), (CacheType::Q8, 4e-2)] {
                    let (keys, values) = (cached_rows(heads, kind), cached_rows(heads + kv_heads, kind));
                    // Beside another sequence, whose only position sees itself.
                    let (mut out, mut other) = (vec![f32::NAN; queries * heads * dim], vec![f32::NAN; heads * dim]);
                    let mut own = Cache::new(CacheType::F32, kv_heads, dim);
                    own.push(&qkv[heads * dim..(heads + kv_heads) * dim]);
                    let mut sequences = [
                        Sequence { q: &qkv, keys: &own, values: &own, out: &mut other },
                        Sequence { q, keys: &keys, values: &values, out: &mut out },
                    ];
                    cached(&mut sequences, shape.row(), &cache);
                    let what = format!("{queries} of {len}, {cache:?}, {kind:?}");
                    assert_close(&what, &out, expected, tolerance);
                    for (head, out) in other.chunks(dim).enumerate() {
                        let kv_head = head / (heads / kv_heads);
                        assert_close(&what, out, &qkv[(heads + kv_head) * dim..][..dim], 1e-6);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Packed segments are the same as the segments one by one.
    #[test]
    fn segments_are_isolated(lengths in prop::collection::vec(0u32..90, 1..6), window in prop::option::of(1usize..100)) {
        let segments: Vec<u32> = std::iter::once(0).chain(lengths.iter().scan(0, |end, len| { *end += len; Some(*end) })).collect();
        let packed = shape(4, 2, 16, window, &segments);
        let (qkv, d_out) = data(&packed, 9);
        let (out, d_qkv) = (run_forward(&qkv, &packed).0, run_backward(&d_out, &qkv, &packed));
        for range in segments.windows(2) {
            let alone_segments = [0, range[1] - range[0]];
            let alone = Shape { segments: &alone_segments, ..packed };
            let rows = |x: &[f32], width: usize| x[range[0] as usize * width..range[1] as usize * width].to_vec();
            let (qkv, d_out) = (rows(&qkv, packed.row()), rows(&d_out, 64));
            assert_close("out", &run_forward(&qkv, &alone).0, &rows(&out, 64), 1e-6);
            assert_close("d_qkv", &run_backward(&d_out, &qkv, &alone), &rows(&d_qkv, packed.row()), 1e-5);
        }
    }
}
