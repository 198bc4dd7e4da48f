//! The products with the values as f32: nothing is rounded but sums, which add up column by column on every processor.

use std::cell::Cell;
use std::marker::PhantomData;
use std::thread::LocalKey;

use super::activations::{RUN, Tile};
use super::cpu::{Factor, Out, Task, Tiles, Widened, panel};
use super::formats::{Format, Sink};
use super::lanes::Lanes;
use super::layout::{GROUP, VECTOR};
use crate::gemm::Mat;
use crate::parallel;
use crate::simd::Vector;

thread_local! {
    static KEPT: Cell<Exact> = Cell::default();
}

/// Activations as they are: for each column of a tile those of its places.
#[derive(Default)]
pub(super) struct Exact {
    columns: usize,
    tiles: Vec<Tile>,
    values: Vec<f32>,
}

impl Tiles for Exact {
    type Data = *const f32;

    fn kept() -> &'static LocalKey<Cell<Self>> {
        &KEPT
    }

    fn fill(&mut self, x: Mat, widths: &[usize]) {
        self.columns = x.cols;
        let places = Tile::divide(&mut self.tiles, x.rows, widths);
        self.values.resize(places * x.cols, 0.0);
        let widest = widths[widths.len() - 1];
        let values = self.values.chunks_mut((widest * x.cols).max(1));
        parallel::run(self.tiles.iter().zip(values), |(tile, values)| {
            for place in 0..tile.width {
                let to = values[place..].iter_mut().step_by(tile.width);
                if place < tile.tokens {
                    let from = &x.data[(tile.first + place) * x.stride..][..x.cols];
                    to.zip(from).for_each(|(to, from)| *to = *from);
                } else {
                    to.for_each(|to| *to = 0.0);
                }
            }
        });
    }

    fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    #[inline(always)]
    fn tile(&self, tile: Tile, column: usize) -> *const f32 {
        self.values[tile.first * self.columns + column * tile.width..].as_ptr()
    }

    #[inline(always)]
    unsafe fn rows<L: Lanes, F: Format, const VECTORS: usize>(&self, task: &Task, tokens: usize, out: &Out) {
        unsafe {
            match F::RUN {
                16 => panel::<Self, L, F, Floats<16>, VECTORS>(task, self, tokens, out),
                _ => panel::<Self, L, F, Floats<RUN>, VECTORS>(task, self, tokens, out),
            }
        }
    }
}

/// Values of a run, column after column those of a group's rows.
struct Floats<const RUN: usize>;

impl<const RUN: usize> Widened for Floats<RUN> {
    const PANEL: usize = 256;
    const BYTES: usize = RUN * VECTOR;

    #[inline(always)]
    unsafe fn widen<L: Lanes, F: Format, const VECTORS: usize>(span: *const u8, run: usize, lane: usize, to: *mut u8) {
        unsafe {
            let to = to.cast::<f32>().add(lane);
            let (mut scales, mut mins) = ([L::Float::splat(0.0); VECTORS], [L::Float::splat(0.0); VECTORS]);
            for part in 0..VECTORS {
                scales[part] = F::scale::<L>(span, run, lane + part * L::WIDTH);
                if F::MINS {
                    mins[part] = F::min::<L>(span, run, lane + part * L::WIDTH);
                }
            }
            F::codes::<L, VECTORS>(
                span,
                run,
                lane,
                &mut Values::<L, F, VECTORS> { scales, mins, to, format: PhantomData },
            );
        }
    }
}

impl<const RUN: usize> Factor for Floats<RUN> {
    type Data = *const f32;

    #[inline(always)]
    unsafe fn products<L: Lanes, const VECTORS: usize, const TOKENS: usize>(
        from: *const u8,
        runs: usize,
        lane: usize,
        tile: *const f32,
        totals: &mut [[L::Float; VECTORS]; TOKENS],
    ) {
        unsafe {
            let w = from.cast::<f32>().add(lane);
            for column in 0..runs * RUN {
                let mut values = [L::Float::splat(0.0); VECTORS];
                for part in 0..VECTORS {
                    values[part] = L::Float::load(w.add(column * GROUP + part * L::WIDTH));
                }
                for token in 0..TOKENS {
                    let x = L::Float::splat(*tile.add(column * TOKENS + token));
                    for part in 0..VECTORS {
                        totals[token][part] = values[part].mul_add(x, totals[token][part]);
                    }
                }
            }
        }
    }
}

/// Writes the values of codes.
struct Values<L: Lanes, F, const VECTORS: usize> {
    scales: [L::Float; VECTORS],
    mins: [L::Float; VECTORS],
    to: *mut f32,
    format: PhantomData<F>,
}

impl<L: Lanes, F: Format, const VECTORS: usize> Sink<L, VECTORS> for Values<L, F, VECTORS> {
    #[inline(always)]
    unsafe fn take(&mut self, step: usize, codes: [L; VECTORS]) {
        unsafe {
            // Products with (1, 0) and (0, 1) are the words of a pair.
            for (word, one) in [1, 1 << 16].into_iter().enumerate() {
                for part in 0..VECTORS {
                    let mut value = L::zero().dot(codes[part], L::splat(one)).float().mul(self.scales[part]);
                    if F::MINS {
                        value = value.add(self.mins[part]);
                    }
                    value.store(self.to.add((2 * step + word) * GROUP + part * L::WIDTH));
                }
            }
        }
    }
}
