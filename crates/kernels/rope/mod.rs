//! Rotary position embedding (Su et al. 2021) in Hugging Face's `rotate_half` convention: element `i` of a head pairs with
//! element `i + D/2`, and the pair at position p turns by `p · theta^(−2i/D)`.
//!
//! The backward pass is the transposed, that is the inverse, rotation.

#[cfg(test)]
mod test;

mod cpu;
pub mod cuda;

/// Cosines and sines of every (position, pair).
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// `[positions, D/2]`
    pub cos: Vec<f32>,
    /// `[positions, D/2]`
    pub sin: Vec<f32>,
    half: usize,
}

impl Table {
    /// As transformers computes them (`modeling_rope_utils._compute_default_rope_parameters`): the inverse frequency and
    /// the angle are each rounded to f32. Scaled variants (linear, YaRN, …) are not covered.
    pub fn new(head_dim: usize, theta: f64, positions: usize) -> Self {
        assert!(head_dim.is_multiple_of(2), "head dimension {head_dim} is odd");
        let half = head_dim / 2;
        let inverse_frequency: Vec<f32> = (0..half)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / head_dim as f32;
                1.0 / (theta.powf(f64::from(exponent)) as f32)
            })
            .collect();
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for frequency in &inverse_frequency {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        Self { cos, sin, half }
    }

    /// Number of positions covered.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }
}

/// Which way to turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the position's angle.
    Forward,
    /// Back: the gradient of [`Direction::Forward`].
    Backward,
}

/// Turns, in place, the `heads` heads of `head_dim` elements at the start of each row of `x` (row stride `stride`;
/// columns from `heads · head_dim` on are left alone). Row t stands at `positions[t]`.
///
/// With fused `[q | k | v]` rows, `heads = H + KV` turns queries and keys at once.
pub fn apply(
    x: &mut [f32],
    stride: usize,
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    table: &Table,
    direction: Direction,
) {
    assert_eq!(table.half * 2, head_dim, "the table's head dimension");
    assert!(stride >= heads * head_dim, "row stride {stride} below {heads} heads of {head_dim}");
    let needed = if positions.is_empty() { 0 } else { (positions.len() - 1) * stride + heads * head_dim };
    assert!(x.len() >= needed, "{} elements for {} rows of stride {stride}", x.len(), positions.len());
    let covered = table.positions();
    for (row, &position) in positions.iter().enumerate() {
        assert!((position as usize) < covered, "row {row} stands at position {position}, the table ends at {covered}");
    }
    if heads > 0 && head_dim > 0 {
        cpu::apply(x, stride, heads, head_dim, positions, table, direction);
    }
}
