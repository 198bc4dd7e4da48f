//! What generating takes and gives, and how a model answers.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use napi::Env;
use napi::bindgen_prelude::{Float32Array, Function, Object, Uint32Array};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi_derive::napi;
use zephyr_mistral::generate::{
    self, CacheType, FinishReason, GenerateOptions, Generation, Generator, KeptText, Request,
};
use zephyr_text::{StopMatcher, StreamDecoder};

use crate::engine::{NativeAbort, submit};
use crate::failure::Failure;
use crate::model::{NativeModel, Parts};
use crate::resident::{Origin, Resident};
use crate::tokenizer::NativeTokenizer;

/// What a call with `reuse` left on the CPU, and with which weights it was computed.
pub(crate) struct Kept {
    origin: Origin,
    cache: Option<CacheType>,
    text: KeptText,
}

/// Decoding options, all given; see `GenerateOptions` of the TypeScript interface.
#[napi(object)]
pub struct NativeDecoding {
    pub max_tokens: u32,
    pub temperature: f64,
    pub top_k: u32,
    pub top_p: f64,
    pub min_p: f64,
    pub repetition_penalty: f64,
    pub seed: f64,
    pub stop_token_ids: Vec<u32>,
    /// Most probable tokens given with each chosen one.
    pub top_logprobs: u32,
    /// `float32`, `float16` or `q8`; left out: by the weights.
    pub kv_cache: Option<String>,
    /// Begin with the text that the last such call left, and leave this one.
    pub reuse: bool,
}

impl NativeDecoding {
    fn cache(&self) -> Result<Option<CacheType>, Failure> {
        Ok(self.kv_cache.as_deref().map(generate::cache_type).transpose()?)
    }
}

/// A model as a call found it, and where it is to answer.
pub(crate) struct Answering {
    parts: Parts,
    /// `None`: the CPU.
    card: Option<usize>,
    kept: Arc<Mutex<Option<Kept>>>,
    resident: Resident,
}

impl Answering {
    pub fn new(model: &NativeModel, card: Option<u32>) -> Self {
        let (kept, resident) = (model.kept.clone(), model.resident.clone());
        Self { parts: model.current(), card: card.map(|card| card as usize), kept, resident }
    }

    /// `work` with a generator there; with `reuse` it begins with the text that the last such call left, and leaves its own.
    pub fn with<R>(
        &self,
        cache: Option<CacheType>,
        abort: Arc<AtomicBool>,
        reuse: bool,
        work: impl FnOnce(&mut Generator) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let run = |generator: Generator| {
            let mut generator = generator.with_abort(abort);
            if let Some(cache) = cache {
                generator = generator.with_cache(cache);
            }
            let result = work(&mut generator)?;
            Ok((result, generator.into_kept()))
        };
        let parts = &self.parts;
        if let Some(card) = self.card {
            return self.resident.with(card, parts, reuse, run);
        }
        let generator = Generator::new(parts.model());
        if !reuse {
            return Ok(run(generator)?.0);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = kept.take().filter(|kept| kept.cache == cache && kept.origin.is(parts));
        let (result, left) = run(generator.keeping(fitting.map(|kept| kept.text)))?;
        *kept = left.map(|text| Kept { origin: Origin::of(parts), cache, text });
        Ok(result)
    }
}

impl From<NativeDecoding> for GenerateOptions {
    fn from(decoding: NativeDecoding) -> Self {
        Self {
            max_tokens: decoding.max_tokens as usize,
            temperature: decoding.temperature as f32,
            top_k: decoding.top_k as usize,
            top_p: decoding.top_p as f32,
            min_p: decoding.min_p as f32,
            repetition_penalty: decoding.repetition_penalty as f32,
            seed: decoding.seed as u64,
            stop_token_ids: Some(decoding.stop_token_ids),
            top_logprobs: decoding.top_logprobs as usize,
        }
    }
}

/// A generated answer.
#[napi(object)]
pub struct NativeGenerated {
    pub text: String,
    pub ids: Uint32Array,
    /// Log-probability of each id.
    pub logps: Float32Array,
    /// The most probable ids at each place, and theirs: `[ids, topLogprobs]`.
    pub top_ids: Uint32Array,
    pub top_logps: Float32Array,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// Milliseconds to the first token, and from there to the end; only of a single generation.
    pub prompt_ms: Option<f64>,
    pub answer_ms: Option<f64>,
}

impl NativeGenerated {
    fn new(answer: Generation, text: String) -> Result<Self, Failure> {
        let finish_reason = finish(answer.finish)?.into();
        let (top_ids, top_logps): (Vec<u32>, Vec<f32>) = answer.top.into_iter().flatten().unzip();
        Ok(Self {
            text,
            ids: Uint32Array::new(answer.ids),
            logps: Float32Array::new(answer.logps),
            top_ids: Uint32Array::new(top_ids),
            top_logps: Float32Array::new(top_logps),
            finish_reason,
            prompt_ms: None,
            answer_ms: None,
        })
    }
}

fn finish(reason: FinishReason) -> Result<&'static str, Failure> {
    match reason {
        FinishReason::StopToken(_) | FinishReason::Callback => Ok("stop"),
        FinishReason::Length | FinishReason::Context => Ok("length"),
        FinishReason::Aborted => Err(Failure::new("ZA_ABORTED", "the generation was aborted")),
    }
}

#[napi]
impl NativeModel {
    /// Continues a prompt; `card`: on that card, left out: on the CPU. `on_text` gets pieces of finished text as they come; joined they are the answer.
    #[napi(ts_return_type = "Promise<NativeGenerated>")]
    pub fn generate<'env>(
        &self,
        env: &'env Env,
        tokenizer: &NativeTokenizer,
        prompt: Uint32Array,
        decoding: NativeDecoding,
        stop: Vec<String>,
        abort: &NativeAbort,
        on_text: Function<'_, String, ()>,
        card: Option<u32>,
    ) -> napi::Result<Object<'env>> {
        let (answering, tokenizer) = (Answering::new(self, card), tokenizer.tokenizer.clone());
        let abort = abort.flag.clone();
        let sink = on_text.build_threadsafe_function::<String>().weak::<true>().build()?;
        let prompt = prompt.to_vec();
        submit(env, move || {
            let mut decoder = StreamDecoder::new(&tokenizer, true);
            let mut matcher = StopMatcher::new(&stop);
            let mut text = String::new();
            let mut broken = None;
            let emit = |piece: String, text: &mut String| {
                if !piece.is_empty() {
                    text.push_str(&piece);
                    sink.call(piece, ThreadsafeFunctionCallMode::NonBlocking);
                }
            };
            let (cache, reuse) = (decoding.cache()?, decoding.reuse);
            let options = decoding.into();
            let mut start = Instant::now();
            let mut first = None;
            let answer = answering.with(cache, abort, reuse, |generator| {
                // A model that comes to a card for the first time is no part of the prompt.
                start = Instant::now();
                let answer = generator.generate(&prompt, &options, |id, _| {
                    first.get_or_insert_with(Instant::now);
                    match decoder.push(id) {
                        Ok(piece) => emit(matcher.push(&piece.unwrap_or_default()), &mut text),
                        Err(error) => {
                            broken = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                    if matcher.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                match broken.take() {
                    Some(error) => Err(error.into()),
                    None => Ok(answer),
                }
            })?;
            if !matcher.stopped() && answer.finish != FinishReason::Aborted {
                let rest = decoder.flush()?.unwrap_or_default();
                emit(matcher.push(&rest), &mut text);
                emit(matcher.finish(), &mut text);
            }
            let end = Instant::now();
            let first = first.unwrap_or(end);
            let milliseconds = |from: Instant, to: Instant| Some((to - from).as_secs_f64() * 1000.0);
            Ok(NativeGenerated {
                prompt_ms: milliseconds(start, first),
                answer_ms: milliseconds(first, end),
                ..NativeGenerated::new(answer, text)?
            })
        })
    }

    /// Continues several prompts together; sequence `i` is sampled with `seeds[i]`, not with the options'. Texts are left empty.
    #[napi(ts_return_type = "Promise<Array<NativeGenerated>>")]
    pub fn generate_batch<'env>(
        &self,
        env: &'env Env,
        prompts: Vec<Uint32Array>,
        seeds: Vec<f64>,
        decoding: NativeDecoding,
        abort: &NativeAbort,
        card: Option<u32>,
    ) -> napi::Result<Object<'env>> {
        let (answering, abort) = (Answering::new(self, card), abort.flag.clone());
        let (cache, requests) = (decoding.cache()?, requests(&prompts, &seeds, decoding)?);
        submit(env, move || {
            let answers = answering.with(cache, abort, false, |generator| {
                Ok(generator.generate_batch(&requests, |_, _, _| ControlFlow::Continue(()))?)
            })?;
            generated(answers)
        })
    }
}

/// Prompts, each with its seed in place of the options'.
pub(crate) fn requests(
    prompts: &[Uint32Array],
    seeds: &[f64],
    decoding: NativeDecoding,
) -> Result<Vec<Request>, Failure> {
    if seeds.len() != prompts.len() {
        let text = format!("{} prompts and {} seeds. Remedy: give each prompt its seed", prompts.len(), seeds.len());
        return Err(Failure::new("ZA_ARGUMENT", text));
    }
    let options: GenerateOptions = decoding.into();
    let request = |(prompt, &seed): (&Uint32Array, &f64)| Request {
        prompt: prompt.to_vec(),
        options: GenerateOptions { seed: seed as u64, ..options.clone() },
    };
    Ok(prompts.iter().zip(seeds).map(request).collect())
}

/// Answers whose texts are left empty.
pub(crate) fn generated(answers: Vec<Generation>) -> Result<Vec<NativeGenerated>, Failure> {
    answers.into_iter().map(|answer| NativeGenerated::new(answer, String::new())).collect()
}
