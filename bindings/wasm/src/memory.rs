//! Memory of the instance: it grows up to 4 GiB and never shrinks.

use wasm_bindgen::prelude::wasm_bindgen;

/// Bytes of a page of WebAssembly.
const PAGE: u64 = 1 << 16;

/// The most that 32-bit addresses reach, less what the allocator and the program itself need.
const MOST: u64 = (1 << 32) - (64 << 20);

fn taken() -> u64 {
    core::arch::wasm32::memory_size::<0>() as u64 * PAGE
}

/// Bytes that the instance has taken from the system: the peak of its use.
#[wasm_bindgen(js_name = memoryBytes)]
pub fn memory_bytes() -> f64 {
    taken() as f64
}

/// Bytes that can still be had at the most. What was freed inside counts as taken: it is in pieces.
pub fn left() -> u64 {
    MOST.saturating_sub(taken())
}
