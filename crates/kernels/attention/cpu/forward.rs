use super::{Group, KEYS, Sight, Target, pack_columns, pack_rows, padded, with_scratch};
use crate::gemm::tile;
use crate::simd::{self, LANES, dispatch, exp};

/// Attention of the queries `[first, first + rows)` for all heads of a group.
pub(super) fn block(group: &Group, first: usize, rows: usize, out: Target, lse: Option<Target>) {
    let (dim, heads) = (group.dim, group.heads);
    let width = padded(dim);
    let len = 2 * heads * rows * width + dim * KEYS + KEYS * width + rows * KEYS + 2 * heads * rows;
    with_scratch(len, |scratch| {
        let (q, scratch) = scratch.split_at_mut(heads * rows * width);
        let (sums, scratch) = scratch.split_at_mut(heads * rows * width);
        let (k, scratch) = scratch.split_at_mut(dim * KEYS);
        let (v, scratch) = scratch.split_at_mut(KEYS * width);
        let (scores, scratch) = scratch.split_at_mut(rows * KEYS);
        let (largest, mass) = scratch.split_at_mut(heads * rows);
        for head in 0..heads {
            let from = &group.q[first * group.q_stride + head * dim..];
            pack_rows(from, group.q_stride, rows, dim, group.scale, &mut q[head * rows * width..], width);
        }
        sums.fill(0.0);
        largest.fill(f32::NEG_INFINITY);
        mass.fill(0.0);
        for Sight { k: from_k, v: from_v, visible, position } in group.sights(first, rows) {
            for key in visible.clone().step_by(KEYS) {
                let keys = KEYS.min(visible.end - key);
                let columns = padded(keys);
                pack_columns(&from_k[key * group.kv_stride..], group.kv_stride, keys, dim, k, columns);
                pack_rows(&from_v[key * group.kv_stride..], group.kv_stride, keys, dim, 1.0, v, width);
                for head in 0..heads {
                    let q = &q[head * rows * width..][..rows * width];
                    let sums = &mut sums[head * rows * width..][..rows * width];
                    tile::product((rows, columns, dim), (q, width, 1), (k, columns), (scores, columns), false);
                    let scores = &mut scores[..rows * columns];
                    let state = head * rows..(head + 1) * rows;
                    mask(scores, columns, position, key, keys, group.window);
                    probabilities(scores, columns, &mut largest[state.clone()], &mut mass[state], sums, width);
                    tile::product((rows, width, keys), (scores, columns, 1), (v, width), (sums, width), true);
                }
            }
        }
        for head in 0..heads {
            for row in 0..rows {
                let state = head * rows + row;
                // SAFETY: this task alone writes these rows of these heads.
                let to = unsafe { out.data.slice_mut(out.start + (first + row) * out.stride + head * dim, dim) };
                let factor = 1.0 / mass[state];
                for (to, sum) in to.iter_mut().zip(&sums[state * width..]) {
                    *to = sum * factor;
                }
                if let Some(lse) = lse {
                    // SAFETY: as above.
                    let to = unsafe { lse.data.slice_mut(lse.start + head * lse.stride + first + row, 1) };
                    to[0] = largest[state] + mass[state].ln();
                }
            }
        }
    });
}

/// Sets the scores that a query must not see to −∞. Row r stands at `position + r`; column c is key `key + c`.
pub(super) fn mask(scores: &mut [f32], columns: usize, position: usize, key: usize, keys: usize, window: usize) {
    let rows = scores.len() / columns;
    let first_sees_all = position + 1 >= key + keys;
    let last_sees_first = (position + rows).saturating_sub(window) <= key;
    if first_sees_all && last_sees_first && keys == columns {
        return;
    }
    for (row, scores) in scores.chunks_exact_mut(columns).enumerate() {
        let end = (position + row + 1).saturating_sub(key).min(keys);
        let start = (position + row + 1).saturating_sub(window).saturating_sub(key).min(end);
        scores[..start].fill(f32::NEG_INFINITY);
        scores[end..].fill(f32::NEG_INFINITY);
    }
}

dispatch! {
    /// Scores to unnormalised probabilities against the running maximum; rescales what was summed under the old one.
    fn probabilities(
        scores: &mut [f32],
        columns: usize,
        largest: &mut [f32],
        mass: &mut [f32],
        sums: &mut [f32],
        width: usize,
    ) {
        let rows = scores.chunks_exact_mut(columns).zip(sums.chunks_exact_mut(width));
        for (row, (scores, sums)) in rows.enumerate() {
            let (chunks, _) = scores.as_chunks_mut::<LANES>();
            let mut best = [f32::NEG_INFINITY; LANES];
            for chunk in &*chunks {
                for lane in 0..LANES {
                    best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
                }
            }
            let old = largest[row];
            let new = old.max(simd::largest(best));
            // A row that has seen no key yet keeps −∞; against 0 its probabilities come out as 0.
            let reference = if new == f32::NEG_INFINITY { 0.0 } else { new };
            let mut total = [0.0; LANES];
            for chunk in chunks {
                for lane in 0..LANES {
                    let value = exp::<FMA>(chunk[lane] - reference);
                    chunk[lane] = value;
                    total[lane] += value;
                }
            }
            if new > old {
                let factor = exp::<FMA>(old - reference);
                mass[row] *= factor;
                for sum in sums.iter_mut() {
                    *sum *= factor;
                }
                largest[row] = new;
            }
            mass[row] += simd::sum(total);
        }
    }
}
