//! Weights in llama.cpp's block types (GGUF), kept as they are in the file, and the products with them.
//!
//! A block of 32 values (256 in the K types) holds small integer codes, and a scale (and minimum) for each run of 16 or
//! 32 of them: `w = scale · code + minimum`. [`Quantised::read`] gives these values bit for bit as llama.cpp and candle do.
//!
//! [`Kind::quantise`] makes such blocks.
//!
//! [`nt`] computes `y = x·Wᵀ` in integers: each run of 32 activations is rounded to 16 bits against its own largest
//! magnitude (`x ≈ step · q`, |q| ≤ 32767), and
//! `y[r] = Σ over runs: (scale · step) · Σ code·q + minimum · step · Σ q`, the inner sums exact in 32 bits. 16 bits, not
//! the 8 of llama.cpp: products of 16-bit pairs cost the same on AVX2, AVX-512 and simd128, and the result is that of f32
//! activations to about 1e-5 of their magnitude, where 8 bits move the logits of a small model by tenths.
//!
//! The codes are repacked once, at loading, into groups of sixteen rows that lie side by side in the order in which a
//! product reads them ([`layout`]). One token streams them through registers; for several, a panel of rows is widened to
//! 16 bits first and stays in the cache for all of them.
//!
//! [`exact_nt`] leaves the activations as they are and unpacks such a panel to f32: for log-probabilities that are
//! compared, at about two thirds of the speed.

#[cfg(test)]
mod test;

mod activations;
mod blocks;
mod cpu;
mod exact;
mod formats;
mod integer;
mod lanes;
mod layout;
mod quantise;

use crate::gemm::{Mat, MatMut};
use crate::parallel;
use layout::{GROUP, Line};
use std::mem::MaybeUninit;

/// A block type, under ggml's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum Kind {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 8] =
        [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4_K, Self::Q5_K, Self::Q6_K];

    /// Values of a block; rows are whole blocks.
    pub fn block_len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block in a file.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of so many values in a file.
    pub fn row_bytes(self, columns: usize) -> usize {
        columns / self.block_len() * self.block_bytes()
    }
}

/// A matrix `[rows, columns]` of one block type.
#[derive(Clone, Debug)]
pub struct Quantised {
    kind: Kind,
    rows: usize,
    columns: usize,
    data: Vec<Line>,
}

/// Bytes of the file that one task of [`Quantised::pack`] holds at a time, roughly.
const PIECE: usize = 1 << 18;

impl Quantised {
    /// Repacks a matrix. `read(first, bytes)` fills `bytes` with rows of the file, from the row `first` on; it is asked from
    /// several threads, and every row once.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn pack<E: Send>(
        kind: Kind,
        rows: usize,
        columns: usize,
        read: impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        assert!(columns.is_multiple_of(kind.block_len()), "{columns} columns are not whole blocks of {kind:?}");
        let row_bytes = kind.row_bytes(columns);
        let per_group = layout::group_lines(kind, columns);
        let lines = rows.div_ceil(GROUP) * per_group;
        let mut data = Vec::with_capacity(lines);
        let groups = (PIECE / (row_bytes * GROUP).max(1)).max(1);
        let failure = std::sync::Mutex::new(None);
        let pieces = data.spare_capacity_mut()[..lines].chunks_mut((groups * per_group).max(1));
        parallel::run(pieces.enumerate(), |(piece, lines)| {
            // Zeroed here, not before: fresh memory costs as much as the rest, and this is on all threads.
            lines.fill(MaybeUninit::new(Line::default()));
            // SAFETY: by the line above.
            let lines = unsafe { &mut *(std::ptr::from_mut(lines) as *mut [Line]) };
            let first = piece * groups * GROUP;
            let count = (lines.len() / per_group * GROUP).min(rows - first);
            let mut bytes = vec![0; count * row_bytes];
            match read(first, &mut bytes) {
                Ok(()) => layout::pack(kind, columns, &bytes, lines),
                Err(error) => *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error),
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            return Err(error);
        }
        // SAFETY: every task is done, and has written its lines.
        unsafe { data.set_len(lines) };
        Ok(Self { kind, rows, columns, data })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }

    /// Bytes in memory of a matrix of that shape.
    pub fn bytes_of(kind: Kind, rows: usize, columns: usize) -> usize {
        rows.div_ceil(GROUP) * layout::group_lines(kind, columns) * size_of::<Line>()
    }

    /// The values `[start, start + out.len())` of the rows one behind the other.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        assert!(start + out.len() <= self.len(), "values {start}.. of {}", self.len());
        let (mut at, mut rest) = (start, out);
        while !rest.is_empty() {
            let (row, column) = (at / self.columns, at % self.columns);
            let (part, after) = rest.split_at_mut((self.columns - column).min(rest.len()));
            cpu::read(self, row, column, part);
            at += part.len();
            rest = after;
        }
    }

    /// The lines of the group of sixteen rows with that number.
    fn group(&self, group: usize) -> &[Line] {
        let per_group = layout::group_lines(self.kind, self.columns);
        &self.data[group * per_group..][..per_group]
    }

    fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }
}

/// `C[m, n] = beta·C + A[m, k]·Wᵀ`, W the `parts` `[nᵢ, k]` one below the other, which share A's rounding and the threads.
pub fn nt(c: MatMut, a: Mat, parts: &[&Quantised], beta: f32) {
    check(&c, &a, parts);
    cpu::nt::<activations::Activations>(c, a, parts, beta);
}

/// [`nt`] with A as it is, in f32.
pub fn exact_nt(c: MatMut, a: Mat, parts: &[&Quantised], beta: f32) {
    check(&c, &a, parts);
    cpu::nt::<exact::Exact>(c, a, parts, beta);
}

fn check(c: &MatMut, a: &Mat, parts: &[&Quantised]) {
    assert_eq!(c.rows, a.rows, "rows of C and A");
    assert_eq!(parts.iter().map(|part| part.rows).sum::<usize>(), c.cols, "rows of W for the columns of C");
    for part in parts {
        assert_eq!(part.columns, a.cols, "columns of W and A");
    }
}
