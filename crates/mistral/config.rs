//! `config.json` of the Mistral and Llama families, as transformers 4 and 5 write it.
//!
//! What this crate does not compute is refused by name: a model that loads gives the numbers that transformers gives.

mod fields;

use crate::error::{Error, Result};
use fields::Fields;
use serde_json::{Map, Value, json};

/// Above any model of these families; a larger number is a damaged file, and must not reach an allocation.
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCABULARY: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;
const MAX_HEADS: usize = 1 << 14;
const MAX_HEAD_DIM: usize = 1 << 12;
const MAX_POSITIONS: usize = 1 << 28;

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Explicit, or hidden_size / heads; even.
    pub head_dim: usize,
    /// A query sees this many keys, itself included; `None`: all before it.
    pub sliding_window: Option<usize>,
    pub rope_theta: f64,
    pub rms_norm_eps: f32,
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: usize,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub initializer_range: f64,
    /// `mistral` or `llama`.
    pub model_type: String,
    /// The fields as they were read, kept for saving.
    pub raw: Map<String, Value>,
    /// Those of generation_config.json, where there was one.
    pub generation: Map<String, Value>,
}

impl Config {
    /// Reads the text of a config.json. `place` is the file's name for the messages.
    ///
    /// Absent fields get the default of transformers' `MistralConfig` or `LlamaConfig`; sizes must be there.
    ///
    /// # Errors
    /// `ZA_MODEL_FORMAT` (not JSON), `ZA_MODEL_CONFIG` (a field is missing or wrong), `ZA_MODEL_UNSUPPORTED`.
    pub fn from_json(text: &str, place: &str) -> Result<Config> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| Error::format(place, format!("this is not JSON ({error})")))?;
        match value {
            Value::Object(raw) => Config::from_map(raw, place),
            _ => Err(Error::format(place, "the top level is not a JSON object")),
        }
    }

    /// The same from fields that are parsed already.
    pub fn from_map(raw: Map<String, Value>, place: &str) -> Result<Config> {
        let fields = Fields::new(&raw, place);
        let model_type = family(&fields)?;
        let mistral = model_type == "mistral";
        refuse_what_is_not_implemented(&fields)?;

        let hidden_size = fields.size("hidden_size", MAX_WIDTH)?;
        let heads = fields.size("num_attention_heads", MAX_HEADS)?;
        let kv_heads = match fields.get("num_key_value_heads") {
            // MistralConfig's default; LlamaConfig's is the number of heads, and null means that in both.
            None if mistral && !raw.contains_key("num_key_value_heads") => 8,
            None => heads,
            Some(_) => fields.size("num_key_value_heads", MAX_HEADS)?,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(fields.error(
                "num_key_value_heads",
                format!("{heads} attention heads cannot be shared by {kv_heads} key/value heads"),
                "num_attention_heads must be a multiple of num_key_value_heads.",
            ));
        }
        let head_dim = match fields.get("head_dim") {
            Some(_) => fields.size("head_dim", MAX_HEAD_DIM)?,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(fields.error(
                    "head_dim",
                    format!("it is not given, and hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}"),
                    "Give head_dim.",
                ));
            }
        };
        if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
            return Err(fields.error(
                "head_dim",
                format!("{head_dim} is not an even number up to {MAX_HEAD_DIM}"),
                "Rotary embeddings turn pairs of components: head_dim must be even.",
            ));
        }
        let sliding_window = match (mistral, fields.get("sliding_window")) {
            (true, Some(_)) => Some(fields.size("sliding_window", usize::MAX >> 1)?),
            // transformers fills in MistralConfig's default where the field is absent; null turns the window off.
            (true, None) if !raw.contains_key("sliding_window") => Some(4096),
            // Llama's attention does not know the field.
            _ => None,
        };
        let config = Config {
            vocab_size: fields.size("vocab_size", MAX_VOCABULARY)?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size", MAX_WIDTH)?,
            layers: fields.size("num_hidden_layers", MAX_LAYERS)?,
            heads,
            kv_heads,
            head_dim,
            sliding_window,
            rope_theta: rope_theta(&fields)?,
            rms_norm_eps: fields.number("rms_norm_eps", 1e-6, |x| (0.0..1.0).contains(&x))? as f32,
            tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
            max_position_embeddings: match fields.get("max_position_embeddings") {
                None => {
                    if mistral {
                        131_072
                    } else {
                        2048
                    }
                }
                Some(_) => fields.size("max_position_embeddings", MAX_POSITIONS)?,
            },
            bos_token_id: fields.token("bos_token_id", Some(1))?,
            eos_token_ids: fields.tokens("eos_token_id", &[2])?,
            initializer_range: fields.number("initializer_range", 0.02, |x| (0.0..=1.0).contains(&x))?,
            model_type,
            raw: Map::new(),
            generation: Map::new(),
        };
        if config.parameters().is_none() {
            return Err(fields.error(
                "num_hidden_layers",
                "the sizes multiply to more parameters than can be addressed".to_string(),
                "Take the config.json that belongs to the weights.",
            ));
        }
        Ok(Config { raw, ..config })
    }

    /// The number of parameters, or `None` where they cannot be counted, or their bytes as f32 in 63 bits.
    pub fn parameters(&self) -> Option<usize> {
        let hidden = self.hidden_size;
        let queries = self.heads.checked_mul(self.head_dim)?;
        let keys = self.kv_heads.checked_mul(self.head_dim)?;
        let attention = queries.checked_add(keys)?.checked_mul(2)?;
        let mlp = self.intermediate_size.checked_mul(3)?;
        let layer = attention.checked_add(mlp)?.checked_add(2)?.checked_mul(hidden)?;
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        let tables = self.vocab_size.checked_mul(hidden)?.checked_mul(tables)?;
        let total = layer.checked_mul(self.layers)?.checked_add(tables)?.checked_add(hidden)?;
        let bytes = (total as u64).checked_mul(size_of::<f32>() as u64)?;
        (bytes <= i64::MAX as u64).then_some(total)
    }

    /// The config.json that transformers loads: the fields as read, with what this struct knows written over them.
    ///
    /// The rope base is written in both ways, for transformers 4 (`rope_theta`) and 5 (`rope_parameters`).
    pub fn to_json(&self) -> Value {
        let mut out = self.raw.clone();
        let class = if self.model_type == "llama" { "LlamaForCausalLM" } else { "MistralForCausalLM" };
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        // The shortest decimal that names the f32: 1e-05, and not 9.999999747378752e-06.
        let eps: f64 = self.rms_norm_eps.to_string().parse().unwrap_or(f64::from(self.rms_norm_eps));
        let fields = [
            ("architectures", json!([class])),
            ("model_type", json!(self.model_type)),
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("intermediate_size", json!(self.intermediate_size)),
            ("num_hidden_layers", json!(self.layers)),
            ("num_attention_heads", json!(self.heads)),
            ("num_key_value_heads", json!(self.kv_heads)),
            ("head_dim", json!(self.head_dim)),
            ("hidden_act", json!("silu")),
            ("max_position_embeddings", json!(self.max_position_embeddings)),
            ("rms_norm_eps", json!(eps)),
            ("rope_theta", json!(self.rope_theta)),
            ("rope_parameters", json!({ "rope_theta": self.rope_theta, "rope_type": "default" })),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("bos_token_id", json!(self.bos_token_id)),
            ("eos_token_id", eos),
            ("initializer_range", json!(self.initializer_range)),
        ];
        for (name, value) in fields {
            out.insert(name.to_string(), value);
        }
        if self.model_type == "mistral" {
            out.insert("sliding_window".to_string(), json!(self.sliding_window));
        }
        Value::Object(out)
    }
}

fn family(fields: &Fields) -> Result<String> {
    const REMEDY: &str = "Accepted are model_type `mistral` (MistralForCausalLM) and `llama` (LlamaForCausalLM).";
    let class = match fields.get("architectures") {
        None => None,
        Some(Value::Array(list)) => list.first().and_then(Value::as_str),
        Some(_) => return Err(fields.wrong("architectures", "a list of class names")),
    };
    let from_class = match class {
        None => None,
        Some("MistralForCausalLM") => Some("mistral"),
        Some("LlamaForCausalLM") => Some("llama"),
        Some(other) => {
            return Err(fields.unsupported(format!("the architecture `{other}`"), REMEDY));
        }
    };
    let named = match fields.get("model_type") {
        None => None,
        Some(Value::String(name)) => Some(name.as_str()),
        Some(_) => return Err(fields.wrong("model_type", "a string")),
    };
    match named.or(from_class) {
        Some(name @ ("mistral" | "llama")) => Ok(name.to_string()),
        Some(other) => Err(fields.unsupported(format!("the model_type `{other}`"), REMEDY)),
        None => Err(fields.error("model_type", "it is missing".to_string(), REMEDY)),
    }
}

fn refuse_what_is_not_implemented(fields: &Fields) -> Result<()> {
    if let Some(act) = fields.get("hidden_act")
        && !matches!(act.as_str(), Some("silu" | "swish"))
    {
        return Err(fields.unsupported(format!("the activation hidden_act = {act}"), "Only `silu` is implemented."));
    }
    for name in ["attention_bias", "mlp_bias"] {
        if fields.flag(name, false)? {
            return Err(fields.unsupported(format!("{name} = true"), "Only models without biases are implemented."));
        }
    }
    for name in ["num_local_experts", "num_experts", "n_routed_experts"] {
        if fields.get(name).is_some_and(|value| value.as_u64() != Some(0)) {
            return Err(
                fields.unsupported(format!("a mixture of experts ({name})"), "Only dense models are implemented.")
            );
        }
    }
    if fields.get("quantization_config").is_some() {
        return Err(fields.unsupported(
            "quantization_config (quantised safetensors)".to_string(),
            "Take the model's F32, F16 or BF16 weights, or a GGUF file.",
        ));
    }
    if let Some(Value::Array(kinds)) = fields.get("layer_types") {
        let same = kinds.windows(2).all(|pair| pair[0] == pair[1]);
        if !same {
            return Err(fields
                .unsupported("layer_types with several kinds of attention".to_string(), "All layers must be alike."));
        }
    }
    Ok(())
}

/// transformers 5: `rope_parameters { rope_theta, rope_type }`; transformers 4: `rope_theta` and `rope_scaling`.
fn rope_theta(fields: &Fields) -> Result<f64> {
    const REMEDY: &str = "Only plain rotary embeddings (rope_type `default`) are implemented.";
    let valid = |theta: f64| theta >= 1.0 && theta.is_finite();
    let mut theta = fields.number("rope_theta", 10_000.0, valid)?;
    for name in ["rope_scaling", "rope_parameters"] {
        let rope = match fields.get(name) {
            None => continue,
            Some(Value::Object(rope)) => rope,
            Some(_) => return Err(fields.wrong(name, "an object")),
        };
        let kind = rope.get("rope_type").or_else(|| rope.get("type"));
        match kind.map(|kind| kind.as_str()) {
            Some(Some("default")) => {}
            None if !rope.contains_key("factor") => {}
            _ => {
                let kind = kind.map_or("scaling".to_string(), Value::to_string);
                return Err(fields.unsupported(format!("{name} of type {kind}"), REMEDY));
            }
        }
        if let Some(value) = rope.get("rope_theta").filter(|value| !value.is_null()) {
            theta = value
                .as_f64()
                .filter(|theta| valid(*theta))
                .ok_or_else(|| fields.wrong(&format!("{name}.rope_theta"), "a number of at least 1"))?;
        }
        let part = rope.get("partial_rotary_factor").and_then(Value::as_f64);
        if part.is_some_and(|part| part != 1.0) {
            return Err(fields.unsupported(format!("{name}.partial_rotary_factor"), REMEDY));
        }
    }
    Ok(theta)
}

#[cfg(test)]
mod test;
