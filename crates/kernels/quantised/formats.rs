//! How a run of repacked codes is unpacked in registers, for every block type.

use super::lanes::Lanes;
use super::layout::{GROUP, Layout, VECTOR};
use crate::simd::Vector;

/// What is done with the unpacked pairs of a run.
pub(super) trait Sink<L: Lanes, const VECTORS: usize> {
    /// `codes` are those of the columns `2·step` and `2·step + 1`, of as many rows as the registers have lanes.
    unsafe fn take(&mut self, step: usize, codes: [L; VECTORS]);
}

/// A way in which codes lie in memory.
///
/// # Safety
/// `span` points to a whole span, `lane` is the first of `VECTORS · L::WIDTH` rows of its group, and the instruction set is
/// that of `L`.
pub(super) trait Format {
    /// Columns and bytes of a span.
    const SPAN: usize;
    const BYTES: usize;
    /// Columns that share a scale.
    const RUN: usize;
    /// Whether there is a minimum.
    const MINS: bool;

    unsafe fn scale<L: Lanes>(span: *const u8, run: usize, lane: usize) -> L::Float;
    unsafe fn min<L: Lanes>(span: *const u8, run: usize, lane: usize) -> L::Float;
    unsafe fn codes<L: Lanes, const VECTORS: usize>(
        span: *const u8,
        run: usize,
        lane: usize,
        sink: &mut impl Sink<L, VECTORS>,
    );
}

/// An expression for each register of one or two arrays. A loop, not `map`: it is unrolled where the instructions are known.
macro_rules! each {
    ($($array:ident),+ => $body:expr) => {{
        let mut all = [L::zero(); VECTORS];
        for part in 0..VECTORS {
            $(let $array = $array[part];)+
            all[part] = $body;
        }
        all
    }};
}

/// A block type of ggml, repacked ([`super::layout`]). `OFFSET` is what codes are less than their bit patterns.
pub(super) struct Packed<const RUN: usize, const BITS: usize, const OFFSET: i16, const MINS: bool, const FACTORS: bool>;

pub(super) type Q4_0 = Packed<32, 4, 8, false, false>;
pub(super) type Q4_1 = Packed<32, 4, 0, true, false>;
pub(super) type Q5_0 = Packed<32, 5, 16, false, false>;
pub(super) type Q5_1 = Packed<32, 5, 0, true, false>;
pub(super) type Q8_0 = Packed<32, 8, 0, false, false>;
pub(super) type Q4K = Packed<32, 4, 0, true, true>;
pub(super) type Q5K = Packed<32, 5, 0, true, true>;
pub(super) type Q6K = Packed<16, 6, 32, false, true>;

/// Calls `$body` with `$format` as the type for a [`super::Kind`].
macro_rules! with_format {
    ($kind:expr, $format:ident => $body:expr) => {
        match $kind {
            $crate::quantised::Kind::Q4_0 => {
                type $format = $crate::quantised::formats::Q4_0;
                $body
            }
            $crate::quantised::Kind::Q4_1 => {
                type $format = $crate::quantised::formats::Q4_1;
                $body
            }
            $crate::quantised::Kind::Q5_0 => {
                type $format = $crate::quantised::formats::Q5_0;
                $body
            }
            $crate::quantised::Kind::Q5_1 => {
                type $format = $crate::quantised::formats::Q5_1;
                $body
            }
            $crate::quantised::Kind::Q8_0 => {
                type $format = $crate::quantised::formats::Q8_0;
                $body
            }
            $crate::quantised::Kind::Q4_K => {
                type $format = $crate::quantised::formats::Q4K;
                $body
            }
            $crate::quantised::Kind::Q5_K => {
                type $format = $crate::quantised::formats::Q5K;
                $body
            }
            $crate::quantised::Kind::Q6_K => {
                type $format = $crate::quantised::formats::Q6K;
                $body
            }
        }
    };
}
pub(super) use with_format;

impl<const RUN: usize, const BITS: usize, const OFFSET: i16, const MINS: bool, const FACTORS: bool>
    Packed<RUN, BITS, OFFSET, MINS, FACTORS>
{
    pub const LAYOUT: Layout =
        Layout { span: if FACTORS { 256 } else { 32 }, run: RUN, bits: BITS, mins: MINS, factors: FACTORS };
}

impl<const RUN: usize, const BITS: usize, const OFFSET: i16, const MINS: bool, const FACTORS: bool> Format
    for Packed<RUN, BITS, OFFSET, MINS, FACTORS>
{
    const SPAN: usize = Self::LAYOUT.span;
    const BYTES: usize = Self::LAYOUT.bytes();
    const RUN: usize = RUN;
    const MINS: bool = MINS;

    #[inline(always)]
    unsafe fn scale<L: Lanes>(span: *const u8, run: usize, lane: usize) -> L::Float {
        unsafe {
            let scale = L::Float::halves(span.add(2 * lane).cast());
            if !FACTORS {
                return scale;
            }
            scale.mul(L::bytes(span.add(Self::LAYOUT.factors_at() + run * GROUP + lane)))
        }
    }

    #[inline(always)]
    unsafe fn min<L: Lanes>(span: *const u8, run: usize, lane: usize) -> L::Float {
        unsafe {
            let min = L::Float::halves(span.add(2 * (GROUP + lane)).cast());
            if !FACTORS {
                return min;
            }
            // The K types subtract theirs.
            let factor = L::bytes(span.add(Self::LAYOUT.mins_at() + run * GROUP + lane));
            min.mul(factor).mul(L::Float::splat(-1.0))
        }
    }

    #[inline(always)]
    unsafe fn codes<L: Lanes, const VECTORS: usize>(
        span: *const u8,
        run: usize,
        lane: usize,
        sink: &mut impl Sink<L, VECTORS>,
    ) {
        let layout = Self::LAYOUT;
        unsafe {
            let start = span.add(layout.run_at(run) + 4 * lane);
            let mut high = load::<L, VECTORS>(start);
            for vector in 0..layout.vectors() {
                let low = load::<L, VECTORS>(start.add(layout.low_at() + vector * VECTOR));
                let step = vector * layout.per_word();
                if BITS == 8 {
                    sink.take(step, each!(low => low.shl::<8>().sar::<8>()));
                    sink.take(step + 1, each!(low => low.sar::<8>()));
                } else if BITS == 4 && OFFSET == 8 {
                    // Stored less 8 already: the sign is extended.
                    sink.take(step, each!(low => low.shl::<12>().sar::<12>()));
                    sink.take(step + 1, each!(low => low.shl::<8>().sar::<12>()));
                    sink.take(step + 2, each!(low => low.shl::<4>().sar::<12>()));
                    sink.take(step + 3, each!(low => low.sar::<12>()));
                } else if BITS == 4 {
                    let nibble = L::words(15);
                    sink.take(step, each!(low => low.and(nibble)));
                    sink.take(step + 1, each!(low => low.shr::<4>().and(nibble)));
                    sink.take(step + 2, each!(low => low.shr::<8>().and(nibble)));
                    sink.take(step + 3, each!(low => low.shr::<12>()));
                } else {
                    let (nibble, top) = (L::words(15), L::words(((1 << layout.high()) - 1) << 4));
                    let offset = L::words(OFFSET);
                    sink.take(step, each!(low, high => low.and(nibble).or(high.shl::<4>().and(top)).sub(offset)));
                    sink.take(step + 1, each!(low, high => low.shr::<4>().and(nibble).or(high.and(top)).sub(offset)));
                    let third = each!(low, high => low.shr::<8>().and(nibble).or(high.shr::<4>().and(top)).sub(offset));
                    sink.take(step + 2, third);
                    sink.take(step + 3, each!(low, high => low.shr::<12>().or(high.shr::<8>().and(top)).sub(offset)));
                    high = each!(high => if BITS == 5 { high.shr::<1>() } else { high.shr::<2>() });
                }
            }
        }
    }
}

/// Neighbouring registers of a row vector.
#[inline(always)]
unsafe fn load<L: Lanes, const VECTORS: usize>(from: *const u8) -> [L; VECTORS] {
    unsafe {
        let mut registers = [L::zero(); VECTORS];
        for part in 0..VECTORS {
            registers[part] = L::load(from.add(4 * part * L::WIDTH));
        }
        registers
    }
}

/// Codes of 16 bits under f32 scales: what [`super::cpu`] widens a panel of rows to.
pub(super) struct Wide<const RUN: usize, const MINS: bool>;

impl<const RUN: usize, const MINS: bool> Wide<RUN, MINS> {
    const CODES_AT: usize = if MINS { 2 * VECTOR } else { VECTOR };

    /// Widens a run of a group.
    ///
    /// # Safety
    /// As for [`Format`]; `to` points to a whole span of this format.
    #[inline(always)]
    pub unsafe fn widen<L: Lanes, F: Format, const VECTORS: usize>(
        span: *const u8,
        run: usize,
        lane: usize,
        to: *mut u8,
    ) {
        unsafe {
            let to = to.add(4 * lane);
            for part in 0..VECTORS {
                let at = to.add(4 * part * L::WIDTH);
                F::scale::<L>(span, run, lane + part * L::WIDTH).store(at.cast());
                if MINS {
                    F::min::<L>(span, run, lane + part * L::WIDTH).store(at.add(VECTOR).cast());
                }
            }
            F::codes::<L, VECTORS>(span, run, lane, &mut Store(to.add(Self::CODES_AT)));
        }
    }
}

impl<const RUN: usize, const MINS: bool> Format for Wide<RUN, MINS> {
    const SPAN: usize = RUN;
    const BYTES: usize = Self::CODES_AT + RUN / 2 * VECTOR;
    const RUN: usize = RUN;
    const MINS: bool = MINS;

    #[inline(always)]
    unsafe fn scale<L: Lanes>(span: *const u8, _: usize, lane: usize) -> L::Float {
        unsafe { L::Float::load(span.add(4 * lane).cast()) }
    }

    #[inline(always)]
    unsafe fn min<L: Lanes>(span: *const u8, _: usize, lane: usize) -> L::Float {
        unsafe { L::Float::load(span.add(VECTOR + 4 * lane).cast()) }
    }

    #[inline(always)]
    unsafe fn codes<L: Lanes, const VECTORS: usize>(
        span: *const u8,
        _: usize,
        lane: usize,
        sink: &mut impl Sink<L, VECTORS>,
    ) {
        unsafe {
            let start = span.add(Self::CODES_AT + 4 * lane);
            for step in 0..RUN / 2 {
                sink.take(step, load::<L, VECTORS>(start.add(step * VECTOR)));
            }
        }
    }
}

/// Writes pairs of codes, row vector after row vector.
struct Store(*mut u8);

impl<L: Lanes, const VECTORS: usize> Sink<L, VECTORS> for Store {
    #[inline(always)]
    unsafe fn take(&mut self, step: usize, codes: [L; VECTORS]) {
        for (part, codes) in codes.into_iter().enumerate() {
            unsafe { codes.store(self.0.add(step * VECTOR + 4 * part * L::WIDTH)) };
        }
    }
}
