//! What a kernel is called with.

use std::ops::Deref;

use super::{Pointer, Stored};

/// Arguments that a kernel has at most.
pub(super) const MOST: usize = 20;

/// A matrix of bf16 that Hopper's copy engine brings to shared memory by boxes, whose chunks of 16 bytes it swizzles by 128 bytes.
/// emulation/hopper.h has the same; for a card the driver encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TensorMap {
    pub address: u64,
    pub rows: u64,
    pub columns: u64,
    /// Bytes from row to row, a multiple of 16
    pub stride: u64,
    pub box_rows: u32,
    pub box_columns: u32,
}

/// One argument of a kernel, as its signature spells it and as the driver takes it: its bytes at the start of eight, or a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    pub letter: char,
    pub slot: u64,
    pub map: Option<TensorMap>,
}

impl Argument {
    /// Scalars have capital letters.
    pub fn is_pointer(&self) -> bool {
        self.letter.is_ascii_lowercase()
    }
}

impl<T: Stored> From<Pointer<T>> for Argument {
    fn from(pointer: Pointer<T>) -> Self {
        Self { letter: T::LETTER, slot: pointer.address, map: None }
    }
}

/// Null where there is none.
impl<T: Stored> From<Option<Pointer<T>>> for Argument {
    fn from(pointer: Option<Pointer<T>>) -> Self {
        pointer.unwrap_or(Pointer::NULL).into()
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self { letter: 'F', slot: u64::from(value.to_bits()), map: None }
    }
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Self { letter: 'U', slot: u64::from(value), map: None }
    }
}

impl From<u64> for Argument {
    fn from(value: u64) -> Self {
        Self { letter: 'L', slot: value, map: None }
    }
}

impl From<TensorMap> for Argument {
    fn from(map: TensorMap) -> Self {
        Self { letter: 'T', slot: 0, map: Some(map) }
    }
}

/// Arguments in the order of a kernel's signature, 20 at most. They lie in the launch itself, so that none allocates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    list: [Argument; MOST],
    count: usize,
}

impl Arguments {
    pub fn push(&mut self, argument: Argument) {
        self.list[self.count] = argument;
        self.count += 1;
    }
}

impl Extend<Argument> for Arguments {
    fn extend<I: IntoIterator<Item = Argument>>(&mut self, arguments: I) {
        arguments.into_iter().for_each(|argument| self.push(argument));
    }
}

impl FromIterator<Argument> for Arguments {
    fn from_iter<I: IntoIterator<Item = Argument>>(arguments: I) -> Self {
        let mut all = Self::default();
        all.extend(arguments);
        all
    }
}

impl Deref for Arguments {
    type Target = [Argument];

    fn deref(&self) -> &[Argument] {
        &self.list[..self.count]
    }
}
