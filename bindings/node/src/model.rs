//! A model: loading, saving, generating, scoring.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use napi::Env;
use napi::bindgen_prelude::{Float32Array, Function, Object, Uint32Array};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi_derive::napi;
use zephyr_mistral::generate::{FinishReason, GenerateOptions, Generator, Request};
use zephyr_mistral::weights::safetensors::FloatType;
use zephyr_mistral::{Config, Weights, weights};
use zephyr_text::{StopMatcher, StreamDecoder};

use crate::engine::{NativeAbort, submit};
use crate::failure::{Failure, guard};
use crate::tokenizer::NativeTokenizer;

/// The inner `Arc` makes a snapshot free: whoever trains copies the weights first if a snapshot still shares them.
pub type SharedWeights = Arc<RwLock<Arc<Weights>>>;

/// A decoder's weights and configuration.
#[napi]
pub struct NativeModel {
    pub(crate) weights: SharedWeights,
    config: Arc<Config>,
    parameters: f64,
    gguf_tokenizer: Option<String>,
    unused: Vec<String>,
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
        }
    }
}

/// A generated answer.
#[napi(object)]
pub struct NativeGenerated {
    pub text: String,
    pub ids: Uint32Array,
    /// `stop` or `length`.
    pub finish_reason: String,
}

fn finish(reason: FinishReason) -> Result<&'static str, Failure> {
    match reason {
        FinishReason::StopToken(_) | FinishReason::Callback => Ok("stop"),
        FinishReason::Length | FinishReason::Context => Ok("length"),
        FinishReason::Aborted => Err(Failure::new("ZA_ABORTED", "the generation was aborted")),
    }
}

impl NativeModel {
    fn new(weights: Weights, gguf_tokenizer: Option<String>, unused: Vec<String>) -> Self {
        Self {
            config: Arc::new(weights.config.clone()),
            parameters: weights.layout.len as f64,
            weights: Arc::new(RwLock::new(Arc::new(weights))),
            gguf_tokenizer,
            unused,
        }
    }

    fn current(&self) -> Arc<Weights> {
        self.weights.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[napi]
impl NativeModel {
    /// Loads a folder in Hugging Face's layout or a GGUF file.
    #[napi(ts_return_type = "Promise<NativeModel>")]
    pub fn load(env: &Env, path: String) -> napi::Result<Object<'_>> {
        submit(env, move || {
            let loaded = weights::load(&PathBuf::from(path))?;
            let tokenizer = match loaded.tokenizer_gguf {
                Some(metadata) => Some(serde_json::to_string(&metadata)?),
                None => None,
            };
            Ok(NativeModel::new(loaded.weights, tokenizer, loaded.report.unused))
        })
    }

    /// Random weights; `config` is config.json's text.
    #[napi(ts_return_type = "Promise<NativeModel>")]
    pub fn random(env: &Env, config: String, seed: f64) -> napi::Result<Object<'_>> {
        submit(env, move || {
            let config = Config::from_json(&config, "config")?;
            Ok(NativeModel::new(Weights::random(config, seed as u64), None, Vec::new()))
        })
    }

    /// The same weights as they are now, frozen. Shares memory until one of the two is trained.
    #[napi]
    pub fn snapshot(&self) -> NativeModel {
        NativeModel {
            weights: Arc::new(RwLock::new(self.current())),
            config: self.config.clone(),
            parameters: self.parameters,
            gguf_tokenizer: None,
            unused: Vec::new(),
        }
    }

    /// Moves these weights towards those of `policy`: α of it and 1 − α of what was here. Snapshots keep what they had.
    #[napi(ts_return_type = "Promise<undefined>")]
    pub fn follow<'env>(&self, env: &'env Env, policy: &NativeModel, alpha: f64) -> napi::Result<Object<'env>> {
        let (weights, policy) = (self.weights.clone(), policy.current());
        submit(env, move || {
            let mut weights = weights.write().unwrap_or_else(PoisonError::into_inner);
            Ok(zephyr_align::reference::blend(Arc::make_mut(&mut weights), &policy, alpha as f32)?)
        })
    }

    /// Whether both hold the very same weights in memory.
    #[napi]
    pub fn shares_weights(&self, other: &NativeModel) -> bool {
        Arc::ptr_eq(&self.current(), &other.current())
    }

    #[napi(getter)]
    pub fn parameters(&self) -> f64 {
        self.parameters
    }

    #[napi(getter)]
    pub fn eos_token_ids(&self) -> Vec<u32> {
        self.config.eos_token_ids.clone()
    }

    /// config.json as transformers reads it.
    #[napi]
    pub fn config_json(&self) -> napi::Result<String> {
        guard(|| Ok(serde_json::to_string(&self.config.to_json())?))
    }

    /// The `tokenizer.*` metadata of the GGUF file (JSON), when the model came from one.
    #[napi]
    pub fn gguf_tokenizer(&self) -> Option<String> {
        self.gguf_tokenizer.clone()
    }

    /// Tensors of the files that this architecture does not use.
    #[napi(getter)]
    pub fn unused_tensors(&self) -> Vec<String> {
        self.unused.clone()
    }

    /// Writes safetensors and config.json; `dtype` is float32, bfloat16 or float16.
    #[napi(ts_return_type = "Promise<undefined>")]
    pub fn save<'env>(
        &self,
        env: &'env Env,
        folder: String,
        dtype: String,
        max_shard_bytes: f64,
    ) -> napi::Result<Object<'env>> {
        let weights = self.current();
        submit(env, move || {
            let dtype = match dtype.as_str() {
                "float32" => FloatType::F32,
                "bfloat16" => FloatType::BF16,
                "float16" => FloatType::F16,
                other => {
                    let text = format!("dtype is {other:?}. Remedy: take float32, bfloat16 or float16");
                    return Err(Failure::new("ZA_CONFIG_INVALID", text));
                }
            };
            weights::save::save_safetensors(&weights, &PathBuf::from(folder), dtype, max_shard_bytes as u64)?;
            Ok(())
        })
    }

    /// Continues a prompt. `on_text` gets pieces of finished text as they come; joined they are the answer.
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
    ) -> napi::Result<Object<'env>> {
        let (weights, tokenizer, abort) = (self.current(), tokenizer.tokenizer.clone(), abort.flag.clone());
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
            let mut generator = Generator::new(&weights).with_abort(abort);
            let answer = generator.generate(&prompt, &decoding.into(), |id, _| {
                match decoder.push(id) {
                    Ok(piece) => emit(matcher.push(&piece.unwrap_or_default()), &mut text),
                    Err(error) => {
                        broken = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                if matcher.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if let Some(error) = broken {
                return Err(error.into());
            }
            let reason = finish(answer.finish)?;
            if !matcher.stopped() {
                let rest = decoder.flush()?.unwrap_or_default();
                emit(matcher.push(&rest), &mut text);
                emit(matcher.finish(), &mut text);
            }
            Ok(NativeGenerated { text, ids: Uint32Array::new(answer.ids), finish_reason: reason.into() })
        })
    }

    /// Continues several prompts together; sequence `i` is sampled with seed + i. Texts are left empty.
    #[napi(ts_return_type = "Promise<Array<NativeGenerated>>")]
    pub fn generate_batch<'env>(
        &self,
        env: &'env Env,
        prompts: Vec<Uint32Array>,
        decoding: NativeDecoding,
        abort: &NativeAbort,
    ) -> napi::Result<Object<'env>> {
        let (weights, abort) = (self.current(), abort.flag.clone());
        let options: GenerateOptions = decoding.into();
        let requests: Vec<Request> = prompts
            .iter()
            .enumerate()
            .map(|(index, prompt)| Request {
                prompt: prompt.to_vec(),
                options: GenerateOptions { seed: options.seed.wrapping_add(index as u64), ..options.clone() },
            })
            .collect();
        submit(env, move || {
            let mut generator = Generator::new(&weights).with_abort(abort);
            let answers = generator.generate_batch(&requests, |_, _, _| ControlFlow::Continue(()))?;
            answers
                .into_iter()
                .map(|answer| {
                    let finish_reason = finish(answer.finish)?.into();
                    Ok(NativeGenerated { text: String::new(), ids: Uint32Array::new(answer.ids), finish_reason })
                })
                .collect::<Result<Vec<_>, Failure>>()
        })
    }

    /// Log-probability of each id after the first.
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn score<'env>(&self, env: &'env Env, ids: Uint32Array) -> napi::Result<Object<'env>> {
        let (weights, ids) = (self.current(), ids.to_vec());
        submit(env, move || Ok(Float32Array::new(Generator::new(&weights).score(&ids)?)))
    }
    /// The logits after each id, `[ids, vocabulary]`, row by row.
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn logits<'env>(&self, env: &'env Env, ids: Uint32Array) -> napi::Result<Object<'env>> {
        let (weights, ids) = (self.current(), ids.to_vec());
        submit(env, move || Ok(Float32Array::new(Generator::new(&weights).logits(&ids)?)))
    }
}
