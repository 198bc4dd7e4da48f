use super::{Group, Target, with_scratch};
use crate::gemm::{Mat, MatMut, few_rows, tile};
use crate::simd::{self, LANES, dispatch, exp, mul_add};

/// Attention of a single query at the end of the cache: keys and values are read once for all heads of the group.
pub(super) fn single(group: &Group, out: Target) {
    let visible = group.visible(0, 1);
    let (heads, keys, dim, stride) = (group.heads, visible.len(), group.dim, group.kv_stride);
    with_scratch(heads * keys, |scores| {
        let end = (keys - 1) * stride + dim;
        let k = &group.k[visible.start * stride..][..end];
        let v = &group.v[visible.start * stride..][..end];
        let q = Mat::new(&group.q[..heads * dim], heads, dim);
        few_rows::nt_serial(MatMut::new(scores, heads, keys), q, Mat::strided(k, keys, dim, stride), group.scale);
        // SAFETY: this task alone writes these heads.
        let out = unsafe { out.data.slice_mut(out.start, heads * dim) };
        for scores in scores.chunks_exact_mut(keys) {
            softmax(scores);
        }
        if dim.is_multiple_of(LANES) {
            tile::product((heads, dim, keys), (scores, keys, 1), (v, stride), (out, dim), false);
        } else {
            for (scores, out) in scores.chunks_exact(keys).zip(out.chunks_exact_mut(dim)) {
                weighted_sum(scores, v, stride, out);
            }
        }
    });
}

dispatch! {
    fn softmax(scores: &mut [f32]) {
        let mut best = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = simd::split(scores);
        for chunk in chunks {
            for lane in 0..LANES {
                best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
            }
        }
        for (lane, &score) in rest.iter().enumerate() {
            best[lane] = if score > best[lane] { score } else { best[lane] };
        }
        let largest = simd::largest(best);
        let mut total = [0.0; LANES];
        let (chunks, rest) = scores.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                chunk[lane] = exp::<FMA>(chunk[lane] - largest);
                total[lane] += chunk[lane];
            }
        }
        for (lane, score) in rest.iter_mut().enumerate() {
            *score = exp::<FMA>(*score - largest);
            total[lane] += *score;
        }
        let factor = 1.0 / simd::sum(total);
        for score in scores {
            *score *= factor;
        }
    }
}

dispatch! {
    fn weighted_sum(weights: &[f32], v: &[f32], stride: usize, out: &mut [f32]) {
        out.fill(0.0);
        for (key, weight) in weights.iter().enumerate() {
            for (out, v) in out.iter_mut().zip(&v[key * stride..]) {
                *out = mul_add::<FMA>(*weight, *v, *out);
            }
        }
    }
}
