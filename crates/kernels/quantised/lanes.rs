//! Registers of 16-bit words in pairs: what the products of codes are written against.

use crate::simd::{Floats, Vector};

/// A register with 32 bits for each row: a pair of 16-bit codes, or the 32-bit sum of their products.
///
/// # Safety
/// Every method needs the instruction set of the implementing type; pointers must be valid for `WIDTH` elements.
pub(super) trait Lanes: Copy {
    /// As many f32.
    type Float: Vector;
    /// Lanes of 32 bits.
    const WIDTH: usize = Self::Float::WIDTH;

    unsafe fn zero() -> Self;
    /// The same pair in all lanes.
    unsafe fn splat(pair: i32) -> Self;
    /// The same word everywhere.
    unsafe fn words(value: i16) -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    /// Words less words; shifts of words to the left, to the right, and to the right with the sign.
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn shl<const BITS: i32>(self) -> Self;
    unsafe fn shr<const BITS: i32>(self) -> Self;
    unsafe fn sar<const BITS: i32>(self) -> Self;
    /// `self + a₀·b₀ + a₁·b₁` in 32 bits.
    unsafe fn dot(self, a: Self, b: Self) -> Self;
    /// The 32-bit sums as f32.
    unsafe fn float(self) -> Self::Float;
    /// Signed bytes as f32.
    unsafe fn bytes(from: *const u8) -> Self::Float;
}

/// Lanes without instructions of their own; LLVM finds those of the baseline.
#[derive(Clone, Copy)]
pub(super) struct Words<const WIDTH: usize>([[i16; 2]; WIDTH]);

impl<const WIDTH: usize> Words<WIDTH> {
    #[inline(always)]
    fn with(mut self, other: Self, operation: impl Fn(i16, i16) -> i16) -> Self {
        for (pair, other) in self.0.iter_mut().zip(&other.0) {
            *pair = [operation(pair[0], other[0]), operation(pair[1], other[1])];
        }
        self
    }
}

impl Words<1> {
    /// The words of the only lane.
    pub fn pair(self) -> [i16; 2] {
        self.0[0]
    }
}

fn sum([low, high]: [i16; 2]) -> i32 {
    i32::from(high) << 16 | i32::from(low as u16)
}

fn pair(sum: i32) -> [i16; 2] {
    [sum as i16, (sum >> 16) as i16]
}

impl<const WIDTH: usize> Lanes for Words<WIDTH> {
    type Float = Floats<WIDTH>;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Words([[0; 2]; WIDTH])
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        Words([pair(value); WIDTH])
    }
    #[inline(always)]
    unsafe fn words(value: i16) -> Self {
        Words([[value; 2]; WIDTH])
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        Words(unsafe { from.cast::<[[i16; 2]; WIDTH]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        unsafe { to.cast::<[[i16; 2]; WIDTH]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        self.with(other, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        self.with(other, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.with(other, i16::wrapping_sub)
    }
    #[inline(always)]
    unsafe fn shl<const BITS: i32>(self) -> Self {
        self.with(self, |word, _| word << BITS)
    }
    #[inline(always)]
    unsafe fn shr<const BITS: i32>(self) -> Self {
        self.with(self, |word, _| (word as u16 >> BITS) as i16)
    }
    #[inline(always)]
    unsafe fn sar<const BITS: i32>(self) -> Self {
        self.with(self, |word, _| word >> BITS)
    }
    #[inline(always)]
    unsafe fn dot(mut self, a: Self, b: Self) -> Self {
        for lane in 0..WIDTH {
            let product = |half: usize| i32::from(a.0[lane][half]) * i32::from(b.0[lane][half]);
            self.0[lane] = pair(sum(self.0[lane]).wrapping_add(product(0).wrapping_add(product(1))));
        }
        self
    }
    #[inline(always)]
    unsafe fn float(self) -> Self::Float {
        Floats(std::array::from_fn(|lane| sum(self.0[lane]) as f32))
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Self::Float {
        Floats(std::array::from_fn(|lane| f32::from(unsafe { from.cast::<i8>().add(lane).read() })))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::Lanes;
    use crate::simd::{Floats, Four};
    use std::arch::x86_64::*;

    /// Sixteen rows. VNNI adds a pair product to a sum in one instruction.
    #[derive(Clone, Copy)]
    pub struct Zmm<const VNNI: bool>(__m512i);

    /// Eight rows.
    #[derive(Clone, Copy)]
    pub struct Ymm(__m256i);

    /// Four rows: what every x86-64 processor has.
    #[derive(Clone, Copy)]
    pub struct Xmm(__m128i);

    /// What the widths have in common but for the letters of the instructions.
    macro_rules! common {
        ($type:ident, $set32:ident, $set16:ident, $zero:ident, $load:ident, $store:ident, $and:ident, $or:ident, $sub:ident) => {
            #[inline(always)]
            unsafe fn zero() -> Self {
                unsafe { $type($zero()) }
            }
            #[inline(always)]
            unsafe fn splat(pair: i32) -> Self {
                unsafe { $type($set32(pair)) }
            }
            #[inline(always)]
            unsafe fn words(value: i16) -> Self {
                unsafe { $type($set16(value)) }
            }
            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                unsafe { $type($load(from.cast())) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                unsafe { $store(to.cast(), self.0) }
            }
            #[inline(always)]
            unsafe fn and(self, other: Self) -> Self {
                unsafe { $type($and(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn or(self, other: Self) -> Self {
                unsafe { $type($or(self.0, other.0)) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                unsafe { $type($sub(self.0, other.0)) }
            }
        };
    }

    impl<const VNNI: bool> Lanes for Zmm<VNNI> {
        type Float = __m512;
        common!(
            Zmm,
            _mm512_set1_epi32,
            _mm512_set1_epi16,
            _mm512_setzero_si512,
            _mm512_loadu_si512,
            _mm512_storeu_si512,
            _mm512_and_si512,
            _mm512_or_si512,
            _mm512_sub_epi16
        );
        // The shifts by an immediate take it as u32; with a constant count these become the same instructions.
        #[inline(always)]
        unsafe fn shl<const BITS: i32>(self) -> Self {
            unsafe { Zmm(_mm512_sll_epi16(self.0, _mm_cvtsi32_si128(BITS))) }
        }
        #[inline(always)]
        unsafe fn shr<const BITS: i32>(self) -> Self {
            unsafe { Zmm(_mm512_srl_epi16(self.0, _mm_cvtsi32_si128(BITS))) }
        }
        #[inline(always)]
        unsafe fn sar<const BITS: i32>(self) -> Self {
            unsafe { Zmm(_mm512_sra_epi16(self.0, _mm_cvtsi32_si128(BITS))) }
        }
        #[inline(always)]
        unsafe fn dot(self, a: Self, b: Self) -> Self {
            unsafe {
                if VNNI {
                    Zmm(_mm512_dpwssd_epi32(self.0, a.0, b.0))
                } else {
                    Zmm(_mm512_add_epi32(self.0, _mm512_madd_epi16(a.0, b.0)))
                }
            }
        }
        #[inline(always)]
        unsafe fn float(self) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(self.0) }
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
        }
    }

    impl Lanes for Ymm {
        type Float = __m256;
        common!(
            Ymm,
            _mm256_set1_epi32,
            _mm256_set1_epi16,
            _mm256_setzero_si256,
            _mm256_loadu_si256,
            _mm256_storeu_si256,
            _mm256_and_si256,
            _mm256_or_si256,
            _mm256_sub_epi16
        );
        #[inline(always)]
        unsafe fn shl<const BITS: i32>(self) -> Self {
            unsafe { Ymm(_mm256_slli_epi16::<BITS>(self.0)) }
        }
        #[inline(always)]
        unsafe fn shr<const BITS: i32>(self) -> Self {
            unsafe { Ymm(_mm256_srli_epi16::<BITS>(self.0)) }
        }
        #[inline(always)]
        unsafe fn sar<const BITS: i32>(self) -> Self {
            unsafe { Ymm(_mm256_srai_epi16::<BITS>(self.0)) }
        }
        #[inline(always)]
        unsafe fn dot(self, a: Self, b: Self) -> Self {
            unsafe { Ymm(_mm256_add_epi32(self.0, _mm256_madd_epi16(a.0, b.0))) }
        }
        #[inline(always)]
        unsafe fn float(self) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(self.0) }
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
        }
    }

    impl Lanes for Xmm {
        type Float = Four;
        common!(
            Xmm,
            _mm_set1_epi32,
            _mm_set1_epi16,
            _mm_setzero_si128,
            _mm_loadu_si128,
            _mm_storeu_si128,
            _mm_and_si128,
            _mm_or_si128,
            _mm_sub_epi16
        );
        #[inline(always)]
        unsafe fn shl<const BITS: i32>(self) -> Self {
            unsafe { Xmm(_mm_slli_epi16::<BITS>(self.0)) }
        }
        #[inline(always)]
        unsafe fn shr<const BITS: i32>(self) -> Self {
            unsafe { Xmm(_mm_srli_epi16::<BITS>(self.0)) }
        }
        #[inline(always)]
        unsafe fn sar<const BITS: i32>(self) -> Self {
            unsafe { Xmm(_mm_srai_epi16::<BITS>(self.0)) }
        }
        #[inline(always)]
        unsafe fn dot(self, a: Self, b: Self) -> Self {
            unsafe { Xmm(_mm_add_epi32(self.0, _mm_madd_epi16(a.0, b.0))) }
        }
        #[inline(always)]
        unsafe fn float(self) -> Four {
            let mut floats = Floats([0.0; 4]);
            unsafe { _mm_storeu_ps(floats.0.as_mut_ptr(), _mm_cvtepi32_ps(self.0)) };
            floats
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> Four {
            Floats(std::array::from_fn(|lane| f32::from(unsafe { from.cast::<i8>().add(lane).read() })))
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) mod wasm {
    use super::Lanes;
    use std::arch::wasm32::*;

    /// Four rows.
    #[derive(Clone, Copy)]
    pub struct V128(v128);

    impl Lanes for V128 {
        type Float = v128;
        #[inline(always)]
        unsafe fn zero() -> Self {
            V128(i32x4_splat(0))
        }
        #[inline(always)]
        unsafe fn splat(pair: i32) -> Self {
            V128(i32x4_splat(pair))
        }
        #[inline(always)]
        unsafe fn words(value: i16) -> Self {
            V128(i16x8_splat(value))
        }
        #[inline(always)]
        unsafe fn load(from: *const u8) -> Self {
            V128(unsafe { v128_load(from.cast()) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut u8) {
            unsafe { v128_store(to.cast(), self.0) }
        }
        #[inline(always)]
        unsafe fn and(self, other: Self) -> Self {
            V128(v128_and(self.0, other.0))
        }
        #[inline(always)]
        unsafe fn or(self, other: Self) -> Self {
            V128(v128_or(self.0, other.0))
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            V128(i16x8_sub(self.0, other.0))
        }
        #[inline(always)]
        unsafe fn shl<const BITS: i32>(self) -> Self {
            V128(i16x8_shl(self.0, BITS as u32))
        }
        #[inline(always)]
        unsafe fn shr<const BITS: i32>(self) -> Self {
            V128(u16x8_shr(self.0, BITS as u32))
        }
        #[inline(always)]
        unsafe fn sar<const BITS: i32>(self) -> Self {
            V128(i16x8_shr(self.0, BITS as u32))
        }
        #[inline(always)]
        unsafe fn dot(self, a: Self, b: Self) -> Self {
            V128(i32x4_add(self.0, i32x4_dot_i16x8(a.0, b.0)))
        }
        #[inline(always)]
        unsafe fn float(self) -> v128 {
            f32x4_convert_i32x4(self.0)
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> v128 {
            let four = unsafe { v128_load32_zero(from.cast()) };
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(four)))
        }
    }
}
