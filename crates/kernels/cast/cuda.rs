//! Launches of `kernel.cu`.

use crate::cuda::{Bf16, Element, Launch, Pointer, kernel, narrow, queue};

const THREADS: u32 = 256;
/// Elements of a thread.
const RUN: usize = 8;

/// `from` `[len]` as f32.
pub fn to_f32(from: Pointer<Bf16>, to: Pointer<f32>, len: usize) -> Launch {
    let aligned = u32::from(from.address.is_multiple_of(16) && to.address.is_multiple_of(16));
    queue!("cast_f32", flat(len), THREADS, 0; from, to, len as u64, aligned)
}

/// `from` `[len]` as the nearest bf16, ties to even.
pub fn to_bf16(from: Pointer<f32>, to: Pointer<Bf16>, len: usize) -> Launch {
    let aligned = u32::from(from.address.is_multiple_of(16) && to.address.is_multiple_of(16));
    queue!("cast_bf16", flat(len), THREADS, 0; from, to, len as u64, aligned)
}

fn flat(len: usize) -> [u32; 3] {
    [narrow("blocks", len.div_ceil(THREADS as usize * RUN)), 1, 1]
}

/// Rows of an array: where the first begins, and how far apart they are.
#[derive(Clone, Copy, Debug)]
pub struct Rows<T> {
    pub first: Pointer<T>,
    pub stride: usize,
}

/// `to[row] = from[row]` for `rows` rows of `width` elements.
pub fn copy_rows<T: Element>(from: Rows<T>, to: Rows<T>, rows: usize, width: usize) -> Launch {
    move_rows(kernel!(T, "copy_rows"), from, to, rows, width)
}

/// `to[row] += from[row]` for `rows` rows of `width` elements.
pub fn add_rows<T: Element>(from: Rows<T>, to: Rows<T>, rows: usize, width: usize) -> Launch {
    move_rows(kernel!(T, "add_rows"), from, to, rows, width)
}

fn move_rows<T: Element>(kernel: &'static str, from: Rows<T>, to: Rows<T>, rows: usize, width: usize) -> Launch {
    let (from_stride, to_stride) = (narrow("columns", from.stride), narrow("columns", to.stride));
    let width = narrow("columns", width);
    let aligned = [width, from_stride, to_stride].iter().all(|columns| columns.is_multiple_of(T::PACK))
        && from.first.address.is_multiple_of(16)
        && to.first.address.is_multiple_of(16);
    let pack = if aligned { T::PACK } else { 1 };
    let grid = [narrow("rows", rows), width.div_ceil(pack * THREADS), 1];
    queue!(kernel, grid, THREADS, 0; from.first, from_stride, to.first, to_stride, width, u32::from(aligned))
}
