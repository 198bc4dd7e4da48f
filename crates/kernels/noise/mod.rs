//! Noise on the embeddings of a training batch (NEFTune, Jain et al. 2023, arXiv 2310.05914): uniform in `±alpha/√(L·h)` on
//! each element, L the tokens of its document, h the width.
//!
//! A function of a counter and of place, not of what was drawn before, so that the same step of the same run has the same
//! noise, however often it was interrupted, and on a GPU that of the CPU. It has no gradient.

pub mod cuda;
#[cfg(test)]
mod test;

use crate::splitmix::{GAMMA, mix};

/// The noise of one forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    pub alpha: f32,
    pub seed: u64,
    /// Differs from one forward to the next.
    pub counter: u64,
}

impl Noise {
    /// Adds it to `embeddings` `[T, width]` of the documents between neighbours of `segments` (`0, …, T`).
    pub fn add(&self, segments: &[u32], width: usize, embeddings: &mut [f32]) {
        let key = self.key();
        for ((start, end), reach) in self.documents(segments, width) {
            let (start, end) = (start * width, end * width);
            for (index, value) in (start as u64..).zip(&mut embeddings[start..end]) {
                // 24 bits: every f32 of [0, 1) on that grid, and no 1.
                let uniform = (at(key.wrapping_add(index)) >> 40) as f32 / (1u32 << 24) as f32;
                *value += reach * (2.0 * uniform - 1.0);
            }
        }
    }

    /// For each token how far its noise may reach, `[T]`: what [`cuda::add`] takes.
    pub fn reaches(&self, segments: &[u32], width: usize) -> Vec<f32> {
        self.documents(segments, width)
            .flat_map(|((start, end), reach)| std::iter::repeat_n(reach, end - start))
            .collect()
    }

    /// First and last token, and the reach, of each document.
    fn documents(&self, segments: &[u32], width: usize) -> impl Iterator<Item = ((usize, usize), f32)> {
        segments.windows(2).map(move |document| {
            let (start, end) = (document[0] as usize, document[1] as usize);
            ((start, end), self.alpha / (((end - start) * width) as f32).sqrt())
        })
    }

    fn key(&self) -> u64 {
        at(at(self.seed).wrapping_add(self.counter))
    }
}

/// splitmix64 at one place of its sequence.
fn at(counter: u64) -> u64 {
    mix(counter.wrapping_add(1).wrapping_mul(GAMMA))
}
