//! Matrix product with accumulation, in the three orientations that a linear layer needs.
//!
//! For `y = x·Wᵀ` with `W` stored `[out, in]` as in every checkpoint: [`nt`] is the forward pass, [`nn`] gives the input's
//! gradient (`dx = dy·W`), [`tn`] the weight's (`dW += dyᵀ·x`).
//!
//! `C = beta·C + alpha·A·B`, where a `beta` of 0 means that C is written only: it may hold anything, NaN included (BLAS's
//! rule). Sums run in one order for a given shape, whatever the number of threads.

#[cfg(test)]
mod test;

mod cpu;
pub mod cuda;
pub(crate) mod few_rows;
pub(crate) mod tile;
mod transpose;

/// A row-major matrix inside a slice; row `i` starts at `i · stride`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

/// As [`Mat`], to be written.
#[derive(Debug)]
pub struct MatMut<'a> {
    pub data: &'a mut [f32],
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

/// Panics unless the slice holds the matrix.
fn check(len: usize, rows: usize, cols: usize, stride: usize) {
    assert!(stride >= cols, "row stride {stride} below {cols} columns");
    let needed = if rows == 0 { 0 } else { (rows - 1) * stride + cols };
    assert!(len >= needed, "a slice of {len} elements cannot hold [{rows}, {cols}] with row stride {stride}");
}

impl<'a> Mat<'a> {
    /// `[rows, cols]`, rows adjacent.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `[rows, cols]`, row starts `stride` elements apart: some columns of a wider matrix.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(data.len(), rows, cols, stride);
        Self { data, rows, cols, stride }
    }
}

impl<'a> MatMut<'a> {
    /// `[rows, cols]`, rows adjacent.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `[rows, cols]`, row starts `stride` elements apart: some columns of a wider matrix.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(data.len(), rows, cols, stride);
        Self { data, rows, cols, stride }
    }
}

/// `C[m,n] = beta·C + alpha·A[m,k]·B[n,k]ᵀ`
pub fn nt(c: MatMut, a: Mat, b: Mat, alpha: f32, beta: f32) {
    assert!(
        a.cols == b.cols && c.rows == a.rows && c.cols == b.rows,
        "nt: C [{}, {}] of A [{}, {}] and B [{}, {}]",
        c.rows,
        c.cols,
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    cpu::nt(c, a, b, alpha, beta);
}

/// `C[m,n] = beta·C + alpha·A[m,k]·B[k,n]`
pub fn nn(c: MatMut, a: Mat, b: Mat, alpha: f32, beta: f32) {
    assert!(
        a.cols == b.rows && c.rows == a.rows && c.cols == b.cols,
        "nn: C [{}, {}] of A [{}, {}] and B [{}, {}]",
        c.rows,
        c.cols,
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    cpu::nn(c, a, b, alpha, beta);
}

/// `C[m,n] = beta·C + alpha·A[k,m]ᵀ·B[k,n]`
pub fn tn(c: MatMut, a: Mat, b: Mat, alpha: f32, beta: f32) {
    assert!(
        a.rows == b.rows && c.rows == a.cols && c.cols == b.cols,
        "tn: C [{}, {}] of A [{}, {}] and B [{}, {}]",
        c.rows,
        c.cols,
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    cpu::tn(c, a, b, alpha, beta);
}
