//! Launches of `kernel.cu`. Several arrays are measured together by giving each its own stretch of the shares.

use crate::cuda::{Element, Launch, Pointer, kernel, narrow, queue};

const THREADS: u32 = 256;
const RUN: usize = 8;
const MOST_BLOCKS: usize = 1024;

/// Shares that [`shares`] writes for `len` elements.
pub fn share_count(len: usize) -> usize {
    len.div_ceil(THREADS as usize * RUN).clamp(1, MOST_BLOCKS)
}

/// Parts of `Σ x²`, in f64: `shares` `[share_count(len)]`.
pub fn shares<T: Element>(x: Pointer<T>, len: usize, shares: Pointer<f64>) -> Launch {
    let aligned = u32::from(x.address.is_multiple_of(16));
    let grid = [narrow("blocks", share_count(len)), 1, 1];
    queue!(kernel!(T, "norm_shares"), grid, THREADS, 0; x, len as u64, aligned, shares)
}

/// Writes the norm of the gradients times `scale` to `norm` `[1]`, and to `grad_scale` `[1]` the factor that clips them to
/// `max_norm`: `scale · min(1, max_norm / (norm + 1e-6))`, not a finite number if the norm is none. No host waits for it.
pub fn clip(
    shares: Pointer<f64>,
    count: usize,
    scale: f32,
    max_norm: Option<f32>,
    grad_scale: Pointer<f32>,
    norm: Pointer<f32>,
) -> Launch {
    let (count, most) = (narrow("shares", count), max_norm.unwrap_or(f32::INFINITY));
    queue!("norm_clip", [1, 1, 1], THREADS, 0; shares, count, scale, most, grad_scale, norm)
}
