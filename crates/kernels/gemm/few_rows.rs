//! `A·Bᵀ` for few rows of A, as in decoding: every element of B is read once, so memory sets the pace, and packing B for a
//! blocked product would double the traffic. Dot products over four rows of B at a time, the rows of B divided over the pool.

use super::{Mat, MatMut};
use crate::parallel::{self, Shared};
use crate::simd::{self, Vector};

/// Rows of A up to which this beats the blocked product (by a fifth at 32 on Zen 4, by more below).
pub(super) const MOST_ROWS: usize = 32;

/// Rows of B per register block.
const B_ROWS: usize = 4;

pub(super) fn nt(c: MatMut, a: Mat, b: Mat, alpha: f32, beta: f32) {
    let rows = parallel::rows_per_task(b.rows, b.cols).next_multiple_of(B_ROWS);
    let out = Out { data: Shared::new(c.data), stride: c.stride, alpha, beta };
    // SAFETY: the callers of this module have checked the shapes; tasks write columns of their own.
    parallel::run((0..b.rows).step_by(rows), |first| unsafe { range(a, b, first, b.rows.min(first + rows), &out) });
}

/// `C = alpha·A·Bᵀ` on the calling thread.
pub(crate) fn nt_serial(c: MatMut, a: Mat, b: Mat, alpha: f32) {
    assert!(a.cols == b.cols && c.rows == a.rows && c.cols == b.rows, "shapes of a product");
    let out = Out { data: Shared::new(c.data), stride: c.stride, alpha, beta: 0.0 };
    // SAFETY: shapes checked above, one writer.
    unsafe { range(a, b, 0, b.rows, &out) };
}

/// Columns `[first, last)` of C.
unsafe fn range(a: Mat, b: Mat, first: usize, last: usize, out: &Out) {
    // SAFETY: the level has been detected; the shapes are the caller's promise.
    unsafe {
        match simd::level() {
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 => avx512(a, b, first, last, out),
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx2 => avx2(a, b, first, last, out),
            simd::Level::Baseline => columns::<simd::Four>(a, b, first, last, out),
        }
    }
}

struct Out {
    data: Shared,
    stride: usize,
    alpha: f32,
    beta: f32,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
unsafe fn avx512(a: Mat, b: Mat, first: usize, last: usize, out: &Out) {
    unsafe { columns::<std::arch::x86_64::__m512>(a, b, first, last, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(a: Mat, b: Mat, first: usize, last: usize, out: &Out) {
    unsafe { columns::<std::arch::x86_64::__m256>(a, b, first, last, out) }
}

#[inline(always)]
unsafe fn columns<V: Vector>(a: Mat, b: Mat, first: usize, last: usize, out: &Out) {
    let mut col = first;
    unsafe {
        while col + B_ROWS <= last {
            rows::<V, B_ROWS>(a, b, col, out);
            col += B_ROWS;
        }
        while col < last {
            rows::<V, 1>(a, b, col, out);
            col += 1;
        }
    }
}

/// All rows of A against `COLS` rows of B, which then lie in the first cache level.
#[inline(always)]
unsafe fn rows<V: Vector, const COLS: usize>(a: Mat, b: Mat, col: usize, out: &Out) {
    let mut row = 0;
    unsafe {
        while row + 4 <= a.rows {
            dots::<V, 4, COLS>(a, b, row, col, out);
            row += 4;
        }
        if row + 2 <= a.rows {
            dots::<V, 2, COLS>(a, b, row, col, out);
            row += 2;
        }
        if row < a.rows {
            dots::<V, 1, COLS>(a, b, row, col, out);
        }
    }
}

#[inline(always)]
unsafe fn dots<V: Vector, const ROWS: usize, const COLS: usize>(a: Mat, b: Mat, row: usize, col: usize, out: &Out) {
    let k = a.cols;
    unsafe {
        let (a_data, b_data) = (a.data.as_ptr().add(row * a.stride), b.data.as_ptr().add(col * b.stride));
        let mut sums = [[V::splat(0.0); COLS]; ROWS];
        let mut p = 0;
        while p + V::WIDTH <= k {
            let mut b_part = [V::splat(0.0); COLS];
            for j in 0..COLS {
                b_part[j] = V::load(b_data.add(j * b.stride + p));
            }
            for i in 0..ROWS {
                let a_part = V::load(a_data.add(i * a.stride + p));
                for j in 0..COLS {
                    sums[i][j] = a_part.mul_add(b_part[j], sums[i][j]);
                }
            }
            p += V::WIDTH;
        }
        for i in 0..ROWS {
            let to = out.data.slice_mut((row + i) * out.stride + col, COLS);
            for j in 0..COLS {
                let mut dot = sums[i][j].sum();
                for p in p..k {
                    dot += *a_data.add(i * a.stride + p) * *b_data.add(j * b.stride + p);
                }
                let old = if out.beta == 0.0 { 0.0 } else { out.beta * to[j] };
                to[j] = old + out.alpha * dot;
            }
        }
    }
}
