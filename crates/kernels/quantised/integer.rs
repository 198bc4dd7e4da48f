//! The products with activations of 16 bits: exact integer sums over each run.

use std::cell::Cell;
use std::thread::LocalKey;

use super::activations::{Activations, RUN, Tile, TileData};
use super::cpu::{Factor, Out, TASK_GROUPS, Task, Tiles, WIDEST, Widened, panel, tile_products};
use super::formats::{Format, Sink, Wide};
use super::lanes::Lanes;
use super::layout::{GROUP, VECTOR};
use crate::gemm::Mat;
use crate::parallel;
use crate::simd::{self, Vector};

/// How far ahead of one token's products weights are asked for: a page, as a core's own prefetching stops at the end of each.
const AHEAD: usize = 4096;

/// Tasks a thread where there is one tile, so that one that is held up does not hold up the other.
const TASKS: usize = 4;

thread_local! {
    static KEPT: Cell<Activations> = Cell::default();
}

impl Tiles for Activations {
    type Data = TileData;

    fn kept() -> &'static LocalKey<Cell<Self>> {
        &KEPT
    }

    fn fill(&mut self, x: Mat, widths: &[usize]) {
        self.round(x, widths);
    }

    fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    #[inline(always)]
    fn tile(&self, tile: Tile, column: usize) -> TileData {
        Self::tile(self, tile, column / RUN)
    }

    fn task_groups(&self, groups: usize, columns: usize) -> usize {
        match self.tiles[..] {
            [_] => parallel::rows_per_task(groups, GROUP * columns).div_ceil(TASKS),
            _ => TASK_GROUPS,
        }
    }

    #[inline(always)]
    unsafe fn rows<L: Lanes, F: Format, const VECTORS: usize>(&self, task: &Task, tokens: usize, out: &Out) {
        unsafe {
            if let [tile] = self.tiles[..] {
                return one_tile::<L, F, VECTORS>(task, self, tile, out);
            }
            match (F::RUN, F::MINS) {
                (16, _) => panel::<Self, L, F, Wide<16, false>, VECTORS>(task, self, tokens, out),
                (_, false) => panel::<Self, L, F, Wide<RUN, false>, VECTORS>(task, self, tokens, out),
                (_, true) => panel::<Self, L, F, Wide<RUN, true>, VECTORS>(task, self, tokens, out),
            }
        }
    }
}

/// As many tokens as registers hold: every code is used as it is unpacked, and the weights go by once.
#[inline(always)]
unsafe fn one_tile<L: Lanes, F: Format, const VECTORS: usize>(
    task: &Task,
    activations: &Activations,
    tile: Tile,
    out: &Out,
) {
    unsafe {
        let Task { part, groups, column } = task;
        let data = activations.tile(tile, 0);
        let spans = part.columns / F::SPAN;
        for group in groups.clone() {
            let mut sums = [0.0; GROUP * WIDEST];
            let span = part.group(group).as_ptr().cast();
            for lane in (0..GROUP).step_by(VECTORS * L::WIDTH) {
                let to = sums[lane..].as_mut_ptr();
                tile_products::<L, F, VECTORS>(span, spans, lane, tile.width, data, to, GROUP);
            }
            let first = group * GROUP;
            for token in 0..tile.tokens {
                let sums = &sums[token * GROUP..][..GROUP.min(part.rows - first)];
                out.write(tile.first + token, column + first, sums);
            }
        }
    }
}

impl<const RUN: usize, const MINS: bool> Widened for Wide<RUN, MINS> {
    const PANEL: usize = 576;
    const BYTES: usize = <Self as Format>::BYTES;

    #[inline(always)]
    unsafe fn widen<L: Lanes, F: Format, const VECTORS: usize>(span: *const u8, run: usize, lane: usize, to: *mut u8) {
        unsafe { Self::widen::<L, F, VECTORS>(span, run, lane, to) }
    }
}

impl<F: Format> Factor for F {
    type Data = TileData;

    #[inline(always)]
    unsafe fn products<L: Lanes, const VECTORS: usize, const TOKENS: usize>(
        span: *const u8,
        spans: usize,
        lane: usize,
        tile: TileData,
        totals: &mut [[L::Float; VECTORS]; TOKENS],
    ) {
        unsafe {
            let mut column = 0;
            for index in 0..spans {
                let span = span.add(index * F::BYTES);
                if TOKENS == 1 {
                    (0..F::BYTES).step_by(VECTOR).for_each(|line| simd::prefetch(span.wrapping_add(AHEAD + line)));
                }
                for run in 0..F::SPAN / F::RUN {
                    let mut dots = Dots::<L, VECTORS, TOKENS> {
                        codes: tile.codes.add(column * TOKENS),
                        sums: [[L::zero(); VECTORS]; TOKENS],
                    };
                    F::codes::<L, VECTORS>(span, run, lane, &mut dots);
                    let at = column / RUN * TOKENS;
                    for part in 0..VECTORS {
                        let scale = F::scale::<L>(span, run, lane + part * L::WIDTH);
                        for token in 0..TOKENS {
                            let factor = scale.mul(L::Float::splat(*tile.steps.add(at + token)));
                            totals[token][part] = dots.sums[token][part].float().mul_add(factor, totals[token][part]);
                        }
                        if F::MINS {
                            let min = F::min::<L>(span, run, lane + part * L::WIDTH);
                            for token in 0..TOKENS {
                                let sum = L::Float::splat(*tile.sums.add(at + token));
                                totals[token][part] = min.mul_add(sum, totals[token][part]);
                            }
                        }
                    }
                    column += F::RUN;
                }
            }
        }
    }
}

/// Integer sums of a run.
struct Dots<L, const VECTORS: usize, const TOKENS: usize> {
    codes: *const i16,
    sums: [[L; VECTORS]; TOKENS],
}

impl<L: Lanes, const VECTORS: usize, const TOKENS: usize> Sink<L, VECTORS> for Dots<L, VECTORS, TOKENS> {
    #[inline(always)]
    unsafe fn take(&mut self, step: usize, codes: [L; VECTORS]) {
        unsafe {
            for token in 0..TOKENS {
                let pair = L::splat(self.codes.add(2 * (step * TOKENS + token)).cast::<i32>().read_unaligned());
                for part in 0..VECTORS {
                    self.sums[token][part] = self.sums[token][part].dot(codes[part], pair);
                }
            }
        }
    }
}
