//! Keys or values of the positions that a sequence has behind it.

use crate::parallel;
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

/// `[len, KV·D]`, growing row by row.
#[derive(Clone, Debug)]
pub struct Cache {
    kv_heads: usize,
    dim: usize,
    rows: Rows,
}

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
        Self { kv_heads, dim, rows }
    }

    /// Appends a row `[KV·D]`.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.width(), "elements of a row of the cache");
        match &mut self.rows {
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

    /// Forgets the rows from `len` on, and keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        let elements = len * self.width();
        match &mut self.rows {
            Rows::F32(values) => values.truncate(elements),
            Rows::F16(halves) => halves.truncate(elements),
            Rows::Q8 { codes, steps } => {
                codes.truncate(elements);
                steps.truncate(elements / run(self.dim));
            }
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        let elements = match &self.rows {
            Rows::F32(values) => values.len(),
            Rows::F16(halves) => halves.len(),
            Rows::Q8 { codes, .. } => codes.len(),
        };
        elements / self.width()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of a row.
    pub(super) fn width(&self) -> usize {
        self.kv_heads * self.dim
    }

    /// All rows, where they are f32.
    pub(super) fn floats(&self) -> Option<&[f32]> {
        match &self.rows {
            Rows::F32(values) => Some(values),
            _ => None,
        }
    }

    /// One head of some rows, `[rows, D]`.
    pub(super) fn read(&self, rows: Range<usize>, head: usize, out: &mut [f32]) {
        let (width, dim) = (self.width(), self.dim);
        for (row, out) in rows.zip(out.chunks_exact_mut(dim)) {
            let start = row * width + head * dim;
            match &self.rows {
                Rows::F32(values) => out.copy_from_slice(&values[start..start + dim]),
                Rows::F16(halves) => {
                    halves[start..start + dim].reinterpret_cast::<half::f16>().convert_to_f32_slice(out);
                }
                Rows::Q8 { codes, steps } => {
                    let run = run(dim);
                    let runs = out.chunks_exact_mut(run).zip(codes[start..].chunks_exact(run));
                    for ((out, codes), step) in runs.zip(&steps[start / run..]) {
                        for (out, &code) in out.iter_mut().zip(codes) {
                            *out = step * f32::from(code);
                        }
                    }
                }
            }
        }
    }

    /// All rows as f32, on all threads.
    pub(super) fn widen(&self, out: &mut [f32]) {
        let per_task = parallel::rows_per_task(self.len(), self.width());
        let tasks = out.chunks_mut(per_task * self.width()).enumerate();
        parallel::run(tasks, |(task, out)| {
            let first = task * per_task;
            for (row, out) in out.chunks_exact_mut(self.width()).enumerate() {
                for (head, out) in out.chunks_exact_mut(self.dim).enumerate() {
                    self.read(first + row..first + row + 1, head, out);
                }
            }
        });
    }
}
