//! Activations rounded to 16 bits, in the order in which the products read them.

use crate::gemm::Mat;
use crate::parallel;
use crate::simd::dispatch;

/// Values that share a step.
pub(super) const RUN: usize = 32;

/// The largest code.
const MOST: f32 = 32767.0;

/// 1.5 · 2²³: adding it rounds to an integer, which then stands in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// Tokens that a product works on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// The first token, and how many there are.
    pub first: usize,
    pub tokens: usize,
    /// Places, of which those behind the last token hold zeros.
    pub width: usize,
}

impl Tile {
    /// Fills `tiles` with so many tokens, the widest first, and gives the number of their places. `widths` are those that the
    /// products know, ascending from 1.
    pub fn divide(tiles: &mut Vec<Self>, tokens: usize, widths: &[usize]) -> usize {
        tiles.clear();
        let widest = widths[widths.len() - 1];
        for first in (0..tokens).step_by(widest) {
            let tokens = widest.min(tokens - first);
            let width = widths.iter().copied().find(|&width| width >= tokens).unwrap_or(widest);
            tiles.push(Self { first, tokens, width });
        }
        Self::places(tiles)
    }

    /// Places of all tiles.
    pub fn places(tiles: &[Self]) -> usize {
        tiles.last().map_or(0, |tile| tile.first + tile.width)
    }
}

/// Tokens rounded to 16 bits, tile by tile.
///
/// A tile of w places holds, for each pair of columns, the pairs of its tokens; and for each run of columns their steps
/// (`x ≈ step · code`) and the sums of their rounded values.
#[derive(Default)]
pub(super) struct Activations {
    columns: usize,
    pub tiles: Vec<Tile>,
    codes: Vec<i16>,
    steps: Vec<f32>,
    sums: Vec<f32>,
}

/// Pointers to a tile from some column on.
#[derive(Clone, Copy)]
pub(super) struct TileData {
    pub codes: *const i16,
    pub steps: *const f32,
    pub sums: *const f32,
}

impl Activations {
    /// Rounds the rows of `x`. `widths` are the tile widths that the products know, ascending from 1.
    pub fn round(&mut self, x: Mat, widths: &[usize]) {
        assert!(x.cols.is_multiple_of(RUN), "{} columns are not whole runs of {RUN}", x.cols);
        self.columns = x.cols;
        let widest = widths[widths.len() - 1];
        let places = Tile::divide(&mut self.tiles, x.rows, widths);
        let runs = x.cols / RUN;
        self.codes.resize(places * x.cols, 0);
        self.steps.resize(places * runs, 0.0);
        self.sums.resize(places * runs, 0.0);
        let codes = self.codes.chunks_mut((widest * x.cols).max(1));
        let steps = self.steps.chunks_mut((widest * runs).max(1));
        let sums = self.sums.chunks_mut((widest * runs).max(1));
        parallel::run(self.tiles.iter().zip(codes).zip(steps.zip(sums)), |((tile, codes), (steps, sums))| {
            for place in 0..tile.width {
                let place_of = Place { place, width: tile.width };
                if place < tile.tokens {
                    let x = &x.data[(tile.first + place) * x.stride..][..x.cols];
                    round(x, place_of, codes, steps, sums);
                } else {
                    place_of.clear(codes, steps, sums);
                }
            }
        });
    }

    /// The tile from the run `run` on.
    pub fn tile(&self, tile: Tile, run: usize) -> TileData {
        let (at, runs) = (tile.first * self.columns + run * RUN * tile.width, self.columns / RUN);
        let step = tile.first * runs + run * tile.width;
        TileData {
            codes: self.codes[at..].as_ptr(),
            steps: self.steps[step..].as_ptr(),
            sums: self.sums[step..].as_ptr(),
        }
    }
}

/// One of the places of a tile.
#[derive(Clone, Copy)]
struct Place {
    place: usize,
    width: usize,
}

impl Place {
    fn clear(self, codes: &mut [i16], steps: &mut [f32], sums: &mut [f32]) {
        codes.as_chunks_mut::<2>().0[self.place..].iter_mut().step_by(self.width).for_each(|pair| *pair = [0; 2]);
        for values in [steps, sums] {
            values[self.place..].iter_mut().step_by(self.width).for_each(|value| *value = 0.0);
        }
    }
}

dispatch! {
    fn round(x: &[f32], at: Place, codes: &mut [i16], steps: &mut [f32], sums: &mut [f32]) {
        let (pairs, _) = codes.as_chunks_mut::<2>();
        for (run, x) in x.as_chunks::<RUN>().0.iter().enumerate() {
            // As integers, magnitudes are in the order of the numbers, and infinity and NaN above all: they reach the step.
            let mut most = 0u32;
            for value in x {
                most = most.max(value.to_bits() & 0x7fff_ffff);
            }
            let step = f32::from_bits(most) / MOST;
            let inverse = 1.0 / step;
            // Where the inverse is infinite all values are zero, or too small for f32's normal numbers.
            let inverse = if inverse == f32::INFINITY { 0.0 } else { inverse };
            let mut rounded = [0i16; RUN];
            let mut sum = 0i32;
            for (rounded, value) in rounded.iter_mut().zip(x) {
                let code = (value * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i16;
                *rounded = code;
                sum += i32::from(code);
            }
            steps[run * at.width + at.place] = step;
            sums[run * at.width + at.place] = step * sum as f32;
            for (index, pair) in rounded.as_chunks::<2>().0.iter().enumerate() {
                pairs[(run * RUN / 2 + index) * at.width + at.place] = *pair;
            }
        }
    }
}
