//! Launches of `kernel.cu`. A row may have 2048 columns, or whole packs up to 8192 (f32) or 16 384 (bf16).

use crate::cuda::{Element, Launch, Pointer, Row, WARP, kernel, narrow, queue};

/// Blocks of the backward pass at most: enough for every card, and few enough for their shares of the weight's gradient.
const BLOCKS: usize = 512;

/// As [`super::forward`].
pub fn forward<T: Element>(
    x: Pointer<T>,
    weight: Pointer<T>,
    eps: f32,
    out: Pointer<T>,
    rstd: Pointer<f32>,
    rows: usize,
    width: usize,
) -> Launch {
    let Row { threads, width } = Row::of::<T>(width);
    let grid = [narrow("rows", rows), 1, 1];
    queue!(kernel!(T, "rms_norm_forward"), grid, threads, 0; x, weight, eps, out, rstd, width)
}

/// As [`super::forward_add`]; the sum is rounded to `T` before it is normalised.
pub fn forward_add<T: Element>(
    residual: Pointer<T>,
    delta: Pointer<T>,
    weight: Pointer<T>,
    eps: f32,
    out: Pointer<T>,
    rstd: Pointer<f32>,
    rows: usize,
    width: usize,
) -> Launch {
    let Row { threads, width } = Row::of::<T>(width);
    let grid = [narrow("rows", rows), 1, 1];
    queue!(kernel!(T, "rms_norm_forward_add"), grid, threads, 0; delta, residual, weight, eps, out, rstd, width)
}

/// Elements of scratch that [`backward`] wants for the weight's gradient.
pub fn backward_scratch(rows: usize, width: usize) -> usize {
    rows.min(BLOCKS) * width
}

/// As [`super::backward`]. For the weight's gradient `scratch` takes each block's share, which [`weight_gradient`] adds up.
pub fn backward<T: Element>(
    d_out: Pointer<T>,
    x: Pointer<T>,
    weight: Pointer<T>,
    rstd: Pointer<f32>,
    d_x: Pointer<T>,
    scratch: Option<Pointer<f32>>,
    rows: usize,
    width: usize,
) -> Launch {
    let Row { threads, width } = Row::of::<T>(width);
    let grid = [narrow("rows", rows.min(BLOCKS)), 1, 1];
    let rows = narrow("rows", rows);
    queue!(kernel!(T, "rms_norm_backward"), grid, threads, 0; d_out, x, weight, rstd, d_x, scratch, rows, width)
}

/// Adds the shares that [`backward`] left in `scratch` to `d_weight` `[h]`.
pub fn weight_gradient<T: Element>(scratch: Pointer<f32>, d_weight: Pointer<T>, rows: usize, width: usize) -> Launch {
    let (parts, width) = (narrow("rows", rows.min(BLOCKS)), narrow("columns", width));
    let grid = [width.div_ceil(WARP), 1, 1];
    queue!(kernel!(T, "rms_norm_weight_gradient"), grid, 8 * WARP, 0; scratch, parts, d_weight, width)
}
