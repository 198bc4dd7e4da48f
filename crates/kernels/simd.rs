//! Run-time choice of the instruction set, and the few vector primitives that the operations share.
//!
//! [`dispatch!`] compiles a function body once per instruction set, so that LLVM vectorises plain loops for each;
//! reductions keep [`LANES`] partial sums whatever the vector width, so AVX-512 and AVX2 give the same bits.
//! Register-blocked code, which LLVM does not find by itself, is written against [`Vector`].

/// Partial sums of a reduction: one AVX-512 register, two of AVX2, four of NEON or simd128.
pub(crate) const LANES: usize = 16;

/// Partial sums of one reduction.
pub(crate) type Lanes = [f32; LANES];

/// Instruction sets beyond the target's baseline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

/// The best instruction set of the processor we run on. The standard library caches the CPUID answers.
#[inline]
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        #[cfg(test)]
        let (avx512, avx2) = test::allowed();
        #[cfg(not(test))]
        let (avx512, avx2) = (true, true);
        let fma = avx2
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("f16c");
        if fma
            && avx512
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
        {
            return Level::Avx512;
        }
        if fma {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Whether the baseline has a fused multiply-add instruction; where it has none, `f32::mul_add` is a slow library call.
pub(crate) const BASELINE_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Asks for a cache line that is read soon; `from` may point anywhere.
#[inline(always)]
pub(crate) fn prefetch(from: *const u8) {
    // SAFETY: the instruction never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// Compiles a function once per instruction set and calls the best one.
///
/// The body sees `FMA: bool`, a constant for [`mul_add`].
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
            match $crate::simd::level() {
                // SAFETY: `level` has found the features.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                $crate::simd::Level::Baseline => body::<{ $crate::simd::BASELINE_FMA }>($($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;

/// `a · b + c`, fused where the instruction set can.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The sum of the partial sums, pairwise: the order is fixed and the rounding small.
#[inline(always)]
pub(crate) fn sum(lanes: Lanes) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest lane; NaN lanes are passed over.
#[inline(always)]
pub(crate) fn largest(lanes: Lanes) -> f32 {
    lanes.iter().fold(f32::NEG_INFINITY, |best, &value| if value > best { value } else { best })
}

/// Splits off the part that fills whole lanes; the rest has fewer than [`LANES`] elements.
#[inline(always)]
pub(crate) fn split(x: &[f32]) -> (&[Lanes], &[f32]) {
    x.as_chunks::<LANES>()
}

/// `eˣ` within 2 units in the last place, branch-free, so that loops over it vectorise.
///
/// Below −86.9 (results under 1.9e−38, close to the smallest normal number) it is 0; above 88.72 it is infinite;
/// NaN stays NaN. Argument reduction x = n·ln 2 + r with a two-part ln 2, then the degree-6 polynomial of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -86.9;
    const HIGHEST: f32 = 88.722_83;
    /// 1.5 · 2²³: adding it rounds to an integer, which then stands in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > HIGHEST { HIGHEST } else { clamped };
    let shifted = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -0.693_359_4, clamped);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let p = mul_add::<FMA>(1.987_569_1e-4, r, 1.398_2e-3);
    let p = mul_add::<FMA>(p, r, 8.333_452e-3);
    let p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FMA>(p, r, 0.5);
    let p = mul_add::<FMA>(p, r * r, r) + 1.0;
    // 2^(n−1), then doubled: 2^128 itself is not a finite f32, but e^88.7 is.
    let half_scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(126 << 23));
    let value = p * 2.0 * half_scale;
    let value = if x < LOWEST { 0.0 } else { value };
    if x > HIGHEST { f32::INFINITY } else { value }
}

/// A register of `f32`s, for code that must block registers by hand.
///
/// # Safety
/// Every method needs the instruction set of the implementing type; pointers must be valid for `WIDTH` elements.
pub(crate) trait Vector: Copy {
    /// Elements in the register.
    const WIDTH: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// Half-precision numbers.
    unsafe fn halves(from: *const u16) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self · b + c`
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// The sum of the elements.
    unsafe fn sum(self) -> f32;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
    pub(super) unsafe fn widen_avx512(halves: &[u16], out: &mut [f32]) {
        unsafe { super::widen::<__m512>(halves, out) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn widen_avx2(halves: &[u16], out: &mut [f32]) {
        unsafe { super::widen::<__m256>(halves, out) }
    }

    impl Vector for __m512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn halves(from: *const u16) -> Self {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { _mm512_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm512_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe { _mm512_reduce_add_ps(self) }
        }
    }

    impl Vector for __m256 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn halves(from: *const u16) -> Self {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { _mm256_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm256_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }
    }
}

/// Elements without instructions of their own; LLVM finds those of the baseline.
#[derive(Clone, Copy)]
pub(crate) struct Floats<const WIDTH: usize>(pub [f32; WIDTH]);

/// Four elements on the baseline: one register of SSE2, NEON or simd128.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) type Four = Floats<4>;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) type Four = std::arch::wasm32::v128;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use super::Vector;
    use std::arch::wasm32::*;

    /// There is no fused multiply-add in simd128.
    impl Vector for v128 {
        const WIDTH: usize = 4;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            f32x4_splat(value)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { v128_load(from.cast()) }
        }
        /// [`super::half`] on four numbers.
        #[inline(always)]
        unsafe fn halves(from: *const u16) -> Self {
            let bits = unsafe { u32x4_load_extend_u16x4(from) };
            let magnitude = u32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
            let finite = f32x4_mul(magnitude, u32x4_splat((127 + 112) << 23));
            let exponent = v128_and(bits, u32x4_splat(0x7c00));
            let infinite = u32x4_eq(exponent, u32x4_splat(0x7c00));
            let magnitude = v128_bitselect(v128_or(magnitude, u32x4_splat(0x7f80_0000)), finite, infinite);
            v128_or(magnitude, u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16))
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { v128_store(to.cast(), self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            f32x4_add(f32x4_mul(self, b), c)
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            f32x4_mul(self, other)
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            f32x4_add(self, other)
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            let two = f32x4_add(self, i32x4_shuffle::<2, 3, 0, 1>(self, self));
            f32x4_extract_lane::<0>(two) + f32x4_extract_lane::<1>(two)
        }
    }
}

impl<const WIDTH: usize> Vector for Floats<WIDTH> {
    const WIDTH: usize = WIDTH;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Floats([value; WIDTH])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Floats(unsafe { from.cast::<[f32; WIDTH]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn halves(from: *const u16) -> Self {
        let halves = unsafe { from.cast::<[u16; WIDTH]>().read_unaligned() };
        Floats(std::array::from_fn(|lane| half(halves[lane])))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Floats(std::array::from_fn(|lane| mul_add::<BASELINE_FMA>(self.0[lane], b.0[lane], c.0[lane])))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Floats(std::array::from_fn(|lane| self.0[lane] * other.0[lane]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Floats(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
    #[inline(always)]
    unsafe fn sum(mut self) -> f32 {
        let mut width = WIDTH / 2;
        while width > 0 {
            for lane in 0..width {
                self.0[lane] += self.0[lane + width];
            }
            width /= 2;
        }
        self.0[0]
    }
}

/// A half-precision number, without a branch. Shifted to their places in an f32, exponent and mantissa stand for the
/// number times 2⁻¹¹², also where it is subnormal.
#[inline(always)]
fn half(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let magnitude = if bits & 0x7c00 == 0x7c00 { magnitude | 0x7f80_0000 } else { finite };
    f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
}

/// Half-precision numbers as f32.
pub(crate) fn widen_halves(halves: &[u16], out: &mut [f32]) {
    assert_eq!(halves.len(), out.len(), "halves and floats");
    // SAFETY: the level has been detected, and the lengths agree.
    unsafe {
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::widen_avx512(halves, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::widen_avx2(halves, out),
            Level::Baseline => widen::<Four>(halves, out),
        }
    }
}

#[inline(always)]
unsafe fn widen<V: Vector>(halves: &[u16], out: &mut [f32]) {
    let whole = halves.len() / V::WIDTH * V::WIDTH;
    for at in (0..whole).step_by(V::WIDTH) {
        unsafe { V::halves(halves.as_ptr().add(at)).store(out.as_mut_ptr().add(at)) };
    }
    for at in whole..halves.len() {
        out[at] = half(halves[at]);
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use std::process::Command;

    /// Set in a child process of the tests: the best instruction set that it may use.
    const LIMIT: &str = "ZEPHYR_KERNELS_TEST_SIMD";

    /// Whether AVX-512 and AVX2 may be used.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn allowed() -> (bool, bool) {
        static ALLOWED: std::sync::OnceLock<(bool, bool)> = std::sync::OnceLock::new();
        *ALLOWED.get_or_init(|| match std::env::var(LIMIT).as_deref() {
            Ok("baseline") => (false, false),
            Ok("avx2") => (false, true),
            _ => (true, true),
        })
    }

    /// Runs all tests of the crate again below the processor's best instruction set.
    #[test]
    fn every_instruction_set_passes() {
        if std::env::var_os(LIMIT).is_some() {
            return;
        }
        for limit in ["avx2", "baseline"] {
            let program = std::env::current_exe().expect("the test program's path");
            let run = Command::new(program).env(LIMIT, limit).output().expect("the test program starts again");
            assert!(run.status.success(), "{limit}:\n{}", String::from_utf8_lossy(&run.stdout));
        }
    }

    dispatch! {
        fn exponentials(x: &mut [f32]) {
            for x in x {
                *x = exp::<FMA>(*x);
            }
        }
    }

    #[test]
    fn every_half_precision_number() {
        let halves: Vec<u16> = (0..=u16::MAX).chain(0..3).collect();
        let mut floats = vec![0.0; halves.len()];
        widen_halves(&halves, &mut floats);
        for (bits, float) in halves.iter().zip(floats) {
            let expected = half::f16::from_bits(*bits).to_f32();
            for found in [float, super::half(*bits)] {
                assert!(
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                    "{bits:#x}: {found}"
                );
            }
        }
    }

    #[test]
    fn exp_is_within_two_units() {
        let x: Vec<f32> = (0..1_000_000).map(|i| -86.9 + i as f32 * 1.756e-4).collect();
        let (mut fused, mut baseline) = (x.clone(), x.clone());
        exponentials(&mut fused);
        baseline.iter_mut().for_each(|x| *x = exp::<false>(*x));
        for (kind, values) in [("dispatched", &fused), ("unfused", &baseline)] {
            for (x, value) in x.iter().zip(values) {
                let expected = f64::from(*x).exp();
                let unit = f64::from((expected as f32).next_up()) - f64::from(expected as f32);
                let off = (f64::from(*value) - expected).abs() / unit;
                assert!(off <= 2.0, "{kind} exp({x}) = {value}, {off} units from {expected}");
            }
        }
    }

    #[test]
    fn exp_at_the_ends() {
        let mut x = [f32::NEG_INFINITY, f32::MIN, -1000.0, -87.0, 0.0, -0.0, 88.72, 88.73, f32::INFINITY];
        exponentials(&mut x);
        let largest = x[6];
        assert_eq!(x, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, largest, f32::INFINITY, f32::INFINITY]);
        assert!(largest.is_finite() && largest > 3.39e38);
        let mut nan = [f32::NAN; 20];
        exponentials(&mut nan);
        assert!(nan.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn a_sum_of_lanes_is_the_sum() {
        assert_eq!(sum(std::array::from_fn(|lane| lane as f32)), 120.0);
        assert_eq!(largest(std::array::from_fn(|lane| if lane == 3 { f32::NAN } else { lane as f32 })), 15.0);
    }
}
