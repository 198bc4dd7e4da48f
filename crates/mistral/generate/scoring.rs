//! Log-probabilities, or logits, of given text, a piece at a time.

use super::{Cache, Generator, Step, check_tokens};
use crate::error::Result;

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
/// Given text is many tokens at once, and its log-probabilities are compared: unless [`Generator::set_exact`] says otherwise,
/// nothing is rounded for speed, neither keys and values, which are read once, nor what the products with a GGUF file's blocks take.
pub struct Scoring {
    wanted: Wanted,
    ids: Vec<u32>,
    /// Tokens that go through the network, and that have.
    end: usize,
    at: usize,
    cache: [Cache; 1],
    values: Vec<f32>,
}

impl Scoring {
    /// # Errors
    /// `ZA_EMPTY_PROMPT`, `ZA_TOKEN_RANGE`, `ZA_CONTEXT_LENGTH`, `ZA_GENERATE_OPTION`.
    pub fn new(generator: &Generator, ids: &[u32], wanted: Wanted) -> Result<Self> {
        check_tokens(ids, &generator.config)?;
        // The last token predicts nothing that is asked for.
        let end = if wanted == Wanted::LogProbs { ids.len() - 1 } else { ids.len() };
        let cache = [generator.network.cache(generator.cache, generator.exact)?];
        Ok(Self { wanted, ids: ids.to_vec(), end, at: 0, cache, values: Vec::with_capacity(end) })
    }

    /// One piece, always with the same generator; gives whether there is more to do.
    ///
    /// # Errors
    /// A device's.
    pub fn step(&mut self, generator: &mut Generator) -> Result<bool> {
        let Self { wanted, ids, end, at, cache, values } = self;
        if *at == *end {
            return Ok(false);
        }
        let next = (*at + generator.rows).min(*end);
        let rows: Vec<u32> = (0..(next - *at) as u32).collect();
        let targets = (*wanted == Wanted::LogProbs).then(|| &ids[*at + 1..=next]);
        let step = Step { pieces: &[&ids[*at..next]], rows: &rows, targets, exact: generator.exact };
        generator.network.step(cache, &step, values)?;
        *at = next;
        Ok(next < *end)
    }

    /// What was wanted, when no step is left.
    pub fn finish(self) -> Vec<f32> {
        self.values
    }
}
