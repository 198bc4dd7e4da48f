//! Launches of `kernel.cu`.

use crate::cuda::{Element, Launch, Pointer, kernel, narrow, queue};

const THREADS: u32 = 256;

/// As [`super::forward`].
pub fn forward<T: Element>(gate_up: Pointer<T>, out: Pointer<T>, rows: usize, width: usize) -> Launch {
    queue!(kernel!(T, "swiglu_forward"), grid::<T>(rows, width), THREADS, 0; gate_up, out, narrow("columns", width))
}

/// As [`super::backward`].
pub fn backward<T: Element>(d_out: Pointer<T>, gate_up: Pointer<T>, rows: usize, width: usize) -> Launch {
    queue!(kernel!(T, "swiglu_backward"), grid::<T>(rows, width), THREADS, 0; d_out, gate_up, narrow("columns", width))
}

fn grid<T: Element>(rows: usize, width: usize) -> [u32; 3] {
    let width = narrow("columns", width);
    let pack = if width.is_multiple_of(T::PACK) { T::PACK } else { 1 };
    [narrow("rows", rows), width.div_ceil(pack * THREADS), 1]
}
