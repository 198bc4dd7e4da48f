//! What a generator drives: the network, on the CPU ([`decoder`](super::decoder)) or on a device
//! ([`device`](crate::device)). Sampling, stops and what is kept are the same for both.

use super::decoder;
use crate::config::Config;
use crate::device;
use crate::error::Result;
use zephyr_kernels::attention::CacheType;

/// A step over new tokens of several sequences.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// New tokens of each sequence; their ids and their number have been checked.
    pub pieces: &'a [&'a [u32]],
    /// Of which tokens something is asked, counted through all pieces
    pub rows: &'a [u32],
    /// For each row the token whose log-probability is asked for; `None`: the row's logits are.
    pub targets: Option<&'a [u32]>,
    /// Whether nothing is rounded for speed, as where log-probabilities of given text are asked for
    pub exact: bool,
}

/// The network, and where its sequences' keys and values are.
pub trait Network: Send {
    fn config(&self) -> &Config;

    /// An empty cache; `exact`: for steps that are.
    ///
    /// # Errors
    /// `ZA_GENERATE_OPTION` for a kind that there is not.
    fn cache(&self, kind: Option<CacheType>, exact: bool) -> Result<Cache>;

    /// Appends `pieces[i]` to the sequence of `caches[i]`, and adds to `out` what is asked of the rows: `[rows, vocabulary]` or
    /// `[rows]`.
    ///
    /// # Errors
    /// A device's.
    fn step(&mut self, caches: &mut [Cache], step: &Step, out: &mut Vec<f32>) -> Result<()>;

    /// Whether a step of few tokens is many short tasks for this machine's threads.
    fn takes_threads(&self) -> bool;
}

/// Keys and values of one sequence. With a sliding window the old ones stay and are masked: positions are absolute, and memory
/// is bounded by the context.
pub enum Cache {
    Host(decoder::HostCache),
    Device(device::PagedCache),
}

impl Cache {
    /// Forgets what lies behind the first `length` positions.
    pub fn truncate(&mut self, length: usize) {
        match self {
            Self::Host(cache) => cache.truncate(length),
            Self::Device(cache) => cache.truncate(length),
        }
    }

    /// Positions that are there.
    pub fn length(&self) -> usize {
        match self {
            Self::Host(cache) => cache.length(),
            Self::Device(cache) => cache.length(),
        }
    }
}
