//! Log-probabilities, or logits, of given text, a piece at a time.

use super::decoder::Cache;
use super::{CacheType, Generator, check_tokens};
use crate::error::Result;
use zephyr_kernels::head;

/// What is wanted of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The log-probability of each token after the first, `[tokens − 1]`.
    LogProbs,
    /// The logits after each token, `[tokens, vocabulary]`.
    Logits,
}

/// Text between two steps of the network, for whoever has other things to do in between. [`Generator::score`] and
/// [`Generator::logits`] take all steps at once.
///
/// Given text is many tokens at once, and its log-probabilities are compared: nothing is rounded for speed, neither keys and
/// values, which are read once, nor what the products with a GGUF file's blocks take.
pub struct Scoring {
    wanted: Wanted,
    ids: Vec<u32>,
    /// Tokens that go through the network, and that have.
    end: usize,
    at: usize,
    cache: [Cache; 1],
    values: Vec<f32>,
    stats: head::Stats,
    scratch: Vec<f32>,
}

impl Scoring {
    /// # Errors
    /// `ZA_EMPTY_PROMPT`, `ZA_TOKEN_RANGE`, `ZA_CONTEXT_LENGTH`.
    pub fn new(generator: &Generator, ids: &[u32], wanted: Wanted) -> Result<Self> {
        check_tokens(ids, generator.config())?;
        // The last token predicts nothing that is asked for.
        let end = if wanted == Wanted::LogProbs { ids.len() - 1 } else { ids.len() };
        let cache = [Cache::new(generator.config(), generator.cache.unwrap_or(CacheType::F32))];
        let (values, stats, scratch) = (Vec::with_capacity(end), head::Stats::default(), Vec::new());
        Ok(Self { wanted, ids: ids.to_vec(), end, at: 0, cache, values, stats, scratch })
    }

    /// One piece, always with the same generator; gives whether there is more to do.
    pub fn step(&mut self, generator: &mut Generator) -> bool {
        let Self { wanted, ids, end, at, cache, values, stats, scratch } = self;
        if *at == *end {
            return false;
        }
        let next = (*at + generator.rows).min(*end);
        let decoder = &mut generator.decoder;
        decoder.exact = true;
        let hidden = decoder.step(cache, &[&ids[*at..next]]);
        match wanted {
            Wanted::LogProbs => {
                head::forward(&decoder.head(), &hidden, &ids[*at + 1..=next], stats, scratch);
                values.extend_from_slice(&stats.logp);
            }
            Wanted::Logits => {
                let vocabulary = decoder.config().vocab_size;
                values.resize(next * vocabulary, 0.0);
                head::logits(&decoder.head(), &hidden, &mut values[*at * vocabulary..]);
            }
        }
        decoder.exact = false;
        decoder.give_back(hidden);
        *at = next;
        next < *end
    }

    /// What was wanted, when no step is left.
    pub fn finish(self) -> Vec<f32> {
        self.values
    }
}
