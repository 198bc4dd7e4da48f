//! The blocks of ggml (`ggml-common.h`, `ggml-quants.c`), taken apart.

use super::Kind;

/// The longest block.
pub(super) const LONGEST: usize = 256;

/// A block taken apart: what [`super::layout`] lays down for one row.
pub(super) struct Block {
    /// In order of the values, as bit patterns of the type's width; those of Q4_0 less 8, in two's complement.
    pub codes: [u8; LONGEST],
    /// Half-precision bits of scale and minimum.
    pub scale: u16,
    pub min: u16,
    /// Factors of the K types on the scale of each run (signed in Q6_K), and on the minimum.
    pub scales: [u8; 16],
    pub mins: [u8; 8],
}

impl Default for Block {
    fn default() -> Self {
        Self { codes: [0; LONGEST], scale: 0, min: 0, scales: [0; 16], mins: [0; 8] }
    }
}

impl Block {
    /// Takes the bytes of a block apart.
    #[inline(always)]
    pub fn read(&mut self, kind: Kind, bytes: &[u8]) {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        self.scale = if kind == Kind::Q6_K { half(208) } else { half(0) };
        match kind {
            Kind::Q4_0 => {
                self.nibbles(&bytes[2..]);
                self.codes[..32].iter_mut().for_each(|code| *code ^= 8);
            }
            Kind::Q4_1 => {
                self.min = half(2);
                self.nibbles(&bytes[4..]);
            }
            Kind::Q5_0 => {
                self.nibbles(&bytes[6..]);
                self.fifth_bits(&bytes[2..6]);
            }
            Kind::Q5_1 => {
                self.min = half(2);
                self.nibbles(&bytes[8..]);
                self.fifth_bits(&bytes[4..8]);
            }
            Kind::Q8_0 => self.codes[..32].copy_from_slice(&bytes[2..34]),
            Kind::Q4_K => {
                self.min = half(2);
                self.six_bit_factors(&bytes[4..16]);
                self.paired_runs(&bytes[16..144]);
            }
            Kind::Q5_K => {
                self.min = half(2);
                self.six_bit_factors(&bytes[4..16]);
                self.paired_runs(&bytes[48..176]);
                for (index, code) in self.codes.iter_mut().enumerate() {
                    *code |= (bytes[16 + index % 32] >> (index / 32) & 1) << 4;
                }
            }
            Kind::Q6_K => {
                self.scales.copy_from_slice(&bytes[192..208]);
                for (index, code) in self.codes.iter_mut().enumerate() {
                    let (half, quarter, at) = (index / 128, index / 32 % 4, index % 32);
                    let low = bytes[64 * half + 32 * (quarter % 2) + at] >> (4 * (quarter / 2)) & 15;
                    let high = bytes[128 + 32 * half + at] >> (2 * quarter) & 3;
                    *code = low | high << 4;
                }
            }
        }
    }

    /// Puts a block together: what [`Self::read`] takes apart.
    pub fn write(&self, kind: Kind, bytes: &mut [u8]) {
        let at = if kind == Kind::Q6_K { 208 } else { 0 };
        bytes[at..at + 2].copy_from_slice(&self.scale.to_le_bytes());
        if matches!(kind, Kind::Q4_1 | Kind::Q5_1 | Kind::Q4_K | Kind::Q5_K) {
            bytes[2..4].copy_from_slice(&self.min.to_le_bytes());
        }
        match kind {
            Kind::Q4_0 => self.write_nibbles(8, &mut bytes[2..]),
            Kind::Q4_1 => self.write_nibbles(0, &mut bytes[4..]),
            Kind::Q5_0 => {
                self.write_fifth_bits(&mut bytes[2..6]);
                self.write_nibbles(0, &mut bytes[6..]);
            }
            Kind::Q5_1 => {
                self.write_fifth_bits(&mut bytes[4..8]);
                self.write_nibbles(0, &mut bytes[8..]);
            }
            Kind::Q8_0 => bytes[2..34].copy_from_slice(&self.codes[..32]),
            Kind::Q4_K => {
                self.write_six_bit_factors(&mut bytes[4..16]);
                self.write_paired_runs(&mut bytes[16..144]);
            }
            Kind::Q5_K => {
                self.write_six_bit_factors(&mut bytes[4..16]);
                self.write_paired_runs(&mut bytes[48..176]);
                bytes[16..48].fill(0);
                for (index, code) in self.codes.iter().enumerate() {
                    bytes[16 + index % 32] |= (code >> 4 & 1) << (index / 32);
                }
            }
            Kind::Q6_K => {
                bytes[..192].fill(0);
                bytes[192..208].copy_from_slice(&self.scales);
                for (index, code) in self.codes.iter().enumerate() {
                    let (half, quarter, at) = (index / 128, index / 32 % 4, index % 32);
                    bytes[64 * half + 32 * (quarter % 2) + at] |= (code & 15) << (4 * (quarter / 2));
                    bytes[128 + 32 * half + at] |= (code >> 4 & 3) << (2 * quarter);
                }
            }
        }
    }

    /// The lower halves of 16 bytes, then the upper ones.
    fn nibbles(&mut self, bytes: &[u8]) {
        let (low, high) = self.codes[..32].split_at_mut(16);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[..16]) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }

    /// One bit a code on top of four.
    fn fifth_bits(&mut self, bytes: &[u8]) {
        for (at, code) in self.codes[..32].iter_mut().enumerate() {
            *code |= (bytes[at / 8] >> (at % 8) & 1) << 4;
        }
    }

    /// Runs of 32, two to 32 bytes: the lower halves, then the upper ones.
    fn paired_runs(&mut self, bytes: &[u8]) {
        for (index, code) in self.codes.iter_mut().enumerate() {
            let (run, at) = (index / 32, index % 32);
            *code = bytes[32 * (run / 2) + at] >> (4 * (run % 2)) & 15;
        }
    }

    /// Eight factors for scales and eight for minimums, six bits each in twelve bytes.
    fn six_bit_factors(&mut self, bytes: &[u8]) {
        for run in 0..8 {
            (self.scales[run], self.mins[run]) = if run < 4 {
                (bytes[run] & 63, bytes[run + 4] & 63)
            } else {
                (bytes[run + 4] & 15 | bytes[run - 4] >> 6 << 4, bytes[run + 4] >> 4 | bytes[run] >> 6 << 4)
            };
        }
    }

    /// `flip`: bits that the file has the other way round.
    fn write_nibbles(&self, flip: u8, bytes: &mut [u8]) {
        for at in 0..16 {
            bytes[at] = (self.codes[at] ^ flip) & 15 | (self.codes[at + 16] ^ flip) << 4;
        }
    }

    fn write_fifth_bits(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        for (at, code) in self.codes[..32].iter().enumerate() {
            bytes[at / 8] |= (code >> 4 & 1) << (at % 8);
        }
    }

    fn write_paired_runs(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        for (index, code) in self.codes.iter().enumerate() {
            let (run, at) = (index / 32, index % 32);
            bytes[32 * (run / 2) + at] |= (code & 15) << (4 * (run % 2));
        }
    }

    fn write_six_bit_factors(&self, bytes: &mut [u8]) {
        for run in 0..4 {
            let (scale, min) = (self.scales[run + 4], self.mins[run + 4]);
            bytes[run] = self.scales[run] | scale >> 4 << 6;
            bytes[run + 4] = self.mins[run] | min >> 4 << 6;
            bytes[run + 8] = scale & 15 | min << 4;
        }
    }
}
