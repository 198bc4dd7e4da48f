//! The same operations on a GPU. Each op folder has `kernel.cu` and, in `cuda.rs`, plain functions that say how to launch
//! it: which kernel, on how many threads, with which arguments. They compute nothing and know no driver, so that what
//! runs on the GPU and what the tests run on the CPU ([emulation](../emulation)) is one and the same.
//!
//! **Not yet run on a GPU.** What is known is what `emulated.rs` proves.
//!
//! Common to all kernels:
//! - Tensors are `f32` or `bf16` ([`Element`]); sums are f32 whatever the tensors are.
//! - Pointers are multiples of 16 bytes. Rows whose width is a whole number of 16-byte packs move by packs, others by
//!   elements.
//! - No atomics on floats, and no shape of the grid depends on the card: the same bits on every GPU, except those of
//!   `exp` and of the tensor cores, which generations round differently.
//! - Nothing allocates: scratch memory is an argument, and a function beside the launch tells its size.

mod arena;
mod arguments;
#[cfg(feature = "cuda")]
mod blas;
#[cfg(feature = "cuda")]
mod copies;
mod device;
#[cfg(feature = "cuda")]
pub mod driver;
#[cfg(feature = "cuda")]
pub mod launch;
#[cfg(feature = "cuda")]
mod opened;
#[cfg(all(test, feature = "cuda"))]
mod stand_in;

use std::marker::PhantomData;

pub use arena::{Arena, Part, Reserved};
pub use arguments::{Argument, Arguments, TensorMap};
pub use device::{Device, DeviceError, Fetched, Free, PIECE, open};

/// A number in the upper half of an f32's bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// What lies in device memory.
pub trait Stored: Copy + 'static {
    /// How a kernel's signature spells a pointer to it.
    const LETTER: char;
}

macro_rules! stored {
    ($($type:ty = $letter:literal),*) => { $(impl Stored for $type { const LETTER: char = $letter; })* };
}
stored!(Bf16 = 'b', f32 = 'f', f64 = 'd', u32 = 'u', i16 = 'h', u8 = 'c');

/// The type of activations, weights and gradients.
pub trait Element: Stored + Default + Send + Sync {
    /// Elements in 16 bytes.
    const PACK: u32 = 16 / size_of::<Self>() as u32;

    /// The kernel of this type out of those for f32 and for bf16.
    fn kernel(f32: &'static str, bf16: &'static str) -> &'static str;

    /// The nearest one, ties to even.
    fn from_f32(value: f32) -> Self;

    /// The very number.
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    fn kernel(f32: &'static str, _: &'static str) -> &'static str {
        f32
    }

    fn from_f32(value: f32) -> Self {
        value
    }

    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for Bf16 {
    fn kernel(_: &'static str, bf16: &'static str) -> &'static str {
        bf16
    }

    fn from_f32(value: f32) -> Self {
        Self(crate::matrix::to_bf16(value))
    }

    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// `kernel!(T, "name")`: the kernel `name_f32` or `name_bf16`.
macro_rules! kernel {
    ($type:ty, $name:literal) => {
        <$type as $crate::cuda::Element>::kernel(concat!($name, "_f32"), concat!($name, "_bf16"))
    };
}
pub(crate) use kernel;

/// An address in device memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Pointer<T> {
    pub address: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Pointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

impl<T> Pointer<T> {
    pub const NULL: Self = Self::new(0);

    pub const fn new(address: u64) -> Self {
        Self { address, of: PhantomData }
    }

    /// The element `count` further on.
    pub const fn offset(self, count: usize) -> Self {
        Self::new(self.address + (count * size_of::<T>()) as u64)
    }
}

/// Everything the driver needs to know to run a kernel once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub kernel: &'static str,
    /// Blocks
    pub grid: [u32; 3],
    /// Threads a block, in one dimension
    pub block: u32,
    /// Bytes of dynamic shared memory
    pub shared: u32,
    pub arguments: Arguments,
}

/// `queue!(kernel, grid, block, shared; arguments…)`
macro_rules! queue {
    ($kernel:expr, $grid:expr, $block:expr, $shared:expr; $($argument:expr),* $(,)?) => {
        $crate::cuda::Launch {
            kernel: $kernel,
            grid: $grid,
            block: $block,
            shared: $shared,
            arguments: [$($crate::cuda::Argument::from($argument)),*].into_iter().collect(),
        }
    };
}
pub(crate) use queue;

/// Lanes of a warp.
pub(crate) const WARP: u32 = 32;

/// A size that a kernel takes as 32 bits.
pub(crate) fn narrow(what: &str, size: usize) -> u32 {
    u32::try_from(size).unwrap_or_else(|_| panic!("{size} {what} are more than a kernel can count"))
}

/// Grid, threads and width of a kernel with rows along x and packs of columns along y, a pack a thread.
pub(crate) fn packs<T: Element>(rows: usize, width: usize) -> ([u32; 3], u32, u32) {
    const THREADS: u32 = 256;
    let width = narrow("columns", width);
    let pack = if width.is_multiple_of(T::PACK) { T::PACK } else { 1 };
    ([narrow("rows", rows), width.div_ceil(pack * THREADS), 1], THREADS, width)
}

/// How a row is shared out: each thread holds at most `HELD` packs of it in registers.
pub(crate) struct Row {
    /// Threads of the block that works on the row.
    pub threads: u32,
    pub width: u32,
}

impl Row {
    /// Packs a thread, as in the kernels.
    const HELD: u32 = 4;
    const MOST_THREADS: u32 = 512;

    pub(crate) fn of<T: Element>(width: usize) -> Self {
        let width = narrow("columns", width);
        let pack = if width.is_multiple_of(T::PACK) { T::PACK } else { 1 };
        let threads = width.div_ceil(pack * Self::HELD).next_multiple_of(WARP).max(WARP);
        assert!(
            threads <= Self::MOST_THREADS,
            "a row of {width} is wider than {}",
            Self::MOST_THREADS * pack * Self::HELD
        );
        Self { threads, width }
    }
}
