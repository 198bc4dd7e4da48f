//! Launches of `kernel.cu`, and where its input lies.

use super::{BLOCK, NESTED, Nf4, QUANTILES, dynamic_map};
use crate::cuda::{Arena, Device, DeviceError, Element, Launch, Pointer, kernel, narrow, queue};

const THREADS: u32 = 256;
/// Values of a thread.
const RUN: usize = 16;

/// The parts of an [`Nf4`] in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub packed: Pointer<u8>,
    pub absmax: Pointer<u8>,
    pub nested_absmax: Pointer<f32>,
    pub offset: f32,
    /// [`tables`], the same for all.
    pub tables: Pointer<f32>,
}

impl Parts {
    /// Room for `len` values; `name` is for messages.
    pub fn lay(arena: &mut Arena, name: &str, len: usize, tables: Pointer<f32>) -> Self {
        let blocks = len.div_ceil(BLOCK);
        Self {
            packed: arena.part(name, len.div_ceil(2)),
            absmax: arena.part(&format!("{name}, absmax"), blocks),
            nested_absmax: arena.part(&format!("{name}, nested_absmax"), blocks.div_ceil(NESTED)),
            offset: f32::NAN,
            tables,
        }
    }

    /// Copies as many values to the room as it was laid for.
    ///
    /// # Errors
    /// The device's.
    pub fn write(&mut self, device: &dyn Device, values: &Nf4) -> Result<(), DeviceError> {
        let (packed, absmax, nested_absmax, offset) = values.parts();
        self.offset = offset;
        device.upload(packed, self.packed)?;
        device.upload(absmax, self.absmax)?;
        device.upload(nested_absmax, self.nested_absmax)
    }
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
