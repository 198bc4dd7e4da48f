//! The three orientations over the `gemm` crate; few rows (decoding) go to [`few_rows`].

use super::{Mat, MatMut, few_rows, transpose};
use gemm::Parallelism;

/// Multiply-adds below which one thread is faster than two.
const SERIAL_WORK: usize = 64 * 64 * 64;

/// A matrix operand as the `gemm` crate wants it: pointer, column stride, row stride.
type Operand = (*const f32, isize, isize);

fn plain(matrix: Mat) -> Operand {
    (matrix.data.as_ptr(), 1, matrix.stride as isize)
}

fn transposed(matrix: Mat) -> Operand {
    (matrix.data.as_ptr(), matrix.stride as isize, 1)
}

fn product(c: MatMut, k: usize, a: Operand, b: Operand, alpha: f32, beta: f32) {
    let (m, n) = (c.rows, c.cols);
    if m == 0 || n == 0 {
        return;
    }
    let threads = rayon::current_num_threads();
    let work = m.saturating_mul(n).saturating_mul(k);
    let parallelism = if threads == 1 || work < SERIAL_WORK { Parallelism::None } else { Parallelism::Rayon(threads) };
    // The crate names the factors the other way round: its `alpha` scales the old content, its `beta` the product.
    // SAFETY: `Mat` and `MatMut` have checked that the slices hold the shapes, and the callers that the shapes agree;
    // C is borrowed mutably, so it overlaps neither A nor B.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.data.as_mut_ptr(),
            1,
            c.stride as isize,
            beta != 0.0,
            a.0,
            a.1,
            a.2,
            b.0,
            b.1,
            b.2,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

pub(super) fn nt(c: MatMut, a: Mat, b: Mat, alpha: f32, beta: f32) {
    if a.rows <= few_rows::MOST_ROWS {
        few_rows::nt(c, a, b, alpha, beta);
    } else if a.rows >= transpose::LEAST_ROWS && a.cols >= transpose::LEAST_COLS {
        transpose::panels(b, |first, panel| {
            let columns = MatMut::strided(&mut c.data[first..], c.rows, panel.cols, c.stride);
            product(columns, a.cols, plain(a), plain(panel), alpha, beta);
        });
    } else {
        product(c, a.cols, plain(a), transposed(b), alpha, beta);
    }
}

pub(super) fn nn(c: MatMut, a: Mat, b: Mat, alpha: f32, beta: f32) {
    product(c, a.cols, plain(a), plain(b), alpha, beta);
}

pub(super) fn tn(c: MatMut, a: Mat, b: Mat, alpha: f32, beta: f32) {
    product(c, a.rows, transposed(a), plain(b), alpha, beta);
}
