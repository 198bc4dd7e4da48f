//! The products, and the values themselves.

use std::cell::Cell;

use super::Quantised;
use super::activations::{Activations, RUN, Tile, TileData};
use super::formats::{Format, Sink, Wide, with_format};
use super::lanes::{Lanes, Words};
use super::layout::{GROUP, Line, VECTOR};
use crate::gemm::{Mat, MatMut};
use crate::parallel::{self, Shared};
use crate::simd::{self, Vector};

/// Most columns of a panel: a widened group of so many and the codes of a tile stay in the first cache level.
const PANEL: usize = 576;
/// Groups of a task of many tokens, so few that the threads end together.
pub(super) const TASK_GROUPS: usize = 2;
/// Their rows.
pub(super) const TASK_ROWS: usize = TASK_GROUPS * GROUP;

/// How far ahead of one token's products weights are asked for. A core's own prefetching stops at each page.
const AHEAD: usize = 2048;

/// Tasks a thread, so that one that is held up does not hold up the other.
const TASKS: usize = 4;

thread_local! {
    static ACTIVATIONS: Cell<Activations> = Cell::default();
    /// A widened panel, and the sums of a task's rows for all tokens.
    static SCRATCH: Cell<(Vec<Line>, Vec<f32>)> = Cell::default();
}

/// Groups of rows of one part of W.
pub(super) struct Task<'a> {
    pub part: &'a Quantised,
    pub groups: std::ops::Range<usize>,
    /// Column of C of the part's first row.
    pub column: usize,
}

impl<'a> Task<'a> {
    /// All groups of the parts, so many a task.
    pub fn divide(parts: &[&'a Quantised], per_task: usize) -> Vec<Self> {
        let mut tasks = Vec::new();
        let mut column = 0;
        for part in parts {
            for first in (0..part.groups()).step_by(per_task) {
                let groups = first..(first + per_task).min(part.groups());
                tasks.push(Self { part, groups, column });
            }
            column += part.rows;
        }
        tasks
    }
}

/// Where results go.
pub(super) struct Out {
    pub data: Shared,
    pub stride: usize,
    pub beta: f32,
}

impl Out {
    /// Row `token`, columns from `column` on.
    ///
    /// # Safety
    /// No two tasks write the same columns.
    pub unsafe fn write(&self, token: usize, column: usize, sums: &[f32]) {
        // SAFETY: the caller's.
        let to = unsafe { self.data.slice_mut(token * self.stride + column, sums.len()) };
        if self.beta == 0.0 {
            to.copy_from_slice(sums);
        } else {
            for (to, sum) in to.iter_mut().zip(sums) {
                *to = self.beta * *to + sum;
            }
        }
    }
}

pub(super) fn nt(c: MatMut, a: Mat, parts: &[&Quantised], beta: f32) {
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    let tokens = a.rows;
    // Taken out rather than borrowed: while this thread waits for others, rayon may hand it another product.
    let mut activations = ACTIVATIONS.take();
    activations.round(a, tile_widths());
    let out = Out { data: Shared::new(c.data), stride: c.stride, beta };
    let groups: usize = parts.iter().map(|part| part.groups()).sum();
    let per_task = if activations.tiles.len() == 1 {
        parallel::rows_per_task(groups, GROUP * a.cols).div_ceil(TASKS)
    } else {
        TASK_GROUPS
    };
    parallel::run(Task::divide(parts, per_task).into_iter(), |task| {
        // SAFETY: each task has rows of W of its own, so columns of C; the shapes are the caller's, who has checked them.
        with_format!(task.part.kind, F => unsafe { run::<F>(&task, &activations, tokens, &out) });
    });
    ACTIVATIONS.set(activations);
}

/// The widest tile there is.
const WIDEST: usize = 12;

/// Widths of tiles that the products are compiled for, ascending from 1.
pub(super) fn tile_widths() -> &'static [usize] {
    match simd::level() {
        #[cfg(target_arch = "x86_64")]
        simd::Level::Avx512 => &[1, 2, 4, 8, 12],
        #[cfg(target_arch = "x86_64")]
        // Ten sums, two registers of codes, a pair of activations and their product: of sixteen registers.
        simd::Level::Avx2 => &[1, 2, 3, 4, 5],
        simd::Level::Baseline => &[1, 2, 4],
    }
}

/// # Safety
/// Tasks write columns of C of their own; `activations` are of the columns of W.
unsafe fn run<F: Format>(task: &Task, activations: &Activations, tokens: usize, out: &Out) {
    // SAFETY: the level has been detected.
    unsafe {
        match simd::level() {
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 if is_x86_feature_detected!("avx512vnni") => vnni::<F>(task, activations, tokens, out),
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 => avx512::<F>(task, activations, tokens, out),
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx2 => avx2::<F>(task, activations, tokens, out),
            simd::Level::Baseline => rows::<Baseline, F, 2>(task, activations, tokens, out),
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) type Baseline = super::lanes::x86::Xmm;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) type Baseline = super::lanes::wasm::V128;
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
pub(super) type Baseline = Words<4>;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn vnni<F: Format>(task: &Task, activations: &Activations, tokens: usize, out: &Out) {
    unsafe { rows::<super::lanes::x86::Zmm<true>, F, 1>(task, activations, tokens, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
unsafe fn avx512<F: Format>(task: &Task, activations: &Activations, tokens: usize, out: &Out) {
    unsafe { rows::<super::lanes::x86::Zmm<false>, F, 1>(task, activations, tokens, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<F: Format>(task: &Task, activations: &Activations, tokens: usize, out: &Out) {
    unsafe { rows::<super::lanes::x86::Ymm, F, 2>(task, activations, tokens, out) }
}

/// All tokens against the rows of a task, `VECTORS` registers of rows at a time.
#[inline(always)]
unsafe fn rows<L: Lanes, F: Format, const VECTORS: usize>(
    task: &Task,
    activations: &Activations,
    tokens: usize,
    out: &Out,
) {
    unsafe {
        if let [tile] = activations.tiles[..] {
            return one_tile::<L, F, VECTORS>(task, activations, tile, out);
        }
        match (F::RUN, F::MINS) {
            (16, _) => panel::<L, F, Wide<16, false>, VECTORS>(task, activations, tokens, out),
            (_, false) => panel::<L, F, Wide<RUN, false>, VECTORS>(task, activations, tokens, out),
            (_, true) => panel::<L, F, Wide<RUN, true>, VECTORS>(task, activations, tokens, out),
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

/// Many tokens: each group is widened a panel of columns at a time, and the panel is used for all tokens.
#[inline(always)]
unsafe fn panel<L: Lanes, F: Format, W: Widened, const VECTORS: usize>(
    task: &Task,
    activations: &Activations,
    tokens: usize,
    out: &Out,
) {
    unsafe {
        let Task { part, groups, column } = task;
        let (mut wide, mut sums) = SCRATCH.take();
        let whole = part.columns / F::SPAN;
        // Of even width: a narrow last one would be mostly the loading and storing of sums.
        let spans = whole.div_ceil(whole.div_ceil(PANEL / F::SPAN).max(1)).max(1);
        let lines = spans * F::SPAN / W::SPAN * W::BYTES / VECTOR;
        wide.resize(wide.len().max(lines), Line::default());
        let wide_at = wide.as_mut_ptr().cast::<u8>();
        let places = activations.tiles.last().map_or(0, |tile| tile.first + tile.width);
        sums.clear();
        sums.resize(places * TASK_ROWS, 0.0);
        for (index, group) in groups.clone().enumerate() {
            for first in (0..whole).step_by(spans) {
                let count = spans.min(whole - first);
                let from = part.group(group).as_ptr().cast::<u8>().add(first * F::BYTES);
                let mut to = wide_at;
                for span in 0..count {
                    for run in 0..F::SPAN / F::RUN {
                        for lane in (0..GROUP).step_by(VECTORS * L::WIDTH) {
                            W::widen::<L, F, VECTORS>(from.add(span * F::BYTES), run, lane, to);
                        }
                        to = to.add(W::BYTES);
                    }
                }
                for &tile in &activations.tiles {
                    let data = activations.tile(tile, first * F::SPAN / RUN);
                    for lane in (0..GROUP).step_by(VECTORS * L::WIDTH) {
                        let to = sums[tile.first * TASK_ROWS + index * GROUP + lane..].as_mut_ptr();
                        let count = count * F::SPAN / W::SPAN;
                        tile_products::<L, W, VECTORS>(wide_at, count, lane, tile.width, data, to, TASK_ROWS);
                    }
                }
            }
        }
        let row = groups.start * GROUP;
        let rows = (part.rows - row).min(groups.len() * GROUP);
        for token in 0..tokens {
            out.write(token, column + row, &sums[token * TASK_ROWS..][..rows]);
        }
        SCRATCH.set((wide, sums));
    }
}

/// [`Wide`] of any kind.
trait Widened: Format {
    unsafe fn widen<L: Lanes, F: Format, const VECTORS: usize>(span: *const u8, run: usize, lane: usize, to: *mut u8);
}

impl<const RUN: usize, const MINS: bool> Widened for Wide<RUN, MINS> {
    #[inline(always)]
    unsafe fn widen<L: Lanes, F: Format, const VECTORS: usize>(span: *const u8, run: usize, lane: usize, to: *mut u8) {
        unsafe { Self::widen::<L, F, VECTORS>(span, run, lane, to) }
    }
}

#[inline(always)]
unsafe fn tile_products<L: Lanes, F: Format, const VECTORS: usize>(
    from: *const u8,
    spans: usize,
    lane: usize,
    width: usize,
    data: TileData,
    to: *mut f32,
    stride: usize,
) {
    unsafe {
        // Of the widths of `tile_widths`, those of these registers.
        match width {
            1 => products::<L, F, VECTORS, 1>(from, spans, lane, data, to, stride),
            2 => products::<L, F, VECTORS, 2>(from, spans, lane, data, to, stride),
            3 if L::WIDTH == 8 => products::<L, F, VECTORS, 3>(from, spans, lane, data, to, stride),
            4 => products::<L, F, VECTORS, 4>(from, spans, lane, data, to, stride),
            5 if L::WIDTH == 8 => products::<L, F, VECTORS, 5>(from, spans, lane, data, to, stride),
            8 if L::WIDTH == 16 => products::<L, F, VECTORS, 8>(from, spans, lane, data, to, stride),
            12 if L::WIDTH == 16 => products::<L, F, VECTORS, 12>(from, spans, lane, data, to, stride),
            _ => unreachable!("a tile of {width} tokens"),
        }
    }
}

/// Adds the products of `spans` spans of a group with a tile of `TOKENS` to `sums`, token rows `stride` apart.
#[inline(always)]
unsafe fn products<L: Lanes, F: Format, const VECTORS: usize, const TOKENS: usize>(
    span: *const u8,
    spans: usize,
    lane: usize,
    tile: TileData,
    sums: *mut f32,
    stride: usize,
) {
    unsafe {
        let mut totals = [[L::Float::splat(0.0); VECTORS]; TOKENS];
        for token in 0..TOKENS {
            for part in 0..VECTORS {
                totals[token][part] = L::Float::load(sums.add(token * stride + part * L::WIDTH));
            }
        }
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
        for token in 0..TOKENS {
            for part in 0..VECTORS {
                totals[token][part].store(sums.add(token * stride + part * L::WIDTH));
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

/// Values of one row.
pub(super) fn read(matrix: &Quantised, row: usize, column: usize, out: &mut [f32]) {
    // SAFETY: the row is in the group, and the columns in the row: the caller has checked the extent.
    with_format!(matrix.kind, F => unsafe { read_row::<F>(matrix, row, column, out) });
}

unsafe fn read_row<F: Format>(matrix: &Quantised, row: usize, column: usize, out: &mut [f32]) {
    let start = matrix.group(row / GROUP).as_ptr().cast::<u8>();
    let lane = row % GROUP;
    let mut values = [0.0; RUN];
    let mut done = 0;
    while done < out.len() {
        let at = column + done;
        let skip = at % F::RUN;
        // SAFETY: the caller's.
        unsafe {
            let span = start.add(at / F::SPAN * F::BYTES);
            let run = at % F::SPAN / F::RUN;
            let scale = F::scale::<Words<1>>(span, run, lane).0[0];
            let min = F::MINS.then(|| F::min::<Words<1>>(span, run, lane).0[0]);
            let mut sink = Values { scale, min, values: &mut values };
            F::codes::<Words<1>, 1>(span, run, lane, &mut sink);
        }
        let count = (F::RUN - skip).min(out.len() - done);
        out[done..done + count].copy_from_slice(&values[skip..skip + count]);
        done += count;
    }
}

/// Values of a run of one row.
struct Values<'a> {
    scale: f32,
    min: Option<f32>,
    values: &'a mut [f32; RUN],
}

impl Sink<Words<1>, 1> for Values<'_> {
    #[inline(always)]
    unsafe fn take(&mut self, step: usize, [codes]: [Words<1>; 1]) {
        for (value, code) in self.values[2 * step..].iter_mut().zip(codes.pair()) {
            *value = f32::from(code) * self.scale;
            if let Some(min) = self.min {
                *value += min;
            }
        }
    }
}

/// [`nt`] by [`Words`] alone.
#[cfg(test)]
pub(super) fn plain(c: MatMut, a: Mat, matrix: &Quantised) {
    let mut activations = Activations::default();
    activations.round(a, &[1, 2, 4]);
    let (tokens, stride) = (c.rows, c.stride);
    let out = Out { data: Shared::new(c.data), stride, beta: 0.0 };
    for task in Task::divide(&[matrix], TASK_GROUPS) {
        // SAFETY: as in `nt`.
        with_format!(matrix.kind, F => unsafe { rows::<Words<4>, F, 2>(&task, &activations, tokens, &out) });
    }
}
