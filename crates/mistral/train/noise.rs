//! Noise on the embeddings of a training batch (NEFTune, arXiv 2310.05914): a function of a counter, not of what was drawn
//! before, so that the same step of the same run has the same noise, however often it was interrupted.

use super::Batch;
use crate::splitmix;

/// Uniform noise of up to `alpha/√(L·h)` on each element, L the tokens of its document, h the width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    pub alpha: f32,
    pub seed: u64,
    /// Differs from one forward to the next.
    pub counter: u64,
}

impl Noise {
    /// Adds it to `embeddings` `[T, h]`.
    pub(super) fn add(&self, batch: &Batch, width: usize, embeddings: &mut [f32]) {
        let key = at(at(self.seed).wrapping_add(self.counter));
        for document in batch.segments.windows(2) {
            let (start, end) = (document[0] as usize * width, document[1] as usize * width);
            let reach = self.alpha / ((end - start) as f32).sqrt();
            for (index, value) in (start as u64..).zip(&mut embeddings[start..end]) {
                // 24 bits: every f32 of [0, 1) on that grid, and no 1.
                let uniform = (at(key.wrapping_add(index)) >> 40) as f32 / (1u32 << 24) as f32;
                *value += reach * (2.0 * uniform - 1.0);
            }
        }
    }
}

/// splitmix64 at one place of its sequence.
fn at(counter: u64) -> u64 {
    splitmix::mix(counter.wrapping_add(1).wrapping_mul(splitmix::GAMMA))
}

#[cfg(test)]
mod test {
    use super::*;

    fn noise(alpha: f32, seed: u64, counter: u64, segments: &[u32], width: usize) -> Vec<f32> {
        let tokens = *segments.last().unwrap() as usize;
        let ids = vec![0; tokens];
        let batch = Batch { ids: &ids, positions: &ids, segments, prefixes: &[] };
        let mut values = vec![0.0; tokens * width];
        Noise { alpha, seed, counter }.add(&batch, width, &mut values);
        values
    }

    #[test]
    fn is_uniform_up_to_its_reach_in_each_document() {
        let values = noise(5.0, 1, 0, &[0, 10, 410], 100);
        for (values, tokens) in [(&values[..1000], 10.0f32), (&values[1000..], 400.0)] {
            let reach = 5.0 / (tokens * 100.0).sqrt();
            let count = values.len() as f32;
            let mean = values.iter().sum::<f32>() / count;
            let variance = values.iter().map(|value| value * value).sum::<f32>() / count;
            assert!(values.iter().all(|value| value.abs() <= reach));
            assert!(mean.abs() < 4.0 * reach / (3.0 * count).sqrt(), "{mean}");
            assert!((variance / (reach * reach / 3.0) - 1.0).abs() < 0.1, "{variance}");
        }
    }

    #[test]
    fn is_a_function_of_seed_and_counter() {
        let one = noise(5.0, 1, 7, &[0, 4], 8);
        assert_eq!(one, noise(5.0, 1, 7, &[0, 4], 8));
        assert_ne!(one, noise(5.0, 2, 7, &[0, 4], 8));
        assert_ne!(one, noise(5.0, 1, 8, &[0, 4], 8));
        assert!(noise(0.0, 1, 7, &[0, 4], 8).iter().all(|&value| value == 0.0));
    }
}
