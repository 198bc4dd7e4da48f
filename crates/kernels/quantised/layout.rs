//! How repacked weights lie in memory.
//!
//! Sixteen rows make a group. For one row of codes of a group, a *row vector* of 64 bytes has 32 bits for each of the
//! sixteen rows, read as two 16-bit words: the codes of two neighbouring columns. A word holds as many codes as fit: four
//! of four bits (of the columns k, k + 2, k + 4, k + 6 from the lowest bits up), or two of eight. Unpacking is a shift and a
//! mask over whole registers, and gives pairs of 16-bit codes for the processor's pair products.
//!
//! ```text
//! span (a block of the file, 32 or 256 columns, of sixteen rows):
//!   scale   16 × f16
//!   min     16 × f16                  types with a minimum
//!   scales  runs × 16 × i8            K types
//!   mins    runs × 16 × i8            K types with a minimum
//!   run     (16 or 32 columns that share a scale), one behind the other:
//!     high  64 bytes                  types of 5 and 6 bits: what is above the low four, 1 or 2 bits a code
//!     low   row vectors of 4 or 8 bits a code
//! ```
//! In `high`, the bits of code i (0 to 3) of row vector j stand at 4·i + bits·j of the word: shifted right once a row
//! vector, they are always at the same places.

use super::Kind;
use super::blocks::Block;
use super::formats::with_format;

/// Rows of a group.
pub(super) const GROUP: usize = 16;

/// Bytes of a row vector.
pub(super) const VECTOR: usize = 4 * GROUP;

/// A row vector, a cache line: it makes the data aligned.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
#[expect(dead_code, reason = "read and written as bytes")]
pub(super) struct Line([u8; VECTOR]);

impl Default for Line {
    fn default() -> Self {
        Self([0; VECTOR])
    }
}

/// Where things lie in a span of one block type.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Columns of a span, and of a run in it.
    pub span: usize,
    pub run: usize,
    /// Bits of a code, of which the lowest four or all eight lie in row vectors.
    pub bits: usize,
    /// Whether there is a minimum, and whether runs have factors of their own.
    pub mins: bool,
    pub factors: bool,
}

impl Layout {
    pub const fn runs(&self) -> usize {
        self.span / self.run
    }

    /// Bits in a row vector.
    const fn low(&self) -> usize {
        if self.bits == 8 { 8 } else { 4 }
    }

    /// Bits in `high`.
    pub const fn high(&self) -> usize {
        self.bits - self.low()
    }

    /// Row vectors of a run, and codes of a row in one word of each.
    pub const fn vectors(&self) -> usize {
        self.run / 2 / self.per_word()
    }

    pub const fn per_word(&self) -> usize {
        16 / self.low()
    }

    /// Offset of the factors on the scales; those on the minimums follow.
    pub const fn factors_at(&self) -> usize {
        2 * GROUP * if self.mins { 2 } else { 1 }
    }

    pub const fn mins_at(&self) -> usize {
        self.factors_at() + self.runs() * GROUP
    }

    /// Offset of a run.
    pub const fn run_at(&self, run: usize) -> usize {
        let kinds = if self.mins { 2 } else { 1 };
        let factors = if self.factors { kinds * self.runs() * GROUP } else { 0 };
        self.factors_at() + factors + run * self.run_bytes()
    }

    /// Offset of the row vectors in a run.
    pub const fn low_at(&self) -> usize {
        if self.high() > 0 { VECTOR } else { 0 }
    }

    const fn run_bytes(&self) -> usize {
        self.low_at() + self.vectors() * VECTOR
    }

    pub const fn bytes(&self) -> usize {
        self.run_at(self.runs())
    }
}

fn of(kind: Kind) -> Layout {
    with_format!(kind, F => F::LAYOUT)
}

/// Lines of a group of rows.
pub(super) fn group_lines(kind: Kind, columns: usize) -> usize {
    let layout = of(kind);
    (columns / layout.span * layout.bytes()).div_ceil(VECTOR)
}

/// Lays rows of a file into whole groups; the rows that the last group lacks stay zero.
pub(super) fn pack(kind: Kind, columns: usize, bytes: &[u8], lines: &mut [Line]) {
    // Compiled for each type: loading is this.
    with_format!(kind, F => rows(F::LAYOUT, kind, columns, bytes, lines));
}

#[inline(always)]
fn rows(layout: Layout, kind: Kind, columns: usize, bytes: &[u8], lines: &mut [Line]) {
    let mut block = Block::default();
    let rows = bytes.chunks_exact(kind.row_bytes(columns));
    for (row, bytes) in rows.enumerate() {
        let group = &mut lines[row / GROUP * group_lines(kind, columns)..];
        // SAFETY: lines are plain bytes, without any between them.
        let group = unsafe { std::slice::from_raw_parts_mut(group.as_mut_ptr().cast::<u8>(), size_of_val(group)) };
        let spans = group.chunks_exact_mut(layout.bytes());
        for (span, bytes) in spans.zip(bytes.chunks_exact(kind.block_bytes())) {
            block.read(kind, bytes);
            lay(&layout, &block, row % GROUP, span);
        }
    }
}

/// Lays the block of one row into the span of its group.
#[inline(always)]
fn lay(layout: &Layout, block: &Block, row: usize, span: &mut [u8]) {
    span[2 * row..][..2].copy_from_slice(&block.scale.to_le_bytes());
    if layout.mins {
        span[2 * (GROUP + row)..][..2].copy_from_slice(&block.min.to_le_bytes());
    }
    for run in 0..layout.runs() {
        if layout.factors {
            span[layout.factors_at() + run * GROUP + row] = block.scales[run];
            if layout.mins {
                span[layout.mins_at() + run * GROUP + row] = block.mins[run];
            }
        }
        let codes = &block.codes[run * layout.run..][..layout.run];
        let low = layout.run_at(run) + layout.low_at() + 4 * row;
        let mut put = |at: usize, pair: u32| span[at..][..4].copy_from_slice(&pair.to_le_bytes());
        if layout.low() == 8 {
            for (vector, &[first, second, third, fourth]) in codes.as_chunks::<4>().0.iter().enumerate() {
                put(low + vector * VECTOR, u32::from_le_bytes([first, third, second, fourth]));
            }
            continue;
        }
        let mut high = 0;
        for (vector, eight) in codes.as_chunks::<8>().0.iter().enumerate() {
            let eight = u64::from_le_bytes(*eight);
            put(low + vector * VECTOR, nibbles(eight));
            high |= nibbles(eight >> 4) << (layout.high() * vector);
        }
        if layout.high() > 0 {
            put(layout.run_at(run) + 4 * row, high);
        }
    }
}

/// The low halves of eight bytes as a pair of words: those of the even bytes in the one, of the odd bytes in the other.
fn nibbles(bytes: u64) -> u32 {
    let bytes = bytes & 0x0f0f_0f0f_0f0f_0f0f;
    let [even, odd, _, _, even_after, odd_after, _, _] = (bytes | bytes >> 12).to_le_bytes();
    u32::from_le_bytes([even, even_after, odd, odd_after])
}
