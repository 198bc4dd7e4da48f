use super::forward::mask;
use super::{
    Group, KEYS, Prefix, QUERIES, Shape, Target, pack_columns, pack_rows, padded, schedule, with_scratch, work,
};
use crate::gemm::tile;
use crate::parallel::{self, Shared};
use crate::simd::{self, LANES, dispatch, exp, mul_add};
use std::cell::Cell;
use std::ops::Range;

thread_local! {
    /// Per-head gradients of keys and values, where heads that share them are worked on apart.
    static PARTIAL: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Tasks per thread below which the heads of a group become tasks of their own.
const TASKS_PER_THREAD: usize = 4;

/// What one task computes from and writes to, beside its [`Group`].
struct Gradient<'a> {
    d_out: &'a [f32],
    out: &'a [f32],
    out_stride: usize,
    /// `lse[head · lse_stride + row]`
    lse: &'a [f32],
    lse_stride: usize,
    segments: &'a [Segment],
    d_q: Target,
    d_k: Target,
    d_v: Target,
}

/// One segment of a document, its rows counted from the document's first.
struct Segment {
    rows: Range<usize>,
    /// Rows of the document's first segment that it continues.
    prefix: usize,
}

/// Queries that see a block of keys.
struct Readers {
    rows: Range<usize>,
    /// Where the first of them stands, counted as the keys are.
    position: usize,
    /// How many of the block's keys they see, masks aside.
    keys: usize,
}

pub(crate) fn backward(d_out: &[f32], qkv: &[f32], out: &[f32], lse: &[f32], shape: &Shape, d_qkv: &mut [f32]) {
    let tokens = lse.len() / shape.heads;
    let (row, dim, group) = (shape.row(), shape.head_dim, shape.heads / shape.kv_heads);
    let documents: Vec<(usize, Vec<Segment>)> = shape
        .documents()
        .into_iter()
        .map(|segments| document(shape, segments))
        .filter(|(_, d)| !d.is_empty())
        .collect();
    let split = group > 1 && documents.len() * shape.kv_heads < TASKS_PER_THREAD * rayon::current_num_threads();
    let (tasks_per_kv_head, heads) = if split { (group, 1) } else { (1, group) };

    let mut partial = PARTIAL.take();
    let partial_row = 2 * dim;
    let partial_len = if split { shape.heads * tokens * partial_row } else { 0 };
    if partial.len() < partial_len {
        partial.resize(partial_len, 0.0);
    }
    let (d_qkv, partials) = (Shared::new(d_qkv), Shared::new(&mut partial));

    let mut tasks = Vec::new();
    for (start, segments) in &documents {
        for kv_head in 0..shape.kv_heads {
            for part in 0..tasks_per_kv_head {
                tasks.push((*start, segments.as_slice(), kv_head, kv_head * group + part * heads));
            }
        }
    }
    let run = |(start, segments, kv_head, head): (usize, &[Segment], usize, usize)| {
        let (k_column, v_column) = ((shape.heads + kv_head) * dim, (shape.heads + shape.kv_heads + kv_head) * dim);
        let operands = Group {
            q: &qkv[start * row + head * dim..],
            q_stride: row,
            k: &qkv[start * row + k_column..],
            v: &qkv[start * row + v_column..],
            kv_stride: row,
            dim,
            heads,
            window: shape.window.unwrap_or(usize::MAX),
            scale: shape.scale,
            offset: 0,
            prefix: Prefix::default(),
        };
        let whole = |column| Target { data: d_qkv, start: start * row + column, stride: row };
        let (d_k, d_v) = if split {
            let first = (head * tokens + start) * partial_row;
            let part = |column| Target { data: partials, start: first + column, stride: partial_row };
            (part(0), part(dim))
        } else {
            (whole(k_column), whole(v_column))
        };
        let out_stride = shape.heads * dim;
        let gradient = Gradient {
            d_out: &d_out[start * out_stride + head * dim..],
            out: &out[start * out_stride + head * dim..],
            out_stride,
            lse: &lse[head * tokens + start..],
            lse_stride: tokens,
            segments,
            d_q: whole(head * dim),
            d_k,
            d_v,
        };
        task(&operands, &gradient);
    };
    schedule(tasks, work(shape), run);

    if split {
        let rows = parallel::rows_per_task(tokens, shape.heads * partial_row);
        parallel::run((0..tokens).step_by(rows), |first| {
            for token in first..tokens.min(first + rows) {
                for kv_head in 0..shape.kv_heads {
                    for (half, column) in [(0, shape.heads + kv_head), (1, shape.heads + shape.kv_heads + kv_head)] {
                        // SAFETY: this task alone writes this token's row, and nobody writes the partial sums any more.
                        let sum = unsafe { d_qkv.slice_mut(token * row + column * dim, dim) };
                        for head in kv_head * group..(kv_head + 1) * group {
                            let start = (head * tokens + token) * partial_row + half * dim;
                            // SAFETY: as above; read only.
                            let part = unsafe { partials.slice_mut(start, dim) };
                            if head == kv_head * group {
                                sum.copy_from_slice(part);
                            } else {
                                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += *part);
                            }
                        }
                    }
                }
            }
        });
    }
    PARTIAL.set(partial);
}

/// The first row of a document, and its segments that have rows.
fn document(shape: &Shape, segments: Range<usize>) -> (usize, Vec<Segment>) {
    let row = |segment: usize| shape.segments[segment] as usize;
    let start = row(segments.start);
    let occupied = segments.filter(|&segment| row(segment) < row(segment + 1));
    let segment = |index| Segment { rows: row(index) - start..row(index + 1) - start, prefix: shape.prefix(index) };
    (start, occupied.map(segment).collect())
}

/// Who sees the block of `keys` keys from row `key` on of a segment: the segment itself from there on, and for the first
/// one those that continue it. The last query to see one of the keys is the one whose window still reaches the last.
fn readers(
    segments: &[Segment],
    index: usize,
    key: usize,
    keys: usize,
    window: usize,
) -> impl Iterator<Item = Readers> {
    let end = segments[index].rows.end.min((key + keys - 1).saturating_add(window));
    let continued = if index == 0 { &segments[1..] } else { &[] };
    let own = Readers { rows: key..end, position: key, keys };
    std::iter::once(own).chain(continued.iter().filter(move |segment| key < segment.prefix).map(move |segment| {
        let Segment { rows, prefix } = segment;
        let keys = keys.min(prefix - key);
        let count = (key + keys - 1).saturating_add(window).saturating_sub(*prefix).min(rows.len());
        Readers { rows: rows.start..rows.start + count, position: *prefix, keys }
    }))
}

/// One document, one key/value head, some of its query heads: key blocks outside, query blocks inside, so that the sums of
/// keys and values stay in one place and the queries' grow block by block.
fn task(group: &Group, gradient: &Gradient) {
    let (dim, heads, segments) = (group.dim, group.heads, gradient.segments);
    let total = segments[segments.len() - 1].rows.end;
    let width = padded(dim);
    let len = heads * total + 2 * dim * KEYS + 3 * KEYS * width + 3 * QUERIES * width + 2 * QUERIES * KEYS;
    with_scratch(len, |scratch| {
        let (deltas, scratch) = scratch.split_at_mut(heads * total);
        let (k_columns, scratch) = scratch.split_at_mut(dim * KEYS);
        let (v_columns, scratch) = scratch.split_at_mut(dim * KEYS);
        let (k_rows, scratch) = scratch.split_at_mut(KEYS * width);
        let (d_k, scratch) = scratch.split_at_mut(KEYS * width);
        let (d_v, scratch) = scratch.split_at_mut(KEYS * width);
        let (q, scratch) = scratch.split_at_mut(QUERIES * width);
        let (d_out, scratch) = scratch.split_at_mut(QUERIES * width);
        let (d_q, scratch) = scratch.split_at_mut(QUERIES * width);
        let (p, d_p) = scratch.split_at_mut(QUERIES * KEYS);

        for head in 0..heads {
            let deltas = &mut deltas[head * total..][..total];
            row_dots(&gradient.d_out[head * dim..], &gradient.out[head * dim..], gradient.out_stride, dim, deltas);
            for row in 0..total {
                gradient.d_q.row(row, head, dim).fill(0.0);
            }
        }

        let blocks = segments.iter().enumerate().flat_map(|(index, segment)| {
            segment.rows.clone().step_by(KEYS).map(move |key| (index, key, KEYS.min(segment.rows.end - key)))
        });
        for (index, key, keys) in blocks {
            let stride = padded(keys);
            let (k, v) = (&group.k[key * group.kv_stride..], &group.v[key * group.kv_stride..]);
            pack_columns(k, group.kv_stride, keys, dim, k_columns, stride);
            pack_columns(v, group.kv_stride, keys, dim, v_columns, stride);
            pack_rows(k, group.kv_stride, keys, dim, group.scale, k_rows, width);
            d_k[..keys * width].fill(0.0);
            d_v[..keys * width].fill(0.0);
            let query_blocks = (0..heads).flat_map(|head| {
                readers(segments, index, key, keys, group.window).flat_map(move |Readers { rows, position, keys }| {
                    let (start, end) = (rows.start, rows.end);
                    rows.step_by(QUERIES).map(move |first| (head, first, end, position + first - start, keys))
                })
            });
            for (head, first, end, position, keys) in query_blocks {
                let (rows, columns) = (QUERIES.min(end - first), padded(keys));
                let q_from = &group.q[first * group.q_stride + head * dim..];
                let d_from = &gradient.d_out[first * gradient.out_stride + head * dim..];
                pack_rows(q_from, group.q_stride, rows, dim, group.scale, q, width);
                pack_rows(d_from, gradient.out_stride, rows, dim, 1.0, d_out, width);
                let (p, d_p) = (&mut p[..rows * columns], &mut d_p[..rows * columns]);
                tile::product((rows, columns, dim), (q, width, 1), (k_columns, stride), (p, columns), false);
                tile::product((rows, columns, dim), (d_out, width, 1), (v_columns, stride), (d_p, columns), false);
                mask(p, columns, position, key, keys, group.window);
                let lse = &gradient.lse[head * gradient.lse_stride + first..][..rows];
                let deltas = &deltas[head * total + first..][..rows];
                score_gradients(p, d_p, columns, lse, deltas);
                tile::product((keys, width, rows), (p, 1, columns), (d_out, width), (d_v, width), true);
                tile::product((keys, width, rows), (d_p, 1, columns), (q, width), (d_k, width), true);
                tile::product((rows, width, keys), (d_p, columns, 1), (k_rows, width), (d_q, width), false);
                for row in 0..rows {
                    let sum = gradient.d_q.row(first + row, head, dim);
                    sum.iter_mut().zip(&d_q[row * width..]).for_each(|(sum, value)| *sum += value);
                }
            }
            for row in 0..keys {
                gradient.d_k.row(key + row, 0, dim).copy_from_slice(&d_k[row * width..][..dim]);
                gradient.d_v.row(key + row, 0, dim).copy_from_slice(&d_v[row * width..][..dim]);
            }
        }
    });
}

impl Target {
    /// One head of one row. Each task calls this for rows and heads of its own only, one slice at a time.
    #[allow(clippy::mut_from_ref)]
    fn row(&self, row: usize, head: usize, dim: usize) -> &mut [f32] {
        // SAFETY: see above; the buffers outlive the tasks.
        unsafe { self.data.slice_mut(self.start + row * self.stride + head * dim, dim) }
    }
}

dispatch! {
    /// `Δ = Σ_d dO·O` of each row.
    fn row_dots(d_out: &[f32], out: &[f32], stride: usize, dim: usize, deltas: &mut [f32]) {
        for (row, delta) in deltas.iter_mut().enumerate() {
            let (d_chunks, d_rest) = simd::split(&d_out[row * stride..][..dim]);
            let (chunks, rest) = simd::split(&out[row * stride..][..dim]);
            let mut sums = [0.0; LANES];
            for (d, out) in d_chunks.iter().zip(chunks) {
                for lane in 0..LANES {
                    sums[lane] = mul_add::<FMA>(d[lane], out[lane], sums[lane]);
                }
            }
            for (lane, (d, out)) in d_rest.iter().zip(rest).enumerate() {
                sums[lane] = mul_add::<FMA>(*d, *out, sums[lane]);
            }
            *delta = simd::sum(sums);
        }
    }
}

dispatch! {
    /// In place: scores to P, and dP to dS (without the scale, which the packed queries and keys carry).
    fn score_gradients(p: &mut [f32], d_p: &mut [f32], columns: usize, lse: &[f32], deltas: &[f32]) {
        let rows = p.chunks_exact_mut(columns).zip(d_p.chunks_exact_mut(columns));
        for ((p, d_p), (lse, delta)) in rows.zip(lse.iter().zip(deltas)) {
            for (p, d_p) in p.iter_mut().zip(d_p) {
                *p = exp::<FMA>(*p - lse);
                *d_p = *p * (*d_p - delta);
            }
        }
    }
}
