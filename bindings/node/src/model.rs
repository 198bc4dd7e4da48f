//! A model: loading, saving, adapters, scoring. It answers in [`generation`](crate::generation).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use napi::Env;
use napi::bindgen_prelude::{Float32Array, Object, Uint32Array};
use napi_derive::napi;
use zephyr_align::checkpoint::Trained;
use zephyr_align::fingerprint;
use zephyr_mistral::weights::gguf::{self, Description, FileType};
use zephyr_mistral::weights::safetensors::FloatType;
use zephyr_mistral::{Adapter, Config, LoraConfig, Model, Parameters, Storage, Weights, lora, weights};

use crate::engine::{NativeAbort, submit};
use crate::failure::{Failure, guard};
use crate::generation::{Answering, Kept};
use crate::resident::Resident;
use crate::tokenizer::NativeTokenizer;

/// Weights, and the adapter over them if there is one. The `Arc`s make a snapshot free: whoever trains copies what it
/// trains first if a snapshot still shares it. Under an adapter the weights are never copied.
#[derive(Clone)]
pub struct Parts {
    pub weights: Arc<Weights>,
    pub adapter: Option<Arc<Adapter>>,
    /// How often the weights were changed by others than a session on them, which may have copies on a card.
    pub changes: u64,
}

impl Parts {
    fn new(weights: Weights) -> Self {
        Self { weights: Arc::new(weights), adapter: None, changes: 0 }
    }

    /// The weights, to change them behind the backs of sessions.
    pub fn changed_weights(&mut self) -> &mut Weights {
        self.changes += 1;
        Arc::make_mut(&mut self.weights)
    }

    pub fn model(&self) -> Model<'_> {
        Model { weights: &self.weights, adapter: self.adapter.as_deref() }
    }

    /// What an optimizer changes: the adapter if there is one, else the weights.
    pub fn trained(&mut self) -> Parameters<'_> {
        match &mut self.adapter {
            Some(adapter) => Arc::make_mut(adapter).into(),
            None => Arc::make_mut(&mut self.weights).into(),
        }
    }

    /// The same for a checkpoint, without a copy.
    pub fn shared(&self) -> Trained {
        match &self.adapter {
            Some(adapter) => Trained::Adapter(adapter.clone()),
            None => Trained::Weights(self.weights.clone()),
        }
    }

    fn adapter(&self) -> Result<&Arc<Adapter>, Failure> {
        let text = "the model has no adapter. Remedy: load one, or make one with withLora";
        self.adapter.as_ref().ok_or_else(|| Failure::new("ZA_MODEL_INVALID", text))
    }

    /// The weights of a model that is written as one.
    fn whole(self) -> Result<Arc<Weights>, Failure> {
        if self.adapter.is_none() {
            return Ok(self.weights);
        }
        let text = "a model with an adapter is not saved as one. Remedy: take saveAdapter, or merge() first";
        Err(Failure::new("ZA_MODEL_INVALID", text))
    }

    fn without_adapter(&self, what: &str) -> Result<(), Failure> {
        if self.adapter.is_none() {
            return Ok(());
        }
        let text = format!(
            "{what}: the model has an adapter already. Remedy: merge() it into the weights first, or go on training it"
        );
        Err(Failure::new("ZA_ADAPTER_STACKED", text))
    }
}

pub type SharedParts = Arc<RwLock<Parts>>;

/// A decoder's weights and configuration.
#[napi]
pub struct NativeModel {
    pub(crate) parts: SharedParts,
    config: Arc<Config>,
    parameters: f64,
    gguf_tokenizer: Option<String>,
    unused: Vec<String>,
    pub(crate) kept: Arc<Mutex<Option<Kept>>>,
    pub(crate) resident: Resident,
}

impl Drop for NativeModel {
    fn drop(&mut self) {
        self.resident.let_go();
    }
}

/// What an adapter's folder says about its base.
#[napi(object)]
pub struct NativeAdapterBase {
    /// `base_model_name_or_path`.
    pub base: Option<String>,
}

/// A GGUF file that was written.
#[napi(object)]
pub struct NativeGgufExport {
    pub bytes: f64,
    pub types: Vec<NativeTensorType>,
    /// What the file says less exactly than the model.
    pub notes: Vec<String>,
}

/// A type of ggml, and how many tensors have it.
#[napi(object)]
pub struct NativeTensorType {
    pub name: String,
    pub tensors: u32,
}

impl NativeModel {
    fn new(weights: Weights, gguf_tokenizer: Option<String>, unused: Vec<String>) -> Self {
        Self {
            config: Arc::new(weights.config.clone()),
            parameters: weights.layout.len as f64,
            parts: Arc::new(RwLock::new(Parts::new(weights))),
            gguf_tokenizer,
            unused,
            kept: Arc::default(),
            resident: Resident::default(),
        }
    }

    pub(crate) fn current(&self) -> Parts {
        self.parts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another state of this model.
    fn with(&self, parts: Parts) -> Self {
        Self::of(parts, self.config.clone())
    }

    fn of(parts: Parts, config: Arc<Config>) -> Self {
        let parameters = parts.weights.layout.len as f64;
        let parts = Arc::new(RwLock::new(parts));
        let (kept, resident) = (Arc::default(), Resident::default());
        Self { parts, config, parameters, gguf_tokenizer: None, unused: Vec::new(), kept, resident }
    }
}

#[napi]
impl NativeModel {
    /// Whether the path is a folder with an adapter, and the base that its configuration names.
    #[napi]
    pub fn adapter_base(path: String) -> napi::Result<Option<NativeAdapterBase>> {
        guard(|| {
            let path = PathBuf::from(path);
            if !lora::is_adapter(&path) {
                return Ok(None);
            }
            Ok(Some(NativeAdapterBase { base: lora::read_config(&path)?.base().map(str::to_owned) }))
        })
    }

    /// Whether the path is a GGUF file with quantised tensors, all of types that can be kept as they are.
    #[napi]
    pub fn keeps_gguf(path: String) -> napi::Result<bool> {
        guard(|| Ok(weights::gguf::keeps(path.as_ref())?))
    }

    /// Loads a folder in Hugging Face's layout or a GGUF file. `storage`: float32 (the default), or frozen as bfloat16 or nf4,
    /// or as the GGUF file has it (gguf).
    #[napi(ts_return_type = "Promise<NativeModel>")]
    pub fn load(env: &Env, path: String, storage: Option<String>) -> napi::Result<Object<'_>> {
        submit(env, move || {
            let name = storage.as_deref().unwrap_or("float32");
            let storage = Storage::parse(name).ok_or_else(|| {
                let text = format!("storage is {name:?}. Remedy: take float32, bfloat16, nf4 or gguf");
                Failure::new("ZA_CONFIG_INVALID", text)
            })?;
            let loaded = weights::load_as(&PathBuf::from(path), storage)?;
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

    /// Weights and adapter as they are now, frozen. Shares memory until one of the two is trained.
    #[napi]
    pub fn snapshot(&self) -> NativeModel {
        self.with(self.current())
    }

    /// The weights as they are now without the adapter: the base that it was trained over. Shares memory.
    #[napi]
    pub fn without_adapter(&self) -> NativeModel {
        self.with(Parts { adapter: None, ..self.current() })
    }

    /// Moves these weights towards those of `policy`: α of it and 1 − α of what was here. Snapshots keep what they had.
    #[napi(ts_return_type = "Promise<undefined>")]
    pub fn follow<'env>(&self, env: &'env Env, policy: &NativeModel, alpha: f64) -> napi::Result<Object<'env>> {
        let (parts, policy) = (self.parts.clone(), policy.current());
        submit(env, move || {
            let mut parts = parts.write().unwrap_or_else(PoisonError::into_inner);
            if policy.adapter.is_some() || parts.adapter.is_some() {
                let text = "a reference cannot follow an adapter. Remedy: merge() it first, or turn syncRefModel off";
                return Err(Failure::new("ZA_CONFIG_INVALID", text));
            }
            Ok(zephyr_align::reference::blend(parts.changed_weights(), &policy.weights, alpha as f32)?)
        })
    }

    /// Whether both compute with the very same weights and adapter in memory.
    #[napi]
    pub fn shares_weights(&self, other: &NativeModel) -> bool {
        let (own, other) = (self.current(), other.current());
        let same_adapter = match (&own.adapter, &other.adapter) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        };
        same_adapter && Arc::ptr_eq(&own.weights, &other.weights)
    }

    /// The same weights, frozen, under a new adapter that changes nothing yet. `config`: fields of PEFT's
    /// adapter_config.json (JSON); what is left out is PEFT's default.
    #[napi(ts_return_type = "Promise<NativeModel>")]
    pub fn add_adapter<'env>(&self, env: &'env Env, config: String, seed: f64) -> napi::Result<Object<'env>> {
        let (parts, config_of_base) = (self.current(), self.config.clone());
        submit(env, move || {
            parts.without_adapter("a new adapter")?;
            let config = LoraConfig::from_fields(serde_json::from_str(&config)?, "LoRA")?;
            let adapter = Adapter::new(config, &config_of_base, seed as u64)?;
            Ok(NativeModel::of(Parts { adapter: Some(Arc::new(adapter)), ..parts }, config_of_base))
        })
    }

    /// The same weights, frozen, under the adapter in a folder of PEFT.
    #[napi(ts_return_type = "Promise<NativeModel>")]
    pub fn load_adapter<'env>(&self, env: &'env Env, folder: String) -> napi::Result<Object<'env>> {
        let (parts, config) = (self.current(), self.config.clone());
        submit(env, move || {
            parts.without_adapter(&folder)?;
            let adapter = lora::load(folder.as_ref(), &config)?;
            Ok(NativeModel::of(Parts { adapter: Some(Arc::new(adapter)), ..parts }, config))
        })
    }

    /// Writes the adapter as PEFT does; `base` is the name or path of the base model in it.
    #[napi(ts_return_type = "Promise<undefined>")]
    pub fn save_adapter<'env>(
        &self,
        env: &'env Env,
        folder: String,
        base: Option<String>,
    ) -> napi::Result<Object<'env>> {
        let parts = self.current();
        submit(env, move || {
            lora::save(parts.adapter()?, folder.as_ref(), base.as_deref())?;
            Ok(())
        })
    }

    /// A model whose weights hold what the adapter adds, in memory of its own.
    #[napi(ts_return_type = "Promise<NativeModel>")]
    pub fn merge_adapter<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let (parts, config) = (self.current(), self.config.clone());
        submit(env, move || {
            let adapter = parts.adapter()?;
            let mut weights = parts.weights.converted(Storage::F32)?;
            lora::merge(&mut weights, adapter);
            Ok(NativeModel::of(Parts::new(weights), config))
        })
    }

    /// adapter_config.json of the adapter, when there is one.
    #[napi]
    pub fn adapter_json(&self) -> Option<String> {
        self.current().adapter.map(|adapter| adapter.config.to_json(None).to_string())
    }

    /// How the weights are kept: float32, or frozen as bfloat16, nf4 or gguf.
    #[napi(getter)]
    pub fn storage(&self) -> String {
        self.current().weights.storage().name().into()
    }

    /// Gives the weights' memory back, that of a copy on a card too, unless a training, a snapshot or a running job still uses them: then it is theirs to.
    #[napi]
    pub fn dispose(&self) {
        // A running job has it otherwise, and its end is not waited for.
        if let Ok(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
        self.resident.let_go();
        if Arc::strong_count(&self.parts) == 1 {
            let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
            *parts = Parts::new(parts.weights.released());
        }
    }

    /// Bytes of the weights in memory.
    #[napi(getter)]
    pub fn weight_bytes(&self) -> f64 {
        self.current().weights.bytes() as f64
    }

    /// Parameters that training changes: those of the adapter, or all.
    #[napi(getter)]
    pub fn trainable_parameters(&self) -> f64 {
        self.current().model().trainable() as f64
    }

    /// Hash of configuration and parameters, 64 hexadecimal digits: the same for the same numbers.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn fingerprint<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let parts = self.current();
        submit(env, move || Ok(fingerprint::of(parts.model())))
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
        let parts = self.current();
        submit(env, move || {
            let weights = parts.whole()?;
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

    /// Writes a GGUF file with this tokenizer and its chat template; `file_type` is F32, F16, BF16, Q8_0, Q4_0 or Q4_K.
    #[napi(ts_return_type = "Promise<NativeGgufExport>")]
    pub fn export_gguf<'env>(
        &self,
        env: &'env Env,
        path: String,
        file_type: String,
        name: String,
        tokenizer: &NativeTokenizer,
    ) -> napi::Result<Object<'env>> {
        let (parts, template) = (self.current(), tokenizer.chat_template());
        let tokenizer = tokenizer.tokenizer.clone();
        submit(env, move || {
            let weights = parts.whole()?;
            let file_type = FileType::parse(&file_type).ok_or_else(|| {
                let text = format!("type is {file_type:?}. Remedy: take F32, F16, BF16, Q8_0, Q4_0 or Q4_K");
                Failure::new("ZA_CONFIG_INVALID", text)
            })?;
            let config = &weights.config;
            let written = tokenizer.to_gguf(&template, config.vocab_size, &config.eos_token_ids)?;
            let description = Description { name: &name, tokenizer: &written.metadata };
            let exported = gguf::export(&weights, path.as_ref(), file_type, &description)?;
            let types = exported.types.into_iter();
            Ok(NativeGgufExport {
                bytes: exported.bytes as f64,
                types: types.map(|(name, tensors)| NativeTensorType { name, tensors: tensors as u32 }).collect(),
                notes: [written.notes, exported.notes].concat(),
            })
        })
    }

    /// Log-probability of each id after the first; `exact`: nothing is rounded for speed; `card`: on that card, left out: on the CPU.
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn score<'env>(
        &self,
        env: &'env Env,
        ids: Uint32Array,
        exact: bool,
        abort: &NativeAbort,
        card: Option<u32>,
    ) -> napi::Result<Object<'env>> {
        let (answering, ids, abort) = (Answering::new(self, card), ids.to_vec(), abort.flag.clone());
        submit(env, move || {
            answering
                .with(None, abort, false, |generator| Ok(Float32Array::new(generator.set_exact(exact).score(&ids)?)))
        })
    }

    /// The logits after each id, `[ids, vocabulary]`, row by row; `exact` and `card` as of [`Self::score`].
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn logits<'env>(
        &self,
        env: &'env Env,
        ids: Uint32Array,
        exact: bool,
        abort: &NativeAbort,
        card: Option<u32>,
    ) -> napi::Result<Object<'env>> {
        let (answering, ids, abort) = (Answering::new(self, card), ids.to_vec(), abort.flag.clone());
        submit(env, move || {
            answering
                .with(None, abort, false, |generator| Ok(Float32Array::new(generator.set_exact(exact).logits(&ids)?)))
        })
    }
}
