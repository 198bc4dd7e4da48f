//! Causal attention over packed segments, with grouped key/value heads and an optional sliding window.
//!
//! Within a segment, query i sees key j iff `i − window < j ≤ i` (transformers' `sliding_window`: a window of w covers w
//! keys, the query's own among them). Query head `a` uses key/value head `a / (H/KV)`. Segments do not see each other,
//! but a segment may continue a *prefix*: the first rows of an earlier one. Its queries then see those rows and their own,
//! and i, j count from the prefix's first row, as if the prefix stood before the segment once more.
//!
//! `out = softmax(scale · q·kᵀ)·v`, computed block by block with a running maximum (FlashAttention-2, Dao 2023): scores
//! never exist as `[T, T]`. [`forward`] saves the log-sum-exp of each row, from which [`backward`] recomputes the
//! probabilities P; with dP = dO·Vᵀ and Δ = rowsum(dO ∘ O): dS = P ∘ (dP − Δ), dQ = scale·dS·K, dK = scale·dSᵀ·Q, dV = Pᵀ·dO.

#[cfg(test)]
mod test;

mod cache;
mod cpu;
pub mod cuda;

pub use cache::{Cache, CacheType};

use std::ops::Range;

/// Sizes of a packed batch. `T` is the last element of `segments`.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// H
    pub heads: usize,
    /// KV, a divisor of H
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    /// Keys that a query sees, itself included; `None` for all before it.
    pub window: Option<usize>,
    /// Factor on the scores, usually 1/√D.
    pub scale: f32,
    /// Offsets of the segments, from 0 to T; equal neighbours are an empty segment.
    pub segments: &'a [u32],
    /// Rows of the prefix that each segment continues: the first rows of the last segment before it that has none (0).
    /// One entry a segment, or empty when no segment has a prefix.
    pub prefixes: &'a [u32],
}

/// Sizes of attention over a key/value cache: [`Shape`] with one segment, whose length the call gives.
#[derive(Clone, Copy, Debug)]
pub struct CacheShape {
    /// H
    pub heads: usize,
    /// KV, a divisor of H
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    /// Keys that a query sees, itself included; `None` for all before it.
    pub window: Option<usize>,
    /// Factor on the scores, usually 1/√D.
    pub scale: f32,
}

/// `qkv` `[T, (H + 2·KV)·D]` (per row: query heads, key heads, value heads) to `out` `[T, H·D]`; saves the log-sum-exp of
/// the scaled scores in `lse` `[H, T]`.
pub fn forward(qkv: &[f32], shape: &Shape, out: &mut [f32], lse: &mut [f32]) {
    let tokens = shape.check(qkv.len());
    assert_eq!(out.len(), tokens * shape.heads * shape.head_dim, "output elements");
    assert_eq!(lse.len(), tokens * shape.heads, "log-sum-exps");
    cpu::forward(qkv, shape, out, lse);
}

/// Overwrites `d_qkv` (laid out as `qkv`) with the gradient, given `d_out` `[T, H·D]` and what [`forward`] took and gave.
pub fn backward(d_out: &[f32], qkv: &[f32], out: &[f32], lse: &[f32], shape: &Shape, d_qkv: &mut [f32]) {
    let tokens = shape.check(qkv.len());
    assert_eq!(out.len(), tokens * shape.heads * shape.head_dim, "output elements");
    assert_eq!(d_out.len(), out.len(), "elements of the output's gradient");
    assert_eq!(lse.len(), tokens * shape.heads, "log-sum-exps");
    assert_eq!(d_qkv.len(), qkv.len(), "elements of the gradient");
    cpu::backward(d_out, qkv, out, lse, shape, d_qkv);
}

/// One sequence of [`cached`]: n queries, which stand at the last n positions of its cache.
#[derive(Debug)]
pub struct Sequence<'a> {
    /// H·D columns, rows as far apart as the call says.
    pub q: &'a [f32],
    pub keys: &'a Cache,
    pub values: &'a Cache,
    /// `[n, H·D]`; its length tells n.
    pub out: &'a mut [f32],
}

/// Decoding: the queries of several sequences, their rows `q_stride` apart, each over its own cache.
pub fn cached(sequences: &mut [Sequence], q_stride: usize, shape: &CacheShape) {
    check_heads(shape.heads, shape.kv_heads, shape.head_dim, shape.window);
    let columns = shape.heads * shape.head_dim;
    assert!(q_stride >= columns, "query row stride {q_stride} below {columns} columns");
    for Sequence { q, keys, values, out } in &*sequences {
        let (queries, len) = (out.len() / columns, keys.len());
        assert_eq!(out.len(), queries * columns, "output elements for {} heads of {}", shape.heads, shape.head_dim);
        assert!(queries <= len, "{queries} queries at the end of {len} positions");
        assert!(queries == 0 || q.len() >= (queries - 1) * q_stride + columns, "{} elements of queries", q.len());
        for cache in [keys, values] {
            assert_eq!(cache.width(), shape.kv_heads * shape.head_dim, "elements of a row of the cache");
            assert_eq!(cache.len(), len, "positions of keys and values");
        }
    }
    cpu::cached(sequences, q_stride, shape);
}

impl Shape<'_> {
    /// Panics on sizes that do not fit together; returns T.
    fn check(&self, qkv: usize) -> usize {
        check_heads(self.heads, self.kv_heads, self.head_dim, self.window);
        assert_eq!(self.segments.first(), Some(&0), "the first segment's start");
        assert!(self.segments.is_sorted(), "segment offsets fall: {:?}", self.segments);
        let tokens = self.segments.last().map_or(0, |&end| end as usize);
        assert_eq!(qkv, tokens * self.row(), "elements of q, k, v for {tokens} tokens");
        if let Some(segment) = misplaced_prefix(self.segments, self.prefixes) {
            panic!("the prefix of segment {segment} is not there: {:?} in {:?}", self.prefixes, self.segments);
        }
        tokens
    }

    /// Length of the prefix that a segment continues.
    fn prefix(&self, segment: usize) -> usize {
        self.prefixes.get(segment).map_or(0, |&rows| rows as usize)
    }

    /// Runs of segments (as indices) that share keys: one without a prefix, and those behind it that continue it.
    fn documents(&self) -> Vec<Range<usize>> {
        let mut documents: Vec<Range<usize>> = Vec::new();
        for segment in 0..self.segments.len() - 1 {
            match documents.last_mut() {
                Some(document) if self.prefix(segment) > 0 => document.end = segment + 1,
                _ => documents.push(segment..segment + 1),
            }
        }
        documents
    }

    /// Elements of a row of q, k and v.
    fn row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// The first segment whose prefix is longer than the segment it is taken from; for a list of another length than that
/// of the segments, the first segment without a partner.
pub fn misplaced_prefix(segments: &[u32], prefixes: &[u32]) -> Option<usize> {
    let count = segments.len().saturating_sub(1);
    if !prefixes.is_empty() && prefixes.len() != count {
        return Some(prefixes.len().min(count));
    }
    let mut room = 0;
    prefixes.iter().zip(segments.windows(2)).position(|(&prefix, segment)| {
        if prefix == 0 {
            room = segment[1] - segment[0];
        }
        prefix > room
    })
}

fn check_heads(heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>) {
    assert!(heads > 0 && kv_heads > 0 && head_dim > 0, "attention without heads or head dimension");
    assert!(heads.is_multiple_of(kv_heads), "{heads} query heads for {kv_heads} key/value heads");
    assert!(window != Some(0), "a window of 0 keys: a query sees at least itself");
}
