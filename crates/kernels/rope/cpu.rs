use super::{Direction, Table};
use crate::parallel;
use crate::simd::{dispatch, mul_add};

pub(super) fn apply(
    x: &mut [f32],
    stride: usize,
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    table: &Table,
    direction: Direction,
) {
    let half = head_dim / 2;
    let sign = match direction {
        Direction::Forward => 1.0,
        Direction::Backward => -1.0,
    };
    let rows = parallel::rows_per_task(positions.len(), heads * head_dim);
    parallel::run(x.chunks_mut(rows * stride).zip(positions.chunks(rows)), |(x, positions)| {
        for (x, &position) in x.chunks_mut(stride).zip(positions) {
            let angles = position as usize * half..(position as usize + 1) * half;
            row(&mut x[..heads * head_dim], &table.cos[angles.clone()], &table.sin[angles], sign);
        }
    });
}

dispatch! {
    fn row(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        for head in x.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let sin = sin * sign;
                let (a, b) = (*low, *high);
                *low = mul_add::<FMA>(a, *cos, -(b * sin));
                *high = mul_add::<FMA>(b, *cos, a * sin);
            }
        }
    }
}
