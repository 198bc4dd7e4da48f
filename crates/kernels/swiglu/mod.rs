//! The gated activation of Llama's feed-forward (Shazeer 2020): `out = silu(gate) ∘ up`, `silu(x) = x·σ(x)`.
//!
//! Backward: `d_up = d_out ∘ silu(gate)`, `d_gate = d_out ∘ up ∘ σ(gate)·(1 + gate·(1 − σ(gate)))`.

#[cfg(test)]
mod test;

mod cpu;
pub mod cuda;

/// `gate_up` `[T, 2·width]` (each row: gate, then up) to `out` `[T, width]`.
pub fn forward(gate_up: &[f32], width: usize, out: &mut [f32]) {
    check(gate_up.len(), width, out.len());
    cpu::forward(gate_up, width, out);
}

/// Replaces the saved input `gate_up` `[T, 2·width]` by its gradient, given `d_out` `[T, width]`.
pub fn backward(d_out: &[f32], width: usize, gate_up: &mut [f32]) {
    check(gate_up.len(), width, d_out.len());
    cpu::backward(d_out, width, gate_up);
}

fn check(gate_up: usize, width: usize, out: usize) {
    assert!(width > 0 && out.is_multiple_of(width), "{out} output elements are no rows of {width}");
    assert_eq!(gate_up, 2 * out, "gate and up elements");
}
