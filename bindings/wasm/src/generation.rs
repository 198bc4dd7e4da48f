//! A generation: steps of the network, between which JavaScript goes on.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use js_sys::Function;
use serde::Deserialize;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use zephyr_mistral::Weights;
use zephyr_mistral::generate::{
    self, Batch, CacheType, FinishReason, GenerateOptions, Generation, Generator, Halt, KeptText, Request,
};
use zephyr_text::{StopMatcher, StreamDecoder, Tokenizer};

use crate::failure::Failure;

/// Tokens of prompt in one step: a fraction of a second, after which a cancel is seen.
pub(crate) const ROWS: usize = 128;

/// Decoding options, all given; see `GenerateOptions` of the TypeScript interface.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decoding {
    max_tokens: u32,
    temperature: f64,
    top_k: u32,
    top_p: f64,
    min_p: f64,
    repetition_penalty: f64,
    stop_token_ids: Vec<u32>,
    top_logprobs: u32,
    kv_cache: Option<String>,
    reuse: bool,
}

impl Decoding {
    fn cache(&self) -> Result<Option<CacheType>, Failure> {
        Ok(self.kv_cache.as_deref().map(generate::cache_type).transpose()?)
    }

    fn options(&self, seed: f64) -> GenerateOptions {
        GenerateOptions {
            max_tokens: self.max_tokens as usize,
            temperature: self.temperature as f32,
            top_k: self.top_k as usize,
            top_p: self.top_p as f32,
            min_p: self.min_p as f32,
            repetition_penalty: self.repetition_penalty as f32,
            seed: seed as u64,
            stop_token_ids: Some(self.stop_token_ids.clone()),
            top_logprobs: self.top_logprobs as usize,
        }
    }
}

/// What a generation with `reuse` left for the next, and the cache that was asked for.
#[derive(Default)]
pub struct Kept(RefCell<Option<(Option<CacheType>, KeptText)>>);

/// A generated answer.
#[wasm_bindgen(getter_with_clone)]
pub struct WasmGenerated {
    pub text: String,
    pub ids: Vec<u32>,
    /// Log-probability of each id.
    pub logps: Vec<f32>,
    /// The most probable ids at each place, and theirs: `[ids, topLogprobs]`.
    #[wasm_bindgen(js_name = topIds)]
    pub top_ids: Vec<u32>,
    #[wasm_bindgen(js_name = topLogps)]
    pub top_logps: Vec<f32>,
    /// `stop`, `length` or `aborted`.
    #[wasm_bindgen(js_name = finishReason)]
    pub finish_reason: String,
}

/// What becomes of one answer's tokens.
struct Text {
    decoder: StreamDecoder<'static>,
    matcher: StopMatcher,
    text: String,
}

impl Text {
    /// Adds a piece; gives what of it is certain.
    fn add(&mut self, piece: &str) -> String {
        let certain = self.matcher.push(piece);
        self.text.push_str(&certain);
        certain
    }
}

/// A generation in work. Dropping it is the end of it.
#[wasm_bindgen]
pub struct WasmGeneration {
    // Before what they refer to: fields are dropped in this order.
    work: Option<(Batch, Generator<'static>)>,
    texts: Vec<Text>,
    tokens: u32,
    cache: Option<CacheType>,
    kept: Option<Rc<Kept>>,
    _weights: Rc<Weights>,
    _tokenizer: Rc<Tokenizer>,
}

impl WasmGeneration {
    /// `kept`: what the model keeps, where the options say `reuse`.
    pub(crate) fn new(
        weights: Rc<Weights>,
        tokenizer: Rc<Tokenizer>,
        prompts: Vec<Vec<u32>>,
        seeds: &[f64],
        decoding: &Decoding,
        stop: &[String],
        kept: &Rc<Kept>,
    ) -> Result<Self, Failure> {
        // SAFETY: what an `Rc` holds stays in its place, and unchanged as nobody has it mutably, as long as the `Rc` lives;
        // those of this struct live longer than what refers to them.
        let (held, spelled) = unsafe { (&*Rc::as_ptr(&weights), &*Rc::as_ptr(&tokenizer)) };
        let mut generator = Generator::new(held).with_rows(ROWS);
        let cache = decoding.cache()?;
        if let Some(cache) = cache {
            generator = generator.with_cache(cache);
        }
        let kept = decoding.reuse.then(|| kept.clone());
        if let Some(kept) = &kept {
            let text = kept.0.take().filter(|(kind, _)| *kind == cache);
            generator = generator.keeping(text.map(|(_, text)| text));
        }
        let texts = prompts.iter().map(|_| Text {
            decoder: StreamDecoder::new(spelled, true),
            matcher: StopMatcher::new(stop),
            text: String::new(),
        });
        let texts = texts.collect();
        let requests = prompts.into_iter().zip(seeds);
        let requests = requests.map(|(prompt, &seed)| Request { prompt, options: decoding.options(seed) }).collect();
        let batch = Batch::new(&generator, requests)?;
        let work = Some((batch, generator));
        Ok(Self { work, texts, tokens: 0, cache, kept, _weights: weights, _tokenizer: tokenizer })
    }
}

fn over() -> JsValue {
    Failure::new("ZA_ARGUMENT", "the generation is over. Remedy: Begin another.").into()
}

fn emit(on_text: &Function, place: usize, piece: &str) -> Result<(), JsValue> {
    if piece.is_empty() {
        return Ok(());
    }
    on_text.call2(&JsValue::NULL, &(place as u32).into(), &piece.into()).map(|_| ())
}

#[wasm_bindgen]
impl WasmGeneration {
    /// Tokens chosen so far, of all answers.
    #[wasm_bindgen(getter)]
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// One step: 128 tokens of the prompts, or one token of every answer. `on_text` gets an answer's number and a finished
    /// piece of its text. Gives whether there is more to do.
    pub fn step(&mut self, on_text: &Function) -> Result<bool, JsValue> {
        let Self { work, texts, tokens, .. } = self;
        let (batch, generator) = work.as_mut().ok_or_else(over)?;
        let mut broken: Option<JsValue> = None;
        let more = batch.step(generator, |place, id, _| {
            *tokens += 1;
            let text = &mut texts[place];
            let decoded = text.decoder.push(id).map_err(|error| Failure::from(error).into());
            let shown = decoded.and_then(|piece| emit(on_text, place, &text.add(&piece.unwrap_or_default())));
            if let Err(error) = shown {
                broken = Some(error);
                return ControlFlow::Break(Halt::Batch);
            }
            if text.matcher.stopped() { ControlFlow::Break(Halt::Sequence) } else { ControlFlow::Continue(()) }
        });
        match broken {
            Some(error) => Err(error),
            None => Ok(more.map_err(Failure::from)?),
        }
    }

    /// The answers, in the order of the prompts; `on_text` gets what was held back of their ends.
    pub fn finish(&mut self, on_text: &Function) -> Result<Vec<WasmGenerated>, JsValue> {
        let (batch, mut generator) = self.work.take().ok_or_else(over)?;
        let answers = batch.finish(&mut generator);
        if let Some(kept) = &self.kept {
            kept.0.replace(generator.into_kept().map(|text| (self.cache, text)));
        }
        let mut out = Vec::with_capacity(answers.len());
        for (place, (answer, text)) in answers.into_iter().zip(&mut self.texts).enumerate() {
            if !text.matcher.stopped() && answer.finish != FinishReason::Aborted {
                let rest = text.decoder.flush().map_err(Failure::from)?.unwrap_or_default();
                let held = text.add(&rest);
                emit(on_text, place, &held)?;
                let held = text.matcher.finish();
                text.text.push_str(&held);
                emit(on_text, place, &held)?;
            }
            out.push(generated(answer, std::mem::take(&mut text.text)));
        }
        Ok(out)
    }
}

fn generated(answer: Generation, text: String) -> WasmGenerated {
    let finish_reason = match answer.finish {
        FinishReason::StopToken(_) | FinishReason::Callback => "stop",
        FinishReason::Length | FinishReason::Context => "length",
        FinishReason::Aborted => "aborted",
    };
    let (top_ids, top_logps) = answer.top.into_iter().flatten().unzip();
    let finish_reason = finish_reason.to_owned();
    WasmGenerated { text, ids: answer.ids, logps: answer.logps, top_ids, top_logps, finish_reason }
}
