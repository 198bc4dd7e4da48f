//! Root-mean-square normalisation (Zhang & Sennrich 2019, as in Llama and Mistral): `out = weight ∘ x · rstd` with
//! `rstd = 1/√(mean(x²) + eps)` per row.
//!
//! Backward, with `g = weight ∘ d_out` and h columns:
//! `d_x += rstd·g − x · rstd³/h · Σ(g∘x)` and `d_weight += Σ_rows d_out ∘ x · rstd`.

#[cfg(test)]
mod test;

mod cpu;
pub mod cuda;

/// Normalises the rows of `x` `[T, h]`; saves each row's `rstd` `[T]` for [`backward`]. h is `weight`'s length.
pub fn forward(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], rstd: &mut [f32]) {
    check(x.len(), weight, out.len(), rstd.len());
    cpu::forward(x, weight, eps, out, rstd);
}

/// The residual connection and the following norm in one pass: `residual += delta`, then as [`forward`] on `residual`.
pub fn forward_add(residual: &mut [f32], delta: &[f32], weight: &[f32], eps: f32, out: &mut [f32], rstd: &mut [f32]) {
    check(residual.len(), weight, out.len(), rstd.len());
    assert_eq!(delta.len(), residual.len(), "elements to add to the residual");
    cpu::forward_add(residual, delta, weight, eps, out, rstd);
}

/// Adds the input's gradient to `d_x` `[T, h]` (the residual stream's gradient) and, where wanted, the weight's to
/// `d_weight` `[h]`. `x` and `rstd` are [`forward`]'s.
pub fn backward(d_out: &[f32], x: &[f32], weight: &[f32], rstd: &[f32], d_x: &mut [f32], d_weight: Option<&mut [f32]>) {
    check(x.len(), weight, d_out.len(), rstd.len());
    assert_eq!(d_x.len(), x.len(), "elements of the input's gradient");
    if let Some(d_weight) = &d_weight {
        assert_eq!(d_weight.len(), weight.len(), "elements of the weight's gradient");
    }
    cpu::backward(d_out, x, weight, rstd, d_x, d_weight);
}

fn check(x: usize, weight: &[f32], out: usize, rows: usize) {
    assert!(!weight.is_empty(), "a norm of width 0");
    assert_eq!(x, rows * weight.len(), "input elements for {rows} rows of width {}", weight.len());
    assert_eq!(out, x, "output elements");
}
