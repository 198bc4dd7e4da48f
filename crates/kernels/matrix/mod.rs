//! Weights as they are stored, and the products with them.
//!
//! Weights that are trained are f32. Frozen ones may be bf16, f16 or NF4: a panel of their rows at a time is turned into f32
//! (on all threads) and multiplied as any other, so that sums are f32 in one order, and no more than a panel is ever
//! unpacked. The bits of a result are those of the same product with the whole matrix unpacked, panel by panel. Weights in
//! the blocks of a GGUF file have products of their own forwards, of integers or of f32 ([`crate::quantised`]), and panels
//! backwards.

use std::cell::Cell;

use crate::gemm::{self, Mat, MatMut};
use crate::nf4::Nf4;
use crate::parallel;
use crate::quantised::{self, Quantised};
use crate::simd::{dispatch, widen_halves};

#[cfg(test)]
mod test;

/// Values of a panel: 1 MiB as f32, which stays in the second cache level.
const PANEL: usize = 1 << 18;

/// A flat, row-major sequence of weights.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    F32(&'a [f32]),
    /// The upper halves of f32.
    Bf16(&'a [u16]),
    /// IEEE half precision.
    F16(&'a [u16]),
    Nf4(&'a Nf4),
    Quantised(&'a Quantised),
    /// The same with products that round no activation.
    Exact(&'a Quantised),
}

impl<'a> From<&'a [f32]> for Matrix<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl Matrix<'_> {
    /// The matrix with products of f32.
    pub fn exact(self) -> Self {
        match self {
            Self::Quantised(values) => Self::Exact(values),
            exact => exact,
        }
    }

    fn quantised(&self) -> Option<&Quantised> {
        match self {
            Self::Quantised(values) | Self::Exact(values) => Some(values),
            _ => None,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) | Self::F16(values) => values.len(),
            Self::Nf4(values) => values.len(),
            Self::Quantised(values) | Self::Exact(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values `[start, start + out.len())` as f32, on the calling thread.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Self::F32(values) => out.copy_from_slice(&values[start..start + out.len()]),
            Self::Bf16(values) => widen(&values[start..start + out.len()], out),
            Self::F16(values) => {
                widen_halves(&values[start..start + out.len()], out);
            }
            Self::Nf4(values) => values.dequantise(start, out),
            Self::Quantised(values) | Self::Exact(values) => values.read(start, out),
        }
    }
}

dispatch! {
    fn widen(values: &[u16], out: &mut [f32]) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out = f32::from_bits(u32::from(value) << 16);
        }
    }
}

/// The nearest bf16, ties to even; NaN stays NaN.
pub fn to_bf16(value: f32) -> u16 {
    half::bf16::from_f32(value).to_bits()
}

/// `C[m, n] = beta·C + A[m, k]·Wᵀ`, W `[n, k]`: a linear layer forwards.
pub fn nt(c: MatMut, a: Mat, w: Matrix, beta: f32) {
    assert_eq!(w.len(), c.cols * a.cols, "weights of [{}, {}]", c.cols, a.cols);
    match w {
        Matrix::F32(values) => {
            let w = Mat::new(values, c.cols, a.cols);
            gemm::nt(c, a, w, 1.0, beta);
        }
        Matrix::Quantised(values) => quantised::nt(c, a, &[values], beta),
        Matrix::Exact(values) => quantised::exact_nt(c, a, &[values], beta),
        _ => {
            let (rows, stride) = (c.rows, c.stride);
            panels(w, a.cols, |first, panel| {
                gemm::nt(MatMut::strided(&mut c.data[first..], rows, panel.rows, stride), a, panel, 1.0, beta);
            });
        }
    }
}

/// [`nt`] with several matrices `[nᵢ, k]` one below the other, which share what can be shared.
pub fn stacked_nt(c: MatMut, a: Mat, parts: &[Matrix], beta: f32) {
    let kept: Vec<&Quantised> = parts.iter().filter_map(Matrix::quantised).collect();
    let exact = parts.iter().any(|part| matches!(part, Matrix::Exact(_)));
    if parts.len() > 1 && kept.len() == parts.len() {
        return if exact { quantised::exact_nt(c, a, &kept, beta) } else { quantised::nt(c, a, &kept, beta) };
    }
    let (rows, stride) = (c.rows, c.stride);
    let mut start = 0;
    for part in parts {
        let columns = part.len() / a.cols;
        nt(MatMut::strided(&mut c.data[start..], rows, columns, stride), a, *part, beta);
        start += columns;
    }
}

/// `C[m, k] = beta·C + A[m, n]·W`, W `[n, k]`: its input's gradient.
pub fn nn(c: MatMut, a: Mat, w: Matrix, beta: f32) {
    assert_eq!(w.len(), c.cols * a.cols, "weights of [{}, {}]", a.cols, c.cols);
    if let Matrix::F32(values) = w {
        let w = Mat::new(values, a.cols, c.cols);
        return gemm::nn(c, a, w, 1.0, beta);
    }
    let (rows, cols, stride) = (c.rows, c.cols, c.stride);
    panels(w, cols, |first, panel| {
        let beta = if first == 0 { beta } else { 1.0 };
        let part = Mat::strided(&a.data[first..], a.rows, panel.rows, a.stride);
        gemm::nn(MatMut::strided(&mut *c.data, rows, cols, stride), part, panel, 1.0, beta);
    });
}

thread_local! {
    static UNPACKED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `body(first, W[first..first + count])` for panels of the rows of W, each of `columns` values.
fn panels(w: Matrix, columns: usize, mut body: impl FnMut(usize, Mat)) {
    let rows = w.len() / columns.max(1);
    // Even, so that NF4's pairs of codes stay together, and a multiple of the widest register block.
    let height = (PANEL / columns.max(1)).max(1).next_multiple_of(16);
    // Taken out rather than borrowed: while this thread waits for others, rayon may hand it another product.
    let mut unpacked = UNPACKED.take();
    unpacked.resize(unpacked.len().max(height.min(rows) * columns), 0.0);
    for first in (0..rows).step_by(height) {
        let count = height.min(rows - first);
        let panel = &mut unpacked[..count * columns];
        let per_task = parallel::rows_per_task(count, columns) * columns;
        let tasks = panel.chunks_mut(per_task.max(1)).enumerate();
        parallel::run(tasks, |(task, out)| w.read(first * columns + task * per_task, out));
        body(first, Mat::new(panel, count, columns));
    }
    UNPACKED.set(unpacked);
}
