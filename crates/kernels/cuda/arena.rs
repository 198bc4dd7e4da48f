//! Device memory by the piece: a function lays parts one behind the other, first to measure them, then in memory. What is
//! measured and what is used are the same code, so that a plan cannot be wrong.

use std::sync::Arc;

use super::{Device, DeviceError, Pointer, Stored};

/// Addresses are multiples of this, and so much lies idle between two parts: the emulation sees who leaves its own.
const ALIGNMENT: u64 = 256;

/// A named stretch of an arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// Bytes from the start of the arena
    pub offset: u64,
    pub bytes: usize,
    /// Bytes of an element
    pub element: usize,
}

/// Lays parts one behind the other from an address on.
#[derive(Debug, Default)]
pub struct Arena {
    base: u64,
    next: u64,
    parts: Vec<Part>,
}

impl Arena {
    /// Room for `len` elements; `name` is for messages.
    pub fn part<T: Stored>(&mut self, name: &str, len: usize) -> Pointer<T> {
        let (offset, bytes) = (self.next, len * size_of::<T>());
        self.parts.push(Part { name: name.to_owned(), offset, bytes, element: size_of::<T>() });
        self.next = (offset + bytes as u64).next_multiple_of(ALIGNMENT) + ALIGNMENT;
        Pointer::new(self.base + offset)
    }

    /// Bytes of what `lay` lays, with the gaps.
    pub fn measure<R>(lay: impl FnOnce(&mut Self) -> R) -> usize {
        let mut arena = Self::default();
        lay(&mut arena);
        arena.next as usize
    }

    /// Allocates what `lay` lays, as one piece.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]; nothing is allocated then.
    pub fn reserve<R>(
        device: &Arc<dyn Device>,
        what: &str,
        lay: impl Fn(&mut Self) -> R,
    ) -> Result<(Reserved, R), DeviceError> {
        let mut measured = Self::default();
        lay(&mut measured);
        let bytes = measured.next as usize;
        let base = device.allocate(what, bytes, &measured.parts)?;
        let reserved = Reserved { device: device.clone(), base, bytes };
        let placed = lay(&mut Self { base, ..Self::default() });
        Ok((reserved, placed))
    }
}

/// Memory of a device, given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    device: Arc<dyn Device>,
    base: u64,
    bytes: usize,
}

impl Reserved {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.device.free(self.base);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn parts_lie_apart_and_aligned() {
        let lay =
            |arena: &mut Arena| (arena.part::<f32>("a", 3), arena.part::<u8>("b", 256), arena.part::<f64>("c", 0));
        let mut arena = Arena { base: 4096, ..Arena::default() };
        let (a, b, c) = lay(&mut arena);
        assert_eq!((a.address, b.address, c.address), (4096, 4096 + 512, 4096 + 1024));
        assert_eq!(Arena::measure(lay), 1024 + 256);
        let bytes: Vec<usize> = arena.parts.iter().map(|part| part.bytes).collect();
        assert_eq!(bytes, [12, 256, 0]);
    }
}
