//! Launches of `kernel.cu`.

use crate::cuda::{Element, Launch, Pointer, kernel, packs, queue};

/// As [`super::forward`].
pub fn forward<T: Element>(gate_up: Pointer<T>, out: Pointer<T>, rows: usize, width: usize) -> Launch {
    let (grid, threads, width) = packs::<T>(rows, width);
    queue!(kernel!(T, "swiglu_forward"), grid, threads, 0; gate_up, out, width)
}

/// As [`super::backward`].
pub fn backward<T: Element>(d_out: Pointer<T>, gate_up: Pointer<T>, rows: usize, width: usize) -> Launch {
    let (grid, threads, width) = packs::<T>(rows, width);
    queue!(kernel!(T, "swiglu_backward"), grid, threads, 0; d_out, gate_up, width)
}
