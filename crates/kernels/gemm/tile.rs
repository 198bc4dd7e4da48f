//! Products of blocks that lie in the first cache levels already (attention's scores): no packing, no threads.

use crate::simd::{self, LANES, Vector};

/// `C[m,n] (+)= A[m,k]·B[k,n]` on one thread.
///
/// `a[i · a_row + p · a_col]` is A's element (i, p), so a transposed A costs nothing. `n` must be a multiple of [`LANES`].
pub(crate) fn product(
    (m, n, k): (usize, usize, usize),
    (a, a_row, a_col): (&[f32], usize, usize),
    (b, b_row): (&[f32], usize),
    (c, c_row): (&mut [f32], usize),
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(n.is_multiple_of(LANES), "{n} columns are not whole lanes of {LANES}");
    assert!(k == 0 || a.len() > (m - 1) * a_row + (k - 1) * a_col, "A is too short");
    assert!(k == 0 || b.len() >= (k - 1) * b_row + n, "B is too short");
    assert!(c.len() >= (m - 1) * c_row + n, "C is too short");
    let block =
        Block { m, n, k, a: a.as_ptr(), a_row, a_col, b: b.as_ptr(), b_row, c: c.as_mut_ptr(), c_row, accumulate };
    // SAFETY: the slices hold the shapes by the assertions above, and the level has been detected.
    unsafe {
        match simd::level() {
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 => avx512(&block),
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx2 => avx2(&block),
            simd::Level::Baseline => blocks::<simd::Four, 4, 2>(&block),
        }
    }
}

struct Block {
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row: usize,
    a_col: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    accumulate: bool,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
unsafe fn avx512(block: &Block) {
    unsafe { blocks::<std::arch::x86_64::__m512, 8, 2>(block) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(block: &Block) {
    unsafe { blocks::<std::arch::x86_64::__m256, 6, 2>(block) }
}

/// Covers C with register blocks of `ROWS` rows by `COLS` vectors.
#[inline(always)]
unsafe fn blocks<V: Vector, const ROWS: usize, const COLS: usize>(block: &Block) {
    let mut col = 0;
    while col + COLS * V::WIDTH <= block.n {
        unsafe { column::<V, ROWS, COLS>(block, col) };
        col += COLS * V::WIDTH;
    }
    while col < block.n {
        unsafe { column::<V, ROWS, 1>(block, col) };
        col += V::WIDTH;
    }
}

#[inline(always)]
unsafe fn column<V: Vector, const ROWS: usize, const COLS: usize>(block: &Block, col: usize) {
    let mut row = 0;
    unsafe {
        while row + ROWS <= block.m {
            registers::<V, ROWS, COLS>(block, row, col);
            row += ROWS;
        }
        while row + 2 <= block.m {
            registers::<V, 2, COLS>(block, row, col);
            row += 2;
        }
        if row < block.m {
            registers::<V, 1, COLS>(block, row, col);
        }
    }
}

#[inline(always)]
unsafe fn registers<V: Vector, const ROWS: usize, const COLS: usize>(block: &Block, row: usize, col: usize) {
    unsafe {
        let a = block.a.add(row * block.a_row);
        let b = block.b.add(col);
        let c = block.c.add(row * block.c_row + col);
        let mut sums = [[V::splat(0.0); COLS]; ROWS];
        for p in 0..block.k {
            let mut b_row = [V::splat(0.0); COLS];
            for j in 0..COLS {
                b_row[j] = V::load(b.add(p * block.b_row + j * V::WIDTH));
            }
            for i in 0..ROWS {
                let factor = V::splat(*a.add(i * block.a_row + p * block.a_col));
                for j in 0..COLS {
                    sums[i][j] = factor.mul_add(b_row[j], sums[i][j]);
                }
            }
        }
        for i in 0..ROWS {
            for j in 0..COLS {
                let to = c.add(i * block.c_row + j * V::WIDTH);
                let value = if block.accumulate { sums[i][j].add(V::load(to)) } else { sums[i][j] };
                value.store(to);
            }
        }
    }
}
