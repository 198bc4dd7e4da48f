//! Dropout of an adapter's input, by a generator that is a function of place: `keep[i] = hash(key, i) ≥ p`.
//!
//! Nothing is stored and no state advances, so that the backward, a layer computed again, and a resumed run see the very
//! same mask.

use rayon::prelude::*;

use crate::splitmix::{GAMMA, mix};

/// The mask of one projection in one micro-batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    key: u64,
    /// Values are dropped whose 24 random bits lie below it.
    threshold: u64,
    /// `1 / (1 − p)`
    scale: f32,
}

/// Elements of one task.
const CHUNK: usize = 1 << 14;

/// A key of several numbers, one after the other.
pub fn key(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |key, &part| mix(key.wrapping_add(part).wrapping_add(GAMMA)))
}

impl Mask {
    /// `probability` of a value to be dropped, 0 < p < 1.
    pub fn new(key: u64, probability: f32) -> Self {
        let threshold = (f64::from(probability) * f64::from(1 << 24)) as u64;
        Self { key, threshold, scale: 1.0 / (1.0 - probability) }
    }

    fn factor(self, index: usize) -> f32 {
        let random = mix(self.key.wrapping_add((index as u64).wrapping_mul(GAMMA))) >> 40;
        if random < self.threshold { 0.0 } else { self.scale }
    }

    /// `out = mask · x`
    pub fn apply(self, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "elements under dropout");
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).enumerate().for_each(|(chunk, (out, x))| {
            for (at, (out, x)) in out.iter_mut().zip(x).enumerate() {
                *out = x * self.factor(chunk * CHUNK + at);
            }
        });
    }

    /// `sum += mask · x`
    pub fn add(self, x: &[f32], sum: &mut [f32]) {
        assert_eq!(x.len(), sum.len(), "elements under dropout");
        sum.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).enumerate().for_each(|(chunk, (sum, x))| {
            for (at, (sum, x)) in sum.iter_mut().zip(x).enumerate() {
                *sum += x * self.factor(chunk * CHUNK + at);
            }
        });
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_share_and_the_mean_are_those_asked_for() {
        for probability in [0.05f32, 0.5, 0.9] {
            let x = vec![1.0; 200_000];
            let mut out = vec![0.0; x.len()];
            Mask::new(key(&[7, 3]), probability).apply(&x, &mut out);
            let dropped = out.iter().filter(|&&value| value == 0.0).count() as f64 / x.len() as f64;
            assert!((dropped - f64::from(probability)).abs() < 5e-3, "{dropped} of {probability}");
            let mean = out.iter().map(|&value| f64::from(value)).sum::<f64>() / x.len() as f64;
            assert!((mean - 1.0).abs() < 0.03, "{mean}");
        }
    }

    #[test]
    fn masks_differ_by_key_and_repeat_by_key() {
        let x: Vec<f32> = (1..40_000).map(|i| i as f32).collect();
        let of = |key| {
            let mut out = vec![0.0; x.len()];
            Mask::new(key, 0.3).apply(&x, &mut out);
            let mut sum = vec![0.0; x.len()];
            Mask::new(key, 0.3).add(&x, &mut sum);
            assert_eq!(out, sum);
            out
        };
        assert_eq!(of(key(&[1, 2])), of(key(&[1, 2])));
        assert_ne!(of(key(&[1, 2])), of(key(&[2, 1])));
    }
}
