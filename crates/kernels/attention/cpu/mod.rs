//! Blocked attention. Work is cut so that each result has one writer: forward by (segment, block of queries, key/value
//! head), backward by (document, key/value head) or, when that gives too few tasks, (document, query head), where a
//! document is a segment with those that continue its first rows.

mod backward;
mod decode;
mod forward;

use super::Shape;
use crate::parallel::{self, Shared};
use crate::simd::LANES;
use std::cell::Cell;
use std::ops::Range;

pub(super) use backward::backward;
pub(super) use decode::cached;

/// Queries per block.
const QUERIES: usize = 64;
/// Keys per block: scores, keys, values and outputs of a block (16 KiB each at D = 64) stay in the second cache level.
const KEYS: usize = 64;
/// Multiply-adds below which everything runs on the calling thread.
const SERIAL_WORK: usize = 512 * 1024;

thread_local! {
    /// Block buffers of this thread, kept from call to call.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Gives `body` at least `len` floats with unspecified content.
fn with_scratch(len: usize, body: impl FnOnce(&mut [f32])) {
    // Taken out rather than borrowed: while a thread waits for others, rayon may hand it a second task of this kind.
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    body(&mut scratch[..len]);
    SCRATCH.set(scratch);
}

/// `count` rounded up to whole lanes.
fn padded(count: usize) -> usize {
    count.next_multiple_of(LANES)
}

/// The query heads of one key/value head in one segment. Slices start at the segment's first row and the head's column.
#[derive(Clone, Copy)]
struct Group<'a> {
    q: &'a [f32],
    q_stride: usize,
    k: &'a [f32],
    v: &'a [f32],
    kv_stride: usize,
    dim: usize,
    /// Query heads
    heads: usize,
    window: usize,
    scale: f32,
    /// Query row i stands at key position i + offset.
    offset: usize,
    prefix: Prefix<'a>,
}

/// Keys and values that stand before those of the group, in rows of the same stride; none by default.
#[derive(Clone, Copy, Default)]
struct Prefix<'a> {
    k: &'a [f32],
    v: &'a [f32],
    rows: usize,
}

/// Keys that queries see, with the position of the first query among them.
struct Sight<'a> {
    k: &'a [f32],
    v: &'a [f32],
    visible: Range<usize>,
    position: usize,
}

impl<'a> Group<'a> {
    /// The group's own keys that some query of the rows sees.
    fn visible(&self, first: usize, rows: usize) -> Range<usize> {
        (first + self.offset + 1).saturating_sub(self.window)..first + rows + self.offset
    }

    /// What the queries of the rows see: of the prefix, then of the group's own keys.
    fn sights(&self, first: usize, rows: usize) -> [Sight<'a>; 2] {
        let Prefix { k, v, rows: prefix } = self.prefix;
        let position = first + prefix;
        let seen = (position + 1).saturating_sub(self.window).min(prefix)..prefix;
        [
            Sight { k, v, visible: seen, position },
            Sight { k: self.k, v: self.v, visible: self.visible(first, rows), position: first + self.offset },
        ]
    }
}

/// Where results go: element (row i, head a, d) at `start + i · stride + a · D + d`.
#[derive(Clone, Copy)]
struct Target {
    data: Shared,
    start: usize,
    stride: usize,
}

pub(super) fn forward(qkv: &[f32], shape: &Shape, out: &mut [f32], lse: &mut [f32]) {
    let tokens = lse.len() / shape.heads;
    let (row, dim, group) = (shape.row(), shape.head_dim, shape.heads / shape.kv_heads);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let mut tasks = Vec::new();
    for document in shape.documents() {
        let stem = shape.segments[document.start] as usize;
        for segment in document {
            let (start, end) = (shape.segments[segment] as usize, shape.segments[segment + 1] as usize);
            for first in (start..end).step_by(QUERIES) {
                for kv_head in 0..shape.kv_heads {
                    tasks.push((stem, shape.prefix(segment), start..end, first - start, kv_head));
                }
            }
        }
    }
    let run = |(stem, prefix, Range { start, end }, first, kv_head): (usize, usize, Range<usize>, usize, usize)| {
        let (k_column, v_column) = ((shape.heads + kv_head) * dim, (shape.heads + shape.kv_heads + kv_head) * dim);
        let heads = Group {
            q: &qkv[start * row + kv_head * group * dim..],
            q_stride: row,
            k: &qkv[start * row + k_column..],
            v: &qkv[start * row + v_column..],
            prefix: Prefix { k: &qkv[stem * row + k_column..], v: &qkv[stem * row + v_column..], rows: prefix },
            kv_stride: row,
            dim,
            heads: group,
            window: shape.window.unwrap_or(usize::MAX),
            scale: shape.scale,
            offset: 0,
        };
        let stride = shape.heads * dim;
        let out = Target { data: out, start: start * stride + kv_head * group * dim, stride };
        // Row i, head a of the group: start + a · tokens + i.
        let lse = Target { data: lse, start: kv_head * group * tokens + start, stride: tokens };
        forward::block(&heads, first, QUERIES.min(end - start - first), out, Some(lse));
    };
    schedule(tasks, work(shape), run);
}

/// Multiply-adds of the scores, roughly.
fn work(shape: &Shape) -> usize {
    let window = shape.window.unwrap_or(usize::MAX);
    let pairs: usize = shape
        .segments
        .windows(2)
        .enumerate()
        .map(|(index, segment)| {
            let len = (segment[1] - segment[0]) as usize;
            len * (len + shape.prefix(index)).min(window)
        })
        .sum();
    pairs * shape.heads * shape.head_dim
}

fn schedule<T: Send>(tasks: Vec<T>, work: usize, run: impl Fn(T) + Sync + Send) {
    if work < SERIAL_WORK {
        tasks.into_iter().for_each(run);
    } else {
        parallel::run(tasks.into_iter(), run);
    }
}

/// Copies `rows` rows of `dim` elements, times `factor`, to rows of `width` elements, the excess zero.
fn pack_rows(from: &[f32], stride: usize, rows: usize, dim: usize, factor: f32, to: &mut [f32], width: usize) {
    for row in 0..rows {
        let (values, padding) = to[row * width..][..width].split_at_mut(dim);
        for (to, from) in values.iter_mut().zip(&from[row * stride..][..dim]) {
            *to = from * factor;
        }
        padding.fill(0.0);
    }
}

/// Copies `rows` rows of `dim` elements to the columns of `to` `[dim, width]`, the excess columns zero.
fn pack_columns(from: &[f32], stride: usize, rows: usize, dim: usize, to: &mut [f32], width: usize) {
    for d in 0..dim {
        to[d * width + rows..(d + 1) * width].fill(0.0);
    }
    // Sixteen rows at a time: each store then fills a cache line of its own.
    for first in (0..rows).step_by(LANES) {
        let count = LANES.min(rows - first);
        for d in 0..dim {
            let line = &mut to[d * width + first..][..count];
            for (row, to) in line.iter_mut().enumerate() {
                *to = from[(first + row) * stride + d];
            }
        }
    }
}
