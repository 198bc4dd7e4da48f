//! NF4 with double quantisation (QLoRA, Dettmers et al. 2023), bit for bit that of bitsandbytes 0.50 on the CPU.
//!
//! Values lie in blocks of 64 that share their largest magnitude (`absmax`). Each is divided by it and stored as the
//! nearest of sixteen quantiles of a normal distribution, two a byte, the first in the high nibble. The `absmax` of 256
//! blocks in turn, less the mean of all, are stored as the nearest of 256 values of the *dynamic* 8-bit type
//! (Dettmers 2016) times their own largest magnitude: 4.127 bits a value in all.
//!
//! `w = quantile[code] · (dynamic[q] · absmax₂ + offset)`, in f32, rounded after each operation.

#[cfg(test)]
mod test;

mod cpu;
pub mod cuda;

/// Values that share an absmax.
pub const BLOCK: usize = 64;
/// Blocks that share an absmax of absmax.
pub const NESTED: usize = 256;

/// The sixteen quantiles, ascending (bitsandbytes' table).
pub const QUANTILES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A flat sequence of values as NF4.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nf4 {
    len: usize,
    /// Two codes a byte.
    packed: Vec<u8>,
    /// One a block.
    absmax: Vec<u8>,
    /// One for 256 blocks.
    nested_absmax: Vec<f32>,
    /// Mean of all blocks' absmax.
    offset: f32,
}

/// Quantises values as they come, so that they are never whole in memory.
#[derive(Debug, Default)]
pub struct Quantiser {
    len: usize,
    packed: Vec<u8>,
    absmax: Vec<f32>,
}

impl Quantiser {
    /// For `len` values in all.
    pub fn with_capacity(len: usize) -> Self {
        let blocks = len.div_ceil(BLOCK);
        Self { len: 0, packed: Vec::with_capacity(len.div_ceil(2)), absmax: Vec::with_capacity(blocks) }
    }

    /// Appends values; all pieces but the last are of whole blocks.
    pub fn push(&mut self, values: &[f32]) {
        assert!(self.len.is_multiple_of(BLOCK), "a piece after one that ended inside a block");
        let (bytes, blocks) = (self.packed.len(), self.absmax.len());
        self.len += values.len();
        self.packed.resize(self.len.div_ceil(2), 0);
        self.absmax.resize(self.len.div_ceil(BLOCK), 0.0);
        cpu::quantise(values, &mut self.packed[bytes..], &mut self.absmax[blocks..]);
    }

    /// The packed codes and each block's absmax, before the second quantisation.
    pub fn single(&self) -> (&[u8], &[f32]) {
        (&self.packed, &self.absmax)
    }

    /// Quantises the absmax too.
    pub fn finish(self) -> Nf4 {
        let Self { len, packed, absmax } = self;
        let sum: f64 = absmax.iter().map(|&value| f64::from(value)).sum();
        let offset = (sum / absmax.len().max(1) as f64) as f32;
        let (absmax, nested_absmax) = cpu::quantise_absmax(&absmax, offset);
        Nf4 { len, packed, absmax, nested_absmax, offset }
    }
}

impl Nf4 {
    /// Quantises all values.
    pub fn quantise(values: &[f32]) -> Self {
        let mut quantiser = Quantiser::with_capacity(values.len());
        quantiser.push(values);
        quantiser.finish()
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of codes and scales.
    pub fn bytes(&self) -> usize {
        self.packed.len() + self.absmax.len() + size_of_val(&self.nested_absmax[..]) + size_of::<f32>()
    }

    /// The values `[start, start + out.len())`.
    pub fn dequantise(&self, start: usize, out: &mut [f32]) {
        assert!(start + out.len() <= self.len, "values {start}.. of {}", self.len);
        cpu::dequantise(self, start, out);
    }

    /// Packed codes, absmax codes, absmax of absmax, offset: as bitsandbytes names them `weight`, `absmax`,
    /// `nested_absmax`, `nested_offset`.
    pub fn parts(&self) -> (&[u8], &[u8], &[f32], f32) {
        (&self.packed, &self.absmax, &self.nested_absmax, self.offset)
    }
}

/// The dynamic 8-bit type: 256 values in [−0.993, 1], ascending.
pub fn dynamic_map() -> &'static [f32; 256] {
    cpu::dynamic_map()
}
