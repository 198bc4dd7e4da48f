//! What all products share: how they are divided, and how rows of W are widened for many tokens. And the values themselves.

use std::cell::Cell;
use std::thread::LocalKey;

use super::Quantised;
use super::activations::{RUN, Tile};
use super::formats::{Format, Sink, with_format};
use super::lanes::{Lanes, Words};
use super::layout::{GROUP, Line, VECTOR};
use crate::gemm::{Mat, MatMut};
use crate::parallel::{self, Shared};
use crate::simd::{self, Vector};

/// Groups of a task of many tokens, so few that the threads end together.
pub(super) const TASK_GROUPS: usize = 2;
/// Their rows.
const TASK_ROWS: usize = TASK_GROUPS * GROUP;

thread_local! {
    /// A widened panel, and the sums of a task's rows for all tokens.
    static SCRATCH: Cell<(Vec<Line>, Vec<f32>)> = Cell::default();
}

/// Activations, tile by tile, in the form that one kind of products reads, and these products.
pub(super) trait Tiles: Default + Sync + 'static {
    /// Pointers to a tile from some column on.
    type Data: Copy;

    /// Memory that a thread keeps.
    fn kept() -> &'static LocalKey<Cell<Self>>;

    /// Takes the rows of `x`. `widths` are the tile widths that the products know, ascending from 1.
    fn fill(&mut self, x: Mat, widths: &[usize]);

    fn tiles(&self) -> &[Tile];

    /// The tile from a column on that begins a run.
    fn tile(&self, tile: Tile, column: usize) -> Self::Data;

    /// Groups of a task where W has so many groups and columns.
    fn task_groups(&self, _groups: usize, _columns: usize) -> usize {
        TASK_GROUPS
    }

    /// All tokens against the rows of a task, `VECTORS` registers of rows at a time.
    ///
    /// # Safety
    /// The instruction set is that of `L`; tasks write columns of C of their own, and W has the columns of the activations.
    unsafe fn rows<L: Lanes, F: Format, const VECTORS: usize>(&self, task: &Task, tokens: usize, out: &Out);
}

/// Weights of a group in memory, in a form that can be multiplied with a tile.
pub(super) trait Factor {
    /// [`Tiles::Data`]
    type Data: Copy;

    /// Adds the products of `spans` spans of a group with a tile of `TOKENS` to `totals`.
    ///
    /// # Safety
    /// As for [`Format`], and the tile has the columns of the spans.
    unsafe fn products<L: Lanes, const VECTORS: usize, const TOKENS: usize>(
        from: *const u8,
        spans: usize,
        lane: usize,
        tile: Self::Data,
        totals: &mut [[L::Float; VECTORS]; TOKENS],
    );
}

/// What runs of a group are widened to, once for many tokens. A span of it is such a run.
pub(super) trait Widened: Factor {
    /// Most columns of a panel: its spans and a tile stay in the first cache level.
    const PANEL: usize;
    /// Bytes of a span.
    const BYTES: usize;

    /// Widens a run.
    ///
    /// # Safety
    /// As for [`Format`]; `to` points to a whole span of this form.
    unsafe fn widen<L: Lanes, F: Format, const VECTORS: usize>(span: *const u8, run: usize, lane: usize, to: *mut u8);
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
    fn divide(parts: &[&'a Quantised], per_task: usize) -> Vec<Self> {
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
    data: Shared,
    stride: usize,
    beta: f32,
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

pub(super) fn nt<T: Tiles>(c: MatMut, a: Mat, parts: &[&Quantised], beta: f32) {
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    let tokens = a.rows;
    // Taken out rather than borrowed: while this thread waits for others, rayon may hand it another product.
    let mut tiles = T::kept().take();
    tiles.fill(a, tile_widths());
    let out = Out { data: Shared::new(c.data), stride: c.stride, beta };
    let per_task = tiles.task_groups(parts.iter().map(|part| part.groups()).sum(), a.cols);
    parallel::run(Task::divide(parts, per_task).into_iter(), |task| {
        // SAFETY: each task has rows of W of its own, so columns of C; the shapes are the caller's, who has checked them.
        with_format!(task.part.kind, F => unsafe { run::<T, F>(&task, &tiles, tokens, &out) });
    });
    T::kept().set(tiles);
}

/// The widest tile there is.
pub(super) const WIDEST: usize = 12;

/// Widths of tiles that the products are compiled for, ascending from 1.
fn tile_widths() -> &'static [usize] {
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
/// As for [`Tiles::rows`].
unsafe fn run<T: Tiles, F: Format>(task: &Task, tiles: &T, tokens: usize, out: &Out) {
    // SAFETY: the level has been detected.
    unsafe {
        match simd::level() {
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 if is_x86_feature_detected!("avx512vnni") => vnni::<T, F>(task, tiles, tokens, out),
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 => avx512::<T, F>(task, tiles, tokens, out),
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx2 => avx2::<T, F>(task, tiles, tokens, out),
            simd::Level::Baseline => tiles.rows::<Baseline, F, 2>(task, tokens, out),
        }
    }
}

#[cfg(target_arch = "x86_64")]
type Baseline = super::lanes::x86::Xmm;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
type Baseline = super::lanes::wasm::V128;
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
type Baseline = Words<4>;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn vnni<T: Tiles, F: Format>(task: &Task, tiles: &T, tokens: usize, out: &Out) {
    unsafe { tiles.rows::<super::lanes::x86::Zmm<true>, F, 1>(task, tokens, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
unsafe fn avx512<T: Tiles, F: Format>(task: &Task, tiles: &T, tokens: usize, out: &Out) {
    unsafe { tiles.rows::<super::lanes::x86::Zmm<false>, F, 1>(task, tokens, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<T: Tiles, F: Format>(task: &Task, tiles: &T, tokens: usize, out: &Out) {
    unsafe { tiles.rows::<super::lanes::x86::Ymm, F, 2>(task, tokens, out) }
}

/// Many tokens: each group is widened a panel of columns at a time, and the panel is used for all tokens.
#[inline(always)]
pub(super) unsafe fn panel<T, L, F, W, const VECTORS: usize>(task: &Task, tiles: &T, tokens: usize, out: &Out)
where
    T: Tiles,
    L: Lanes,
    F: Format,
    W: Widened<Data = T::Data>,
{
    unsafe {
        let Task { part, groups, column } = task;
        let (mut wide, mut sums) = SCRATCH.take();
        let whole = part.columns / F::SPAN;
        // Of even width: a narrow last one would be mostly the loading and storing of sums.
        let spans = whole.div_ceil(whole.div_ceil(W::PANEL / F::SPAN).max(1)).max(1);
        let lines = spans * F::SPAN / F::RUN * W::BYTES / VECTOR;
        wide.resize(wide.len().max(lines), Line::default());
        let wide_at = wide.as_mut_ptr().cast::<u8>();
        sums.clear();
        sums.resize(Tile::places(tiles.tiles()) * TASK_ROWS, 0.0);
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
                for &tile in tiles.tiles() {
                    let data = tiles.tile(tile, first * F::SPAN);
                    for lane in (0..GROUP).step_by(VECTORS * L::WIDTH) {
                        let to = sums[tile.first * TASK_ROWS + index * GROUP + lane..].as_mut_ptr();
                        let count = count * F::SPAN / F::RUN;
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

#[inline(always)]
pub(super) unsafe fn tile_products<L: Lanes, W: Factor, const VECTORS: usize>(
    from: *const u8,
    spans: usize,
    lane: usize,
    width: usize,
    data: W::Data,
    to: *mut f32,
    stride: usize,
) {
    unsafe {
        // Of the widths of `tile_widths`, those of these registers.
        match width {
            1 => add_products::<L, W, VECTORS, 1>(from, spans, lane, data, to, stride),
            2 => add_products::<L, W, VECTORS, 2>(from, spans, lane, data, to, stride),
            3 if L::WIDTH == 8 => add_products::<L, W, VECTORS, 3>(from, spans, lane, data, to, stride),
            4 => add_products::<L, W, VECTORS, 4>(from, spans, lane, data, to, stride),
            5 if L::WIDTH == 8 => add_products::<L, W, VECTORS, 5>(from, spans, lane, data, to, stride),
            8 if L::WIDTH == 16 => add_products::<L, W, VECTORS, 8>(from, spans, lane, data, to, stride),
            12 if L::WIDTH == 16 => add_products::<L, W, VECTORS, 12>(from, spans, lane, data, to, stride),
            _ => unreachable!("a tile of {width} tokens"),
        }
    }
}

/// [`Factor::products`] added to `sums`, token rows `stride` apart.
#[inline(always)]
unsafe fn add_products<L: Lanes, W: Factor, const VECTORS: usize, const TOKENS: usize>(
    from: *const u8,
    spans: usize,
    lane: usize,
    data: W::Data,
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
        W::products::<L, VECTORS, TOKENS>(from, spans, lane, data, &mut totals);
        for token in 0..TOKENS {
            for part in 0..VECTORS {
                totals[token][part].store(sums.add(token * stride + part * L::WIDTH));
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
pub(super) fn plain<T: Tiles>(c: MatMut, a: Mat, matrix: &Quantised) {
    let mut tiles = T::default();
    tiles.fill(a, &[1, 2, 4]);
    let (tokens, stride) = (c.rows, c.stride);
    let out = Out { data: Shared::new(c.data), stride, beta: 0.0 };
    for task in Task::divide(&[matrix], TASK_GROUPS) {
        // SAFETY: as in `nt`.
        with_format!(matrix.kind, F => unsafe { tiles.rows::<Words<4>, F, 2>(&task, tokens, &out) });
    }
}
