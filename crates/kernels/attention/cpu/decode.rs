//! Queries at the end of their caches. One query a sequence goes over its keys in stretches, so that a long text is work
//! for all threads however few heads it has; several go block by block, as in training.

use super::{Group, Prefix, QUERIES, Target, forward, padded, schedule, with_scratch};
use crate::attention::{Cache, CacheShape, Sequence};
use crate::gemm::{Mat, MatMut, few_rows, tile};
use crate::parallel::Shared;
use crate::simd::{self, LANES, dispatch, exp, mul_add};
use std::cell::Cell;
use std::ops::Range;

/// Keys of a stretch: the sums do not depend on the number of threads.
const STRETCH: usize = 256;
/// Keys read at a time: as f32 they stay in the first cache level.
const KEYS: usize = 64;

thread_local! {
    /// Caches as f32, and what the stretches give.
    static WORK: Cell<(Vec<f32>, Vec<f32>)> = Cell::default();
}

/// One key/value head of a sequence: for one query a stretch of keys, else a block of queries.
enum Task<'a> {
    Stretch { sequence: &'a Sequence<'a>, kv_head: usize, keys: Range<usize>, part: &'a mut [f32] },
    Block { group: Group<'a>, first: usize, rows: usize, out: Target },
}

pub(in crate::attention) fn cached(sequences: &mut [Sequence], q_stride: usize, shape: &CacheShape) {
    let (dim, heads) = (shape.head_dim, shape.heads / shape.kv_heads);
    let window = shape.window.unwrap_or(usize::MAX);
    let stride = shape.heads * dim;
    let queries = |sequence: &Sequence| sequence.out.len() / stride;
    let visible = |sequence: &Sequence| sequence.keys.len().saturating_sub(window)..sequence.keys.len();
    // What a stretch gives: for each head the sum of its values, their mass, and the largest score.
    let part_len = heads * (dim + 2);

    let outs: Vec<Shared> = sequences.iter_mut().map(|sequence| Shared::new(sequence.out)).collect();
    let sequences = &*sequences;
    let (mut widened, mut parts) = WORK.take();
    let floats = |sequence: &Sequence| match sequence.keys.floats(0) {
        None if queries(sequence) > 1 => 2 * sequence.keys.len() * shape.kv_heads * dim,
        _ => 0,
    };
    widened.resize(widened.len().max(sequences.iter().map(floats).sum()), 0.0);
    let single = sequences.iter().filter(|sequence| queries(sequence) == 1);
    let stretches: usize = single.map(|sequence| visible(sequence).len().div_ceil(STRETCH)).sum();
    parts.resize(parts.len().max(stretches * shape.kv_heads * part_len), 0.0);

    let mut tasks = Vec::new();
    let mut work = 0;
    let (mut free, mut unused) = (&mut widened[..], parts.chunks_exact_mut(part_len.max(1)));
    for (sequence, &out) in sequences.iter().zip(&outs) {
        let (rows, len) = (queries(sequence), sequence.keys.len());
        work += rows * len * stride;
        if rows == 1 {
            for kv_head in 0..shape.kv_heads {
                let seen = visible(sequence);
                for start in seen.clone().step_by(STRETCH) {
                    let keys = start..(start + STRETCH).min(seen.end);
                    // As many as were counted above.
                    let Some(part) = unused.next() else { unreachable!("fewer parts than stretches") };
                    tasks.push(Task::Stretch { sequence, kv_head, keys, part });
                }
            }
            continue;
        }
        let (mine, rest) = free.split_at_mut(floats(sequence));
        free = rest;
        let (k, v) = mine.split_at_mut(mine.len() / 2);
        if !k.is_empty() {
            sequence.keys.widen(k);
            sequence.values.widen(v);
        }
        let (k, v) = (&*k, &*v);
        for first in (0..rows).step_by(QUERIES) {
            for kv_head in 0..shape.kv_heads {
                let group = Group {
                    q: &sequence.q[kv_head * heads * dim..],
                    q_stride,
                    k: all(sequence.keys, k, kv_head, len * dim),
                    v: all(sequence.values, v, kv_head, len * dim),
                    kv_stride: dim,
                    dim,
                    heads,
                    window,
                    scale: shape.scale,
                    offset: len - rows,
                    prefix: Prefix::default(),
                };
                let out = Target { data: out, start: kv_head * heads * dim, stride };
                tasks.push(Task::Block { group, first, rows: QUERIES.min(rows - first), out });
            }
        }
    }
    schedule(tasks, work, |task| match task {
        Task::Stretch { sequence, kv_head, keys, part } => stretch(sequence, kv_head, keys, shape, part),
        Task::Block { group, first, rows, out } => forward::block(&group, first, rows, out, None),
    });

    let mut parts_of = parts.chunks_exact(part_len.max(1));
    for (sequence, out) in sequences.iter().zip(&outs).filter(|(sequence, _)| queries(sequence) == 1) {
        // SAFETY: the tasks are done, and they wrote nothing here.
        let out = unsafe { out.slice_mut(0, stride) };
        for out in out.chunks_exact_mut(heads * dim) {
            let parts: Vec<&[f32]> = parts_of.by_ref().take(visible(sequence).len().div_ceil(STRETCH)).collect();
            for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                merge(&parts, head, heads, out);
            }
        }
    }
    WORK.set((widened, parts));
}

/// The heads of a group over some keys: sums of values `[heads, D]`, masses `[heads]`, largest scores `[heads]`.
fn stretch(sequence: &Sequence, kv_head: usize, keys: Range<usize>, shape: &CacheShape, part: &mut [f32]) {
    let (dim, heads) = (shape.head_dim, shape.heads / shape.kv_heads);
    let count = keys.len();
    let (sums, state) = part.split_at_mut(heads * dim);
    let (masses, largest) = state.split_at_mut(heads);
    let q = Mat::new(&sequence.q[kv_head * heads * dim..][..heads * dim], heads, dim);
    let columns = padded(count);
    with_scratch(heads * columns + KEYS * dim, |scratch| {
        let (scores, rows) = scratch.split_at_mut(heads * columns);
        let blocks = || (0..count).step_by(KEYS).map(|first| (first, KEYS.min(count - first)));
        for (first, rows_of) in blocks() {
            let at = keys.start + first;
            let scores = MatMut::strided(&mut scores[first..], heads, rows_of, columns);
            let k = read(sequence.keys, at..at + rows_of, kv_head, dim, rows);
            few_rows::nt_serial(scores, q, Mat::new(k, rows_of, dim), shape.scale);
        }
        for (head, scores) in scores.chunks_exact_mut(columns).enumerate() {
            (largest[head], masses[head]) = exponentials(&mut scores[..count]);
        }
        for (first, rows_of) in blocks() {
            let at = keys.start + first;
            let v = read(sequence.values, at..at + rows_of, kv_head, dim, rows);
            let weights = &scores[first..];
            if dim.is_multiple_of(LANES) {
                let sizes = (heads, dim, rows_of);
                tile::product(sizes, (weights, columns, 1), (v, dim), (sums, dim), first > 0);
            } else {
                for (head, sums) in sums.chunks_exact_mut(dim).enumerate() {
                    weighted_sum(&weights[head * columns..][..rows_of], v, sums, first > 0);
                }
            }
        }
    });
}

/// All rows of a head as f32: those of the cache, or of its copy.
fn all<'a>(cache: &'a Cache, copy: &'a [f32], head: usize, elements: usize) -> &'a [f32] {
    cache.floats(head).unwrap_or_else(|| &copy[head * elements..][..elements])
}

/// Some rows of a head as f32: those of the cache, or a copy.
fn read<'a>(cache: &'a Cache, rows: Range<usize>, head: usize, dim: usize, copy: &'a mut [f32]) -> &'a [f32] {
    if let Some(floats) = cache.floats(head) {
        return &floats[rows.start * dim..rows.end * dim];
    }
    let copy = &mut copy[..rows.len() * dim];
    cache.read(rows, head, copy);
    copy
}

/// What the stretches of a head come to.
fn merge(parts: &[&[f32]], head: usize, heads: usize, out: &mut [f32]) {
    let dim = out.len();
    let mass = |part: &[f32]| part[heads * dim + head];
    let score = |part: &[f32]| part[heads * (dim + 1) + head];
    let largest = parts.iter().map(|part| score(part)).fold(f32::NEG_INFINITY, f32::max);
    let factors = || parts.iter().map(|part| (part, (score(part) - largest).exp()));
    let total: f32 = factors().map(|(part, factor)| mass(part) * factor).sum();
    out.fill(0.0);
    for (part, factor) in factors() {
        for (out, sum) in out.iter_mut().zip(&part[head * dim..]) {
            *out += factor / total * sum;
        }
    }
}

dispatch! {
    /// Scores to their exponentials against the largest of them; gives that, and the sum.
    fn exponentials(scores: &mut [f32]) -> (f32, f32) {
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
        (largest, simd::sum(total))
    }
}

dispatch! {
    fn weighted_sum(weights: &[f32], v: &[f32], out: &mut [f32], accumulate: bool) {
        if !accumulate {
            out.fill(0.0);
        }
        for (weight, v) in weights.iter().zip(v.chunks_exact(out.len())) {
            for (out, v) in out.iter_mut().zip(v) {
                *out = mul_add::<FMA>(*weight, *v, *out);
            }
        }
    }
}
