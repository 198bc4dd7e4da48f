//! A model: what it is, and what can be begun with it.

use std::rc::Rc;

use wasm_bindgen::prelude::wasm_bindgen;
use zephyr_mistral::Weights;
use zephyr_mistral::generate::Wanted;
use zephyr_mistral::weights::Loaded;

use crate::failure::Failure;
use crate::generation::{Decoding, Kept, WasmGeneration};
use crate::scoring::WasmScoring;
use crate::tokenizer::WasmTokenizer;

/// A decoder's weights and configuration.
#[wasm_bindgen]
pub struct WasmModel {
    weights: Rc<Weights>,
    unused: Vec<String>,
    kept: Rc<Kept>,
}

impl WasmModel {
    pub(crate) fn new(loaded: Loaded) -> Self {
        Self { weights: Rc::new(loaded.weights), unused: loaded.report.unused, kept: Rc::default() }
    }
}

#[wasm_bindgen]
impl WasmModel {
    #[wasm_bindgen(getter)]
    pub fn parameters(&self) -> f64 {
        self.weights.layout.len as f64
    }

    /// Bytes of the weights in memory.
    #[wasm_bindgen(getter, js_name = weightBytes)]
    pub fn weight_bytes(&self) -> f64 {
        self.weights.bytes() as f64
    }

    /// How the weights are kept: float32, or frozen as bfloat16, nf4 or gguf.
    #[wasm_bindgen(getter)]
    pub fn storage(&self) -> String {
        self.weights.storage().name().to_owned()
    }

    #[wasm_bindgen(getter, js_name = eosTokenIds)]
    pub fn eos_token_ids(&self) -> Vec<u32> {
        self.weights.config.eos_token_ids.clone()
    }

    /// Tensors of the files that this architecture does not use.
    #[wasm_bindgen(getter, js_name = unusedTensors)]
    pub fn unused_tensors(&self) -> Vec<String> {
        self.unused.clone()
    }

    /// config.json as transformers reads it.
    #[wasm_bindgen(js_name = configJson)]
    pub fn config_json(&self) -> String {
        self.weights.config.to_json().to_string()
    }

    /// Begins to continue several prompts together (ids one behind the other, `lengths` of each); sequence `i` is sampled with
    /// `seeds[i]`, not with the options'. `decoding` are options as JSON, `stop` texts that end an answer.
    pub fn generate(
        &self,
        tokenizer: &WasmTokenizer,
        prompts: &[u32],
        lengths: &[u32],
        seeds: &[f64],
        decoding: &str,
        stop: Vec<String>,
    ) -> Result<WasmGeneration, Failure> {
        let decoding: Decoding = serde_json::from_str(decoding)?;
        let all: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        if all != prompts.len() as u64 || lengths.len() != seeds.len() {
            let text = "prompts, their lengths and seeds do not belong together. Remedy: Give each prompt both.";
            return Err(Failure::new("ZA_ARGUMENT", text));
        }
        let mut rest = prompts;
        let prompts = lengths.iter().map(|&length| {
            let (prompt, others) = rest.split_at(length as usize);
            rest = others;
            prompt.to_vec()
        });
        let prompts: Vec<Vec<u32>> = prompts.collect();
        let (weights, tokenizer) = (self.weights.clone(), tokenizer.tokenizer.clone());
        WasmGeneration::new(weights, tokenizer, prompts, seeds, &decoding, &stop, &self.kept)
    }

    /// Begins to compute the log-probability of each id after the first; `exact`: nothing is rounded for speed.
    pub fn score(&self, ids: &[u32], exact: bool) -> Result<WasmScoring, Failure> {
        WasmScoring::new(self.weights.clone(), ids, exact, Wanted::LogProbs)
    }

    /// Begins to compute the logits after each id, `[ids, vocabulary]`, row by row; `exact` as of [`Self::score`].
    pub fn logits(&self, ids: &[u32], exact: bool) -> Result<WasmScoring, Failure> {
        WasmScoring::new(self.weights.clone(), ids, exact, Wanted::Logits)
    }
}
