//! Launches of `kernel.cu`.

use super::{BLOCK, QUANTILES, dynamic_map};
use crate::cuda::{Element, Launch, Pointer, kernel, narrow, queue};

const THREADS: u32 = 256;
/// Values of a thread.
const RUN: usize = 16;

/// The parts of an [`Nf4`](super::Nf4) in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub packed: Pointer<u8>,
    pub absmax: Pointer<u8>,
    pub nested_absmax: Pointer<f32>,
    pub offset: f32,
    /// [`tables`], the same for all.
    pub tables: Pointer<f32>,
}

/// The quantiles and the dynamic map, as the kernels take them.
pub fn tables() -> Vec<f32> {
    QUANTILES.iter().chain(dynamic_map()).copied().collect()
}

/// The `count` values from `start` on, which begins a block of 64, to `out`.
pub fn dequantise<T: Element>(parts: &Parts, start: usize, count: usize, out: Pointer<T>) -> Launch {
    assert!(start.is_multiple_of(BLOCK), "value {start} begins no block of {BLOCK}");
    let grid = [narrow("blocks", count.div_ceil(THREADS as usize * RUN)), 1, 1];
    let Parts { packed, absmax, nested_absmax, offset, tables } = *parts;
    queue!(
        kernel!(T, "nf4_dequantise"), grid, THREADS, 0;
        packed, absmax, nested_absmax, offset, tables, start as u64, count as u64, out
    )
}
