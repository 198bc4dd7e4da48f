//! Dropout (Srivastava et al. 2014) by a generator that is a function of place: `out = mask ∘ x`, where element i of the mask
//! is 0 with probability p, as `hash(key, i)` says, and else `1 / (1 − p)`. Its backward is the same product.
//!
//! Nothing is stored and no state advances, so that the backward, a layer computed again, and a resumed run see the very
//! same mask, and a GPU the CPU's.

mod cpu;
pub mod cuda;
#[cfg(test)]
mod test;

use crate::splitmix::{GAMMA, mix};

/// The mask of one array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    key: u64,
    /// Values are dropped whose 24 random bits lie below it.
    threshold: u32,
    /// `1 / (1 − p)`
    scale: f32,
}

impl Mask {
    /// `probability` of a value to be dropped, 0 < p < 1.
    pub fn new(key: u64, probability: f32) -> Self {
        let threshold = (f64::from(probability) * f64::from(1 << 24)) as u32;
        Self { key, threshold, scale: 1.0 / (1.0 - probability) }
    }

    fn factor(self, index: usize) -> f32 {
        let random = mix(self.key.wrapping_add((index as u64).wrapping_mul(GAMMA))) >> 40;
        if random < u64::from(self.threshold) { 0.0 } else { self.scale }
    }

    /// `out = mask ∘ x`
    pub fn apply(self, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "elements under dropout");
        cpu::apply(self, x, out);
    }

    /// `sum += mask ∘ x`
    pub fn add(self, x: &[f32], sum: &mut [f32]) {
        assert_eq!(x.len(), sum.len(), "elements under dropout");
        cpu::add(self, x, sum);
    }
}
