//! Launches of `kernel.cu`.

use super::Mask;
use crate::cuda::{Element, Launch, Pointer, kernel, packs, queue};

/// As [`Mask::apply`], for `x` and `out` `[rows, width]`.
pub fn apply<T: Element>(mask: Mask, x: Pointer<T>, out: Pointer<T>, rows: usize, width: usize) -> Launch {
    launch::<T>(kernel!(T, "dropout_apply"), mask, x, out, rows, width)
}

/// As [`Mask::add`], for `x` and `sum` `[rows, width]`.
pub fn add<T: Element>(mask: Mask, x: Pointer<T>, sum: Pointer<T>, rows: usize, width: usize) -> Launch {
    launch::<T>(kernel!(T, "dropout_add"), mask, x, sum, rows, width)
}

fn launch<T: Element>(
    kernel: &'static str,
    Mask { key, threshold, scale }: Mask,
    x: Pointer<T>,
    to: Pointer<T>,
    rows: usize,
    width: usize,
) -> Launch {
    let (grid, threads, width) = packs::<T>(rows, width);
    queue!(kernel, grid, threads, 0; x, to, width, key, threshold, scale)
}
