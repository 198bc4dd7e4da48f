//! Keys or values of the positions that a sequence has behind it.

use crate::parallel;
use crate::simd::widen_halves;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use std::ops::Range;

/// How a cache is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    #[default]
    F32,
    /// Half the memory, and half of what a decoded token reads; 11 significant bits.
    F16,
    /// 8 bits, and a step for each 32 values (or for a head, where it is not made of such): `x ≈ step · code`.
    Q8,
}

/// Keys or values of every position, growing row by row. The rows of a head lie together, as they are read together.
#[derive(Clone, Debug)]
pub struct Cache {
    dim: usize,
    heads: Vec<Rows>,
}

/// `[len, D]`
#[derive(Clone, Debug)]
enum Rows {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Q8 { codes: Vec<i8>, steps: Vec<f32> },
}

/// Values that share a step.
fn run(dim: usize) -> usize {
    if dim.is_multiple_of(32) { 32 } else { dim }
}

impl Cache {
    /// An empty cache of `kv_heads` heads of `dim`.
    pub fn new(kind: CacheType, kv_heads: usize, dim: usize) -> Self {
        let rows = match kind {
            CacheType::F32 => Rows::F32(Vec::new()),
            CacheType::F16 => Rows::F16(Vec::new()),
            CacheType::Q8 => Rows::Q8 { codes: Vec::new(), steps: Vec::new() },
        };
        Self { dim, heads: vec![rows; kv_heads] }
    }

    /// Appends a row `[KV·D]`.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.width(), "elements of a row of the cache");
        for (head, row) in self.heads.iter_mut().zip(row.chunks_exact(self.dim)) {
            match head {
                Rows::F32(values) => values.extend_from_slice(row),
                Rows::F16(halves) => {
                    let start = halves.len();
                    halves.resize(start + row.len(), 0);
                    halves[start..].reinterpret_cast_mut::<half::f16>().convert_from_f32_slice(row);
                }
                Rows::Q8 { codes, steps } => {
                    for run in row.chunks_exact(run(self.dim)) {
                        let most = run.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
                        let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
                        codes.extend(run.iter().map(|value| (value * inverse).round() as i8));
                        steps.push(most / 127.0);
                    }
                }
            }
        }
    }

    /// Forgets the rows from `len` on, and keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        let elements = len * self.dim;
        for head in &mut self.heads {
            match head {
                Rows::F32(values) => values.truncate(elements),
                Rows::F16(halves) => halves.truncate(elements),
                Rows::Q8 { codes, steps } => {
                    codes.truncate(elements);
                    steps.truncate(elements / run(self.dim));
                }
            }
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        let elements = self.heads.first().map_or(0, |head| match head {
            Rows::F32(values) => values.len(),
            Rows::F16(halves) => halves.len(),
            Rows::Q8 { codes, .. } => codes.len(),
        });
        elements / self.dim
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of a row.
    pub(super) fn width(&self) -> usize {
        self.heads.len() * self.dim
    }

    /// All rows of a head `[len, D]`, where they are f32.
    pub(super) fn floats(&self, head: usize) -> Option<&[f32]> {
        match &self.heads[head] {
            Rows::F32(values) => Some(values),
            _ => None,
        }
    }

    /// Some rows of a head, `[rows, D]`.
    pub(super) fn read(&self, rows: Range<usize>, head: usize, out: &mut [f32]) {
        let elements = rows.start * self.dim..rows.end * self.dim;
        match &self.heads[head] {
            Rows::F32(values) => out.copy_from_slice(&values[elements]),
            Rows::F16(halves) => widen_halves(&halves[elements], out),
            Rows::Q8 { codes, steps } => {
                let run = run(self.dim);
                let runs = out.chunks_exact_mut(run).zip(codes[elements.clone()].chunks_exact(run));
                for ((out, codes), step) in runs.zip(&steps[elements.start / run..]) {
                    for (out, &code) in out.iter_mut().zip(codes) {
                        *out = step * f32::from(code);
                    }
                }
            }
        }
    }

    /// All rows as f32, `[KV, len, D]`, on all threads.
    pub(super) fn widen(&self, out: &mut [f32]) {
        let per_task = parallel::rows_per_task(self.len(), self.dim);
        let heads = out.chunks_exact_mut((self.len() * self.dim).max(1)).enumerate();
        let tasks = heads.flat_map(|(head, out)| {
            out.chunks_mut(per_task * self.dim).enumerate().map(move |(task, out)| (head, task, out))
        });
        parallel::run(tasks, |(head, task, out)| {
            let first = task * per_task;
            self.read(first..first + out.len() / self.dim, head, out);
        });
    }
}
