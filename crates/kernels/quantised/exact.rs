//! The products with the values as f32: nothing is rounded but sums, which add up column by column on every processor.

use std::cell::Cell;
use std::marker::PhantomData;
use std::slice;

use super::Quantised;
use super::activations::Tile;
use super::cpu::{Baseline, Out, TASK_GROUPS, TASK_ROWS, Task, tile_widths};
use super::formats::{Format, Sink, with_format};
use super::lanes::Lanes;
use super::layout::{GROUP, Line};
use crate::gemm::{Mat, MatMut};
use crate::parallel::{self, Shared};
use crate::simd::{self, Vector};

/// Most columns of a panel, but for the K types: the values of a task's groups and a tile's activations stay in the first cache
/// level.
const PANEL: usize = 128;

thread_local! {
    static TILES: Cell<Tiles> = Cell::default();
    /// Values of a panel, column after column, and the sums of a task's rows for all tokens.
    static SCRATCH: Cell<(Vec<Line>, Vec<f32>)> = Cell::default();
}

/// Activations, tile by tile: for each column those of the tile's places.
#[derive(Default)]
struct Tiles {
    columns: usize,
    tiles: Vec<Tile>,
    values: Vec<f32>,
}

impl Tiles {
    fn gather(&mut self, x: Mat, widths: &[usize]) {
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

    /// The tile from some column on.
    fn tile(&self, tile: Tile, column: usize) -> *const f32 {
        self.values[tile.first * self.columns + column * tile.width..].as_ptr()
    }
}

pub(super) fn nt(c: MatMut, a: Mat, parts: &[&Quantised], beta: f32) {
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    let tokens = a.rows;
    // Taken out rather than borrowed: while this thread waits for others, rayon may hand it another product.
    let mut activations = TILES.take();
    activations.gather(a, tile_widths());
    let out = Out { data: Shared::new(c.data), stride: c.stride, beta };
    parallel::run(Task::divide(parts, TASK_GROUPS).into_iter(), |task| {
        // SAFETY: each task has rows of W of its own, so columns of C; the shapes are the caller's, who has checked them.
        with_format!(task.part.kind, F => unsafe { run::<F>(&task, &activations, tokens, &out) });
    });
    TILES.set(activations);
}

/// # Safety
/// Tasks write columns of C of their own; `activations` are of the columns of W.
unsafe fn run<F: Format>(task: &Task, activations: &Tiles, tokens: usize, out: &Out) {
    // SAFETY: the level has been detected.
    unsafe {
        match simd::level() {
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 => avx512::<F>(task, activations, tokens, out),
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx2 => avx2::<F>(task, activations, tokens, out),
            simd::Level::Baseline => rows::<Baseline, F, 2>(task, activations, tokens, out),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
unsafe fn avx512<F: Format>(task: &Task, activations: &Tiles, tokens: usize, out: &Out) {
    unsafe { rows::<super::lanes::x86::Zmm<false>, F, 1>(task, activations, tokens, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<F: Format>(task: &Task, activations: &Tiles, tokens: usize, out: &Out) {
    unsafe { rows::<super::lanes::x86::Ymm, F, 2>(task, activations, tokens, out) }
}

/// All tokens against the rows of a task: a panel of each group is unpacked, and used for all tokens.
#[inline(always)]
unsafe fn rows<L: Lanes, F: Format, const VECTORS: usize>(task: &Task, activations: &Tiles, tokens: usize, out: &Out) {
    unsafe {
        let Task { part, groups, column } = task;
        let (mut values, mut sums) = SCRATCH.take();
        let whole = part.columns / F::SPAN;
        let spans = (PANEL / F::SPAN).max(1);
        let lines = spans * F::SPAN;
        values.resize(values.len().max(lines * TASK_GROUPS), Line::default());
        let values_at = values.as_mut_ptr().cast::<f32>();
        let places = activations.tiles.last().map_or(0, |tile| tile.first + tile.width);
        sums.clear();
        sums.resize(places * TASK_ROWS, 0.0);
        for first in (0..whole).step_by(spans) {
            let count = spans.min(whole - first);
            for (index, group) in groups.clone().enumerate() {
                let from = part.group(group).as_ptr().cast::<u8>().add(first * F::BYTES);
                let mut to = values_at.add(index * lines * GROUP);
                for span in 0..count {
                    for run in 0..F::SPAN / F::RUN {
                        for lane in (0..GROUP).step_by(VECTORS * L::WIDTH) {
                            unpack::<L, F, VECTORS>(from.add(span * F::BYTES), run, lane, to.add(lane));
                        }
                        to = to.add(F::RUN * GROUP);
                    }
                }
            }
            for &tile in &activations.tiles {
                let x = slice::from_raw_parts(activations.tile(tile, first * F::SPAN), count * F::SPAN * tile.width);
                for index in 0..groups.len() {
                    for lane in (0..GROUP).step_by(VECTORS * L::WIDTH) {
                        let from = values_at.add(index * lines * GROUP + lane);
                        let to = sums[tile.first * TASK_ROWS + index * GROUP + lane..].as_mut_ptr();
                        products::<L::Float, VECTORS>(from, tile.width, x, to);
                    }
                }
            }
        }
        let row = groups.start * GROUP;
        let rows = (part.rows - row).min(groups.len() * GROUP);
        for token in 0..tokens {
            out.write(token, column + row, &sums[token * TASK_ROWS..][..rows]);
        }
        SCRATCH.set((values, sums));
    }
}

/// The values of a run, for each column those of the group's rows from `lane` on.
#[inline(always)]
unsafe fn unpack<L: Lanes, F: Format, const VECTORS: usize>(span: *const u8, run: usize, lane: usize, to: *mut f32) {
    unsafe {
        let (mut scales, mut mins) = ([L::Float::splat(0.0); VECTORS], [L::Float::splat(0.0); VECTORS]);
        for part in 0..VECTORS {
            scales[part] = F::scale::<L>(span, run, lane + part * L::WIDTH);
            if F::MINS {
                mins[part] = F::min::<L>(span, run, lane + part * L::WIDTH);
            }
        }
        F::codes::<L, VECTORS>(span, run, lane, &mut Values::<L, F, VECTORS> { scales, mins, to, format: PhantomData });
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

#[inline(always)]
unsafe fn products<V: Vector, const VECTORS: usize>(w: *const f32, width: usize, x: &[f32], to: *mut f32) {
    unsafe {
        // Of the widths of `tile_widths`, those of these registers.
        match width {
            1 => tile_products::<V, VECTORS, 1>(w, x, to),
            2 => tile_products::<V, VECTORS, 2>(w, x, to),
            3 if V::WIDTH == 8 => tile_products::<V, VECTORS, 3>(w, x, to),
            4 => tile_products::<V, VECTORS, 4>(w, x, to),
            5 if V::WIDTH == 8 => tile_products::<V, VECTORS, 5>(w, x, to),
            8 if V::WIDTH == 16 => tile_products::<V, VECTORS, 8>(w, x, to),
            12 if V::WIDTH == 16 => tile_products::<V, VECTORS, 12>(w, x, to),
            _ => unreachable!("a tile of {width} tokens"),
        }
    }
}

/// Adds a panel's products with a tile of `TOKENS`, `x` `[columns, TOKENS]`, to the sums.
#[inline(always)]
unsafe fn tile_products<V: Vector, const VECTORS: usize, const TOKENS: usize>(
    w: *const f32,
    x: &[f32],
    sums: *mut f32,
) {
    unsafe {
        let mut totals = [[V::splat(0.0); VECTORS]; TOKENS];
        for token in 0..TOKENS {
            for part in 0..VECTORS {
                totals[token][part] = V::load(sums.add(token * TASK_ROWS + part * V::WIDTH));
            }
        }
        for (column, x) in x.as_chunks::<TOKENS>().0.iter().enumerate() {
            let mut values = [V::splat(0.0); VECTORS];
            for part in 0..VECTORS {
                values[part] = V::load(w.add(column * GROUP + part * V::WIDTH));
            }
            for token in 0..TOKENS {
                let x = V::splat(x[token]);
                for part in 0..VECTORS {
                    totals[token][part] = values[part].mul_add(x, totals[token][part]);
                }
            }
        }
        for token in 0..TOKENS {
            for part in 0..VECTORS {
                totals[token][part].store(sums.add(token * TASK_ROWS + part * V::WIDTH));
            }
        }
    }
}

/// [`nt`] by the instructions that every processor has.
#[cfg(test)]
pub(super) fn plain(c: MatMut, a: Mat, matrix: &Quantised) {
    let mut activations = Tiles::default();
    activations.gather(a, &[1, 2, 4]);
    let (tokens, stride) = (c.rows, c.stride);
    let out = Out { data: Shared::new(c.data), stride, beta: 0.0 };
    for task in Task::divide(&[matrix], TASK_GROUPS) {
        // SAFETY: as in `nt`.
        with_format!(matrix.kind, F => unsafe { rows::<super::lanes::Words<4>, F, 2>(&task, &activations, tokens, &out) });
    }
}
