//! AdamW with decoupled weight decay (Loshchilov & Hutter 2019), in the operation order of PyTorch's
//! `torch.optim.adamw._single_tensor_adamw` (no amsgrad), so that a run can be compared step by step.
//!
//! With g = grad_scale · grad and t = step:
//! `p ← p·(1 − lr·weight_decay)`, `m ← m + (1 − β₁)(g − m)`, `v ← β₂v + (1 − β₂)g²`,
//! `p ← p − lr/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + eps)`.
//! Scalars are computed in f64 and rounded to f32 once, as PyTorch does.

#[cfg(test)]
mod test;

mod blocks;
mod cpu;
pub mod cuda;
mod split;

pub use blocks::{BLOCK, Blocks, step_8bit};
pub use split::{join, split};

/// One update's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator after the bias correction.
    pub eps: f64,
    /// Decoupled decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// The update's number, from 1.
    pub step: u64,
    /// Multiplies the gradient first: clipping and accumulation's division without a pass of their own.
    pub grad_scale: f32,
}

/// Updates `params` and the moments `m`, `v` in place; all slices have one length. One pass over memory.
pub fn step(params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32], config: &Config) {
    assert!(config.step > 0, "steps count from 1");
    assert_eq!(grads.len(), params.len(), "gradient elements");
    assert_eq!(m.len(), params.len(), "first moment elements");
    assert_eq!(v.len(), params.len(), "second moment elements");
    cpu::step(params, grads, m, v, config);
}
