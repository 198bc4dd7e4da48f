//! `A·Bᵀ` as `A·(Bᵀ)`: the `gemm` crate packs a transposed factor element by element on one thread, which for long sums
//! costs a third of the product. Turning panels of B beforehand, on all threads, leaves it an easy copy.

use super::Mat;
use crate::parallel::{self, Shared};
use crate::simd::dispatch;
use std::cell::Cell;

/// Columns of A and rows of A from which this pays (512 × 576 over 1536 on Zen 4: 200 GFLOP/s instead of 150); below, the
/// crate's own way is as fast or faster.
pub(super) const LEAST_COLS: usize = 1024;
/// See [`LEAST_COLS`].
pub(super) const LEAST_ROWS: usize = 128;

/// Rows of B in a panel: a panel then stays in the second cache level from turning to packing.
const PANEL: usize = 64;

/// Rows and columns of the blocks that are turned at a time: one cache line of B by half a line of the result, so that
/// the lines of a block fit the first cache level even where the row stride maps them onto one set.
const ROWS: usize = 8;
const COLS: usize = 16;

thread_local! {
    static TURNED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `body(first, Bᵀ[:, first..first + count])` for panels of B's rows.
pub(super) fn panels(b: Mat, mut body: impl FnMut(usize, Mat)) {
    // Taken out rather than borrowed: while this thread waits for others, rayon may hand it another product.
    let mut turned = TURNED.take();
    if turned.len() < PANEL * b.cols {
        turned.resize(PANEL * b.cols, 0.0);
    }
    for first in (0..b.rows).step_by(PANEL) {
        let rows = PANEL.min(b.rows - first);
        let panel = Mat::strided(&b.data[first * b.stride..], rows, b.cols, b.stride);
        turn(panel, &mut turned[..rows * b.cols]);
        body(first, Mat::new(&turned[..rows * b.cols], b.cols, rows));
    }
    TURNED.set(turned);
}

/// `to[col, row] = from[row, col]`
fn turn(from: Mat, to: &mut [f32]) {
    let to = Shared::new(to);
    let cols = parallel::rows_per_task(from.cols, from.rows).next_multiple_of(COLS);
    parallel::run((0..from.cols).step_by(cols), |first| {
        let count = cols.min(from.cols - first);
        // SAFETY: a task writes the rows [first, first + count) of the result and no other.
        let to = unsafe { to.slice_mut(first * from.rows, count * from.rows) };
        columns(&from.data[first..], from.stride, from.rows, count, to);
    });
}

dispatch! {
    fn columns(from: &[f32], stride: usize, rows: usize, cols: usize, to: &mut [f32]) {
        for first_row in (0..rows).step_by(ROWS) {
            for first_col in (0..cols).step_by(COLS) {
                let from = &from[first_row * stride + first_col..];
                let to = &mut to[first_col * rows + first_row..];
                if first_row + ROWS <= rows && first_col + COLS <= cols {
                    let mut block = [[0.0; COLS]; ROWS];
                    for (row, values) in block.iter_mut().enumerate() {
                        values.copy_from_slice(&from[row * stride..][..COLS]);
                    }
                    for col in 0..COLS {
                        let line: [f32; ROWS] = std::array::from_fn(|row| block[row][col]);
                        to[col * rows..][..ROWS].copy_from_slice(&line);
                    }
                } else {
                    for row in 0..ROWS.min(rows - first_row) {
                        for col in 0..COLS.min(cols - first_col) {
                            to[col * rows + row] = from[row * stride + col];
                        }
                    }
                }
            }
        }
    }
}
