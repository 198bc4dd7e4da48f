//! Keys of the masks on adapted projections' inputs: a function of the place in the run.

use zephyr_kernels::splitmix::{GAMMA, mix};

/// A key of several numbers, one after the other.
pub fn key(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |key, &part| mix(key.wrapping_add(part).wrapping_add(GAMMA)))
}
