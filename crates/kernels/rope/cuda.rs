//! Launches of `kernel.cu`.

use super::Direction;
use crate::cuda::{Element, Launch, Pointer, WARP, kernel, narrow, queue};

/// As [`super::apply`], on `rows` rows. `cos` and `sin` are a [`Table`](super::Table)'s; the caller has seen to it that it
/// covers all `positions` `[rows]`.
pub fn apply<T: Element>(
    x: Pointer<T>,
    stride: usize,
    heads: usize,
    head_dim: usize,
    positions: Pointer<u32>,
    cos: Pointer<f32>,
    sin: Pointer<f32>,
    direction: Direction,
    rows: usize,
) -> Launch {
    assert!(head_dim.is_multiple_of(2), "head dimension {head_dim} is odd");
    assert!(stride >= heads * head_dim, "row stride {stride} below {heads} heads of {head_dim}");
    let (stride, heads, half) = (narrow("columns", stride), narrow("heads", heads), narrow("pairs", head_dim / 2));
    let pack = if half.is_multiple_of(T::PACK) && stride.is_multiple_of(T::PACK) { T::PACK } else { 1 };
    let threads = (heads * (half / pack)).next_multiple_of(WARP).clamp(WARP, 256);
    let sign: f32 = match direction {
        Direction::Forward => 1.0,
        Direction::Backward => -1.0,
    };
    let grid = [narrow("rows", rows), 1, 1];
    queue!(kernel!(T, "rope"), grid, threads, 0; x, stride, heads, half, positions, cos, sin, sign)
}
