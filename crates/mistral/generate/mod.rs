//! Text out of the model: key/value-cache decoding, sampling, and log-probabilities of given text.
//!
//! ```text
//! network  what is driven: a step over tokens of several sequences, each with its cache
//! decoder  that on the CPU; on a GPU it is crate::device::cached
//! batch    the loop: prompts in pieces, then one token of every sequence a step
//! sampler  from logits to a token
//! random   the generator behind it
//! scoring  log-probabilities of given text, in pieces
//! ```
//! Sequences that are decoded together share every matrix product, so that a step of 32 costs little more than one of
//! 1: the weights are read once. What a sequence says depends on its own prompt, options and seed; the others can move
//! its logits by rounding only.

mod batch;
mod decoder;
mod network;
mod random;
mod sampler;
mod scoring;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::Model;
pub use batch::Batch;
use decoder::Decoder;
pub use network::{Cache, Network, Step};
pub use scoring::{Scoring, Wanted};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
pub use zephyr_kernels::attention::CacheType;

/// Sequences decoded together, unless the caller says otherwise.
const MAX_ACTIVE: usize = 32;

/// Tokens of prompt in one step: enough for efficient products, few enough for small buffers and a prompt abort.
const ROWS: usize = 512;

/// How tokens are chosen. Filters work in the order of transformers: repetition penalty, temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the most probable token (the lowest id of equals).
    pub temperature: f32,
    /// Keeps the k most probable tokens, and what ties with the last of them; 0: all.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens that reaches this mass (0 < p ≤ 1); 1: all.
    pub top_p: f32,
    /// Keeps tokens of at least this share of the highest probability (0 ≤ p ≤ 1); 0: all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occur in prompt or answer (Keskar et al. 2019); 1: off.
    pub repetition_penalty: f32,
    /// Same seed, same choices.
    pub seed: u64,
    /// Tokens that end the answer; `None`: the `eos_token_id` of the model.
    pub stop_token_ids: Option<Vec<u32>>,
    /// Most probable tokens that are given with each chosen one; 0: none.
    pub top_logprobs: usize,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_tokens: 256,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            stop_token_ids: None,
            top_logprobs: 0,
        }
    }
}

impl GenerateOptions {
    fn check(&self) -> Result<()> {
        let checks = [
            (
                "temperature",
                self.temperature,
                self.temperature >= 0.0 && self.temperature.is_finite(),
                "It must be 0 (greedy) or a positive number.",
            ),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "It must be above 0 and at most 1."),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "It must be from 0 to 1."),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
                "It must be a positive number; 1 turns it off.",
            ),
        ];
        match checks.iter().find(|(_, _, valid, _)| !valid) {
            None => Ok(()),
            Some(&(field, value, _, remedy)) => Err(Error::GenerateOption { field, value: value.to_string(), remedy }),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FinishReason {
    /// This stop token came; it is not part of the answer.
    StopToken(u32),
    /// `max_tokens` are there.
    Length,
    /// The model's `max_position_embeddings` are used up.
    Context,
    /// The callback broke off (a stop string, for example).
    Callback,
    /// The abort flag was set, or a callback ended the whole batch.
    #[default]
    Aborted,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Generation {
    pub ids: Vec<u32>,
    /// Of each id, the natural log of its probability under the model itself: temperature 1, no penalty, no filters.
    pub logps: Vec<f32>,
    /// At each place the most probable tokens with theirs, where they were asked for.
    pub top: Vec<Vec<(u32, f32)>>,
    pub finish: FinishReason,
}

const CACHE_NAMES: [(&str, CacheType); 3] =
    [("float32", CacheType::F32), ("float16", CacheType::F16), ("q8", CacheType::Q8)];

pub(crate) fn cache_name(kind: CacheType) -> &'static str {
    CACHE_NAMES.into_iter().find(|(_, own)| *own == kind).map_or("", |(name, _)| name)
}

/// The cache of a name: `float32`, `float16`, `q8`.
///
/// # Errors
/// `ZA_GENERATE_OPTION`
pub fn cache_type(name: &str) -> Result<CacheType> {
    CACHE_NAMES.into_iter().find(|(own, _)| *own == name).map(|(_, kind)| kind).ok_or_else(|| Error::GenerateOption {
        field: "kvCache",
        value: format!("{name:?}"),
        remedy: "Take float32, float16 or q8.",
    })
}

/// One sequence of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub prompt: Vec<u32>,
    pub options: GenerateOptions,
}

/// What a callback of a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    Sequence,
    Batch,
}

/// Decodes with borrowed weights. Memory of a sequence: 8·layers·kv_heads·head_dim bytes a token in f32, half of it in f16 and
/// bf16; buffers are reused.
pub struct Generator<'a> {
    network: Box<dyn Network + 'a>,
    config: Arc<Config>,
    /// Asked for.
    cache: Option<CacheType>,
    spare: Vec<Cache>,
    /// Whether the text of a sequence that ends is kept, and the one that was.
    keeps: bool,
    kept: Option<KeptText>,
    max_active: usize,
    rows: usize,
    /// Whether given text is computed without rounding for speed.
    exact: bool,
    abort: Option<Arc<AtomicBool>>,
}

/// Keys and values of a text that a generator has been through: a prompt that begins in the same way goes on from there.
pub struct KeptText {
    ids: Vec<u32>,
    cache: Cache,
}

impl<'a> Generator<'a> {
    /// On the CPU.
    pub fn new(model: impl Into<Model<'a>>) -> Self {
        Self::on(Box::new(Decoder::new(model.into())))
    }

    /// With a network wherever it is.
    pub fn on(network: Box<dyn Network + 'a>) -> Self {
        let config = Arc::new(network.config().clone());
        let (spare, rows) = (Vec::new(), ROWS);
        let (max_active, abort) = (MAX_ACTIVE, None);
        Generator {
            network,
            config,
            cache: None,
            spare,
            keeps: false,
            kept: None,
            max_active,
            rows,
            exact: true,
            abort,
        }
    }

    /// A flag that any thread may set; it is looked at before every step ([`Generator::with_rows`] of prompt, or one token of every answer).
    pub fn with_abort(mut self, abort: Arc<AtomicBool>) -> Self {
        self.abort = Some(abort);
        self
    }

    /// How keys and values are kept. Unless set: f32, but f16 while decoding with weights that are kept as in a GGUF file.
    pub fn with_cache(mut self, cache: CacheType) -> Self {
        self.cache = Some(cache);
        self.spare.clear();
        self
    }

    /// Keeps the text of the sequence that ends last ([`Generator::into_kept`]), and begins with one that was kept by another
    /// generator of the same network, weights and cache type. What is computed anew then is rounded as by decoding, not as a prompt.
    pub fn keeping(mut self, kept: Option<KeptText>) -> Self {
        self.keeps = true;
        self.kept = kept;
        self
    }

    /// What [`Generator::keeping`] kept.
    pub fn into_kept(self) -> Option<KeptText> {
        self.kept
    }

    /// The number of sequences that a batch decodes together (at least 1; 32 unless set). More are faster and need more memory.
    pub fn with_max_active(mut self, sequences: usize) -> Self {
        self.max_active = sequences.max(1);
        self
    }

    /// The tokens of prompt in one step (at least 1; 512 unless set): fewer come back sooner, more are faster.
    pub fn with_rows(mut self, tokens: usize) -> Self {
        self.rows = tokens.max(1);
        self
    }

    /// Whether given text is computed without rounding for speed (unless set, it is): its log-probabilities are then the same
    /// on every processor. Else it is read as prompts are: with weights that are kept as in a GGUF file, activations are rounded to 16
    /// bits and keys and values to f16. Of other weights, and on a device, nothing changes.
    pub fn set_exact(&mut self, exact: bool) -> &mut Self {
        self.exact = exact;
        self
    }

    /// Continues `prompt`; `on_token` gets each token with its log-probability as it comes, and may end the answer.
    ///
    /// # Errors
    /// `ZA_EMPTY_PROMPT`, `ZA_TOKEN_RANGE`, `ZA_CONTEXT_LENGTH`, `ZA_GENERATE_OPTION`, `ZA_NOT_FINITE`; on a device
    /// `ZA_OUT_OF_MEMORY`, `ZA_DEVICE_FAILS`.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        mut on_token: impl FnMut(u32, f32) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let request = Request { prompt: prompt.to_vec(), options: options.clone() };
        let mut answers =
            self.generate_batch(std::slice::from_ref(&request), |_, token, logp| match on_token(token, logp) {
                ControlFlow::Continue(()) => ControlFlow::Continue(()),
                ControlFlow::Break(()) => ControlFlow::Break(Halt::Sequence),
            })?;
        // A batch of one gives one answer.
        answers.pop().ok_or(Error::EmptyPrompt)
    }

    /// Continues every request; up to [`Generator::with_max_active`] at a time, each finished one making room for the next.
    /// `on_token` also gets the request's place. Answers come in the order of the requests.
    ///
    /// # Errors
    /// As [`Generator::generate`], before any work is done (but `ZA_NOT_FINITE` and a device's).
    pub fn generate_batch(
        &mut self,
        requests: &[Request],
        on_token: impl FnMut(usize, u32, f32) -> ControlFlow<Halt>,
    ) -> Result<Vec<Generation>> {
        let mut batch = Batch::new(self, requests.to_vec())?;
        batch.steps(self, on_token)?;
        Ok(batch.finish(self))
    }

    /// The log-probability of each of `ids[1..]` given the ids before it.
    ///
    /// # Errors
    /// `ZA_EMPTY_PROMPT`, `ZA_TOKEN_RANGE`, `ZA_CONTEXT_LENGTH`, `ZA_ABORTED`; on a device `ZA_OUT_OF_MEMORY`, `ZA_DEVICE_FAILS`.
    pub fn score(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.scored(ids, Wanted::LogProbs)
    }

    /// The logits after each of `ids`, `[ids, vocabulary]`: for inspection, as this is large.
    ///
    /// # Errors
    /// As [`Generator::score`].
    pub fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.scored(ids, Wanted::Logits)
    }

    fn scored(&mut self, ids: &[u32], wanted: Wanted) -> Result<Vec<f32>> {
        let mut scoring = Scoring::new(self, ids, wanted)?;
        loop {
            if self.aborted() {
                return Err(Error::Aborted);
            }
            if !scoring.step(self)? {
                return Ok(scoring.finish());
            }
        }
    }

    fn take_cache(&mut self) -> Result<Cache> {
        match self.spare.pop() {
            Some(mut cache) => {
                cache.truncate(0);
                Ok(cache)
            }
            None => self.network.cache(self.cache, false),
        }
    }

    /// A cache for a prompt, and how many of its first tokens stand in it: never all, for the last one gives the logits.
    fn begin(&mut self, prompt: &[u32]) -> Result<(Cache, usize)> {
        let Some(KeptText { ids, mut cache }) = self.kept.take() else { return Ok((self.take_cache()?, 0)) };
        let equal = ids.iter().zip(prompt).take_while(|(kept, id)| kept == id).count();
        let shared = equal.min(cache.length()).min(prompt.len() - 1);
        cache.truncate(shared);
        Ok((cache, shared))
    }

    /// Puts away the cache of a sequence that has ended; `ids` is its text.
    fn end(&mut self, cache: Cache, prompt: &[u32], answer: &[u32]) {
        if self.keeps {
            let ids = prompt.iter().chain(answer).copied().take(cache.length()).collect();
            self.spare.extend(self.kept.replace(KeptText { ids, cache }).map(|kept| kept.cache));
        } else {
            self.spare.push(cache);
        }
    }

    fn aborted(&self) -> bool {
        self.abort.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

fn check_tokens(ids: &[u32], config: &Config) -> Result<()> {
    if ids.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    if ids.len() > config.max_position_embeddings {
        return Err(Error::ContextLength { length: ids.len(), limit: config.max_position_embeddings });
    }
    match ids.iter().position(|id| *id as usize >= config.vocab_size) {
        None => Ok(()),
        Some(position) => Err(Error::TokenRange { position, id: ids[position], vocabulary: config.vocab_size }),
    }
}

#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod test;
