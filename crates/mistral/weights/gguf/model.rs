//! A Llama or Mistral model from a GGUF file: configuration, names, order of rows, dequantisation.

use super::super::read_at::ReadAt;
use super::super::safetensors::{FloatType, read_floats};
use super::super::{CHUNK, LoadReport, Loaded, Source};
use super::ggml::{BLOCK_ALIGNMENT, GgmlDType, blocks_to_floats};
use super::{Gguf, TensorInfo, Value, check_types};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::storage::{Storage as Form, Unfinished};
use rayon::prelude::*;
use serde_json::{Map, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Loads a GGUF file: as it is ([`Form::Gguf`]), or dequantised and then kept in that form.
///
/// # Errors
/// Those of [`Gguf::open`], and `ZA_MODEL_CONFIG`, `ZA_MODEL_UNSUPPORTED` (architecture, rope scaling, biases, experts; a
/// type that cannot be kept),
/// `ZA_TENSOR_MISSING`, `ZA_TENSOR_SHAPE`, `ZA_OUT_OF_MEMORY`, `ZA_IO`.
pub fn load(path: &Path, storage: Form) -> Result<Loaded> {
    from_gguf(&Gguf::open(path)?, storage)
}

/// The same from a header that has been read, of a file or of bytes.
pub fn from_gguf<R: ReadAt>(gguf: &Gguf<R>, storage: Form) -> Result<Loaded> {
    gguf.check_whole()?;
    let plan = Plan::new(gguf)?;
    check_types(&gguf.path, plan.tensors.iter().map(|index| &gguf.tensors[*index]), storage)?;
    let what = format!("The model in {}", gguf.path.display());
    let mut model = Unfinished::new(plan.config.clone(), plan.layout.clone(), storage, &what)?;
    for (place, tensor) in plan.tensors.iter().enumerate() {
        plan.take(gguf, &gguf.tensors[*tensor], place, storage, &mut model)?;
    }
    Ok(plan.loaded(model))
}

/// What of a file becomes what of a model.
pub(in crate::weights) struct Plan {
    pub config: Config,
    pub layout: Layout,
    /// For each tensor of the layout its place in the file's table.
    pub tensors: Vec<usize>,
    report: LoadReport,
    /// Until somebody takes it.
    pub tokenizer: Option<Map<String, serde_json::Value>>,
    /// Whether llama.cpp has interleaved the two halves of each rotary head for its own rotation; ours is transformers'.
    interleaved: bool,
}

impl Plan {
    /// Checks names and shapes.
    pub fn new<R: ReadAt>(gguf: &Gguf<R>) -> Result<Self> {
        let place = gguf.path.display().to_string();
        let architecture = architecture(gguf, &place)?;
        let config = config(gguf, architecture, &place)?;
        let layout = Layout::new(&config);
        let by_name: HashMap<&str, usize> =
            gguf.tensors.iter().enumerate().map(|(index, tensor)| (tensor.name.as_str(), index)).collect();
        let mut tensors = Vec::with_capacity(layout.tensors.len());
        for spec in &layout.tensors {
            let name = gguf_name(&spec.name);
            let index = *by_name.get(name.as_str()).ok_or_else(|| Error::TensorMissing {
                place: place.clone(),
                tensor: name.clone(),
                remedy: "Download or convert the model again.".to_string(),
            })?;
            let shape = &gguf.tensors[index].shape;
            if *shape != spec.shape {
                let (expected, found) = (spec.shape.clone(), shape.clone());
                return Err(Error::TensorShape { place, tensor: name, expected, found });
            }
            tensors.push(index);
        }
        let used: Vec<&TensorInfo> = tensors.iter().map(|index| &gguf.tensors[*index]).collect();
        let report = report(gguf, &used);
        let tokenizer = Some(gguf.tokenizer_metadata()?);
        Ok(Self { config, layout, tensors, report, tokenizer, interleaved: architecture == "llama" })
    }

    /// Takes a tensor into a model of that storage, at its place in the layout.
    pub fn take<R: ReadAt>(
        &self,
        gguf: &Gguf<R>,
        tensor: &TensorInfo,
        place: usize,
        storage: Form,
        model: &mut Unfinished,
    ) -> Result<()> {
        let (head_dim, hidden) = (self.config.head_dim, self.config.hidden_size);
        let turned = tensor.name.ends_with("attn_q.weight") || tensor.name.ends_with("attn_k.weight");
        let interleaved = self.interleaved && turned;
        if storage == Form::Gguf {
            model.keep(place, gguf.keep(tensor, interleaved.then_some(head_dim))?);
            return Ok(());
        }
        model.read(place, |start, out| {
            gguf.dequantize(tensor, start, out)?;
            if interleaved {
                // Projections come whole.
                deinterleave_heads(out, head_dim, hidden);
            }
            Ok(())
        })
    }

    /// The model that all tensors were taken into.
    pub fn loaded(self, model: Unfinished) -> Loaded {
        let Self { report, tokenizer, .. } = self;
        Loaded { weights: model.finish(), source: Source::Gguf, tokenizer_gguf: tokenizer, report }
    }
}

fn architecture<'a, R: ReadAt>(gguf: &'a Gguf<R>, place: &str) -> Result<&'a str> {
    let unsupported =
        |what: String, remedy: &str| Error::Unsupported { place: place.to_string(), what, remedy: remedy.to_string() };
    match gguf.get("general.architecture").and_then(Value::as_str) {
        Some(name @ ("llama" | "mistral")) => {
            for tensor in &gguf.tensors {
                if tensor.name.ends_with(".bias") {
                    return Err(unsupported(
                        format!("the bias `{}`", tensor.name),
                        "Only models without biases are implemented.",
                    ));
                }
                if tensor.name == "rope_freqs.weight" {
                    return Err(unsupported(
                        "rope scaling (the tensor `rope_freqs.weight`)".to_string(),
                        "Only plain rotary embeddings are implemented.",
                    ));
                }
            }
            Ok(name)
        }
        Some(other) => Err(unsupported(
            format!("the architecture `{other}`"),
            "Accepted are `llama` (which llama.cpp writes for Mistral too) and `mistral`.",
        )),
        None => Err(Error::ModelConfig {
            place: place.to_string(),
            field: "general.architecture".to_string(),
            problem: "it is missing".to_string(),
            remedy: "Take a GGUF file of a language model.".to_string(),
        }),
    }
}

/// GGUF's keys under the names of config.json, so that one set of checks serves both.
fn config<R: ReadAt>(gguf: &Gguf<R>, architecture: &str, place: &str) -> Result<Config> {
    let get = |key: &str| gguf.get(&format!("{architecture}.{key}"));
    let wrong = |key: &str, problem: String| Error::ModelConfig {
        place: place.to_string(),
        field: format!("{architecture}.{key}"),
        problem,
        remedy: "Convert the model again with a current llama.cpp.".to_string(),
    };
    let unsupported =
        |what: String, remedy: &str| Error::Unsupported { place: place.to_string(), what, remedy: remedy.to_string() };
    let size = |key: &str| match get(key) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| {
            wrong(key, "it is not one whole number (a list would mean layers of different kinds)".to_string())
        }),
    };
    let required = |key: &str| size(key)?.ok_or_else(|| wrong(key, "it is missing".to_string()));
    let number = |key: &str, default: Option<f64>| match get(key) {
        // f32 in the file: its shortest decimal (1e-5) is the number that was meant.
        Some(value) => value
            .as_f64()
            .and_then(|value| (value as f32).to_string().parse::<f64>().ok())
            .filter(|value| value.is_finite())
            .ok_or_else(|| wrong(key, "it is not a number".to_string())),
        None => default.ok_or_else(|| wrong(key, "it is missing".to_string())),
    };
    if let Some(kind) = get("rope.scaling.type").and_then(Value::as_str)
        && kind != "none"
    {
        return Err(unsupported(
            format!("rope scaling (rope.scaling.type = {kind})"),
            "Only plain rotary embeddings are implemented.",
        ));
    }
    for key in ["rope.scaling.factor", "rope.scale_linear"] {
        if number(key, Some(1.0))? != 1.0 {
            return Err(unsupported(format!("rope scaling ({key})"), "Only plain rotary embeddings are implemented."));
        }
    }
    if size("expert_count")?.unwrap_or(0) > 0 {
        return Err(unsupported(
            "a mixture of experts (expert_count)".to_string(),
            "Only dense models are implemented.",
        ));
    }
    let embedding = gguf.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    // The table itself says how many tokens there are; the keys are often left out.
    let vocabulary = match embedding.and_then(|tensor| tensor.shape.first()) {
        Some(rows) => *rows as u64,
        None => required("vocab_size")?,
    };
    let heads = required("attention.head_count")?;
    let kv_heads = size("attention.head_count_kv")?.unwrap_or(heads);
    let head_dim = size("attention.key_length")?;
    let shared = head_dim.or(required("embedding_length")?.checked_div(heads));
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(value) = size(key)?
            && Some(value) != shared
        {
            return Err(unsupported(
                format!("{key} = {value} beside a head size of {}", shared.unwrap_or(0)),
                "Keys, values and rotation must have one size.",
            ));
        }
    }
    let window = size("attention.sliding_window")?.filter(|window| *window > 0);
    let token = |key: &str| gguf.get(&format!("tokenizer.ggml.{key}")).and_then(Value::as_u64);
    let mut stops: Vec<u64> = token("eos_token_id").into_iter().collect();
    for key in ["eot_token_id", "eom_token_id"] {
        stops.extend(token(key).filter(|id| !stops.contains(id)));
    }

    let mut map = Map::new();
    // llama.cpp writes Mistral as `llama`; a window tells them apart, and without one they are the same model.
    let family = if architecture == "mistral" || window.is_some() { "mistral" } else { "llama" };
    let fields = [
        ("model_type", json!(family)),
        ("vocab_size", json!(vocabulary)),
        ("hidden_size", json!(required("embedding_length")?)),
        ("intermediate_size", json!(required("feed_forward_length")?)),
        ("num_hidden_layers", json!(required("block_count")?)),
        ("num_attention_heads", json!(heads)),
        ("num_key_value_heads", json!(kv_heads)),
        ("head_dim", json!(head_dim)),
        ("max_position_embeddings", json!(required("context_length")?)),
        ("rms_norm_eps", json!(number("attention.layer_norm_rms_epsilon", None)?)),
        ("rope_theta", json!(number("rope.freq_base", Some(10_000.0))?)),
        ("sliding_window", json!(window)),
        ("tie_word_embeddings", json!(!gguf.tensors.iter().any(|tensor| tensor.name == "output.weight"))),
        ("bos_token_id", json!(token("bos_token_id"))),
        ("eos_token_id", json!(stops)),
    ];
    map.extend(fields.map(|(name, value)| (name.to_string(), value)));
    Config::from_map(map, place)
}

/// `model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`.
pub(super) fn gguf_name(name: &str) -> String {
    const PARTS: [(&str, &str); 9] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    if let Some((layer, part)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
        let part = part.strip_suffix(".weight").unwrap_or(part);
        let found = PARTS.iter().find(|(ours, _)| *ours == part);
        return format!("blk.{layer}.{}.weight", found.map_or(part, |(_, theirs)| theirs));
    }
    match name {
        "model.embed_tokens.weight" => "token_embd.weight",
        "model.norm.weight" => "output_norm.weight",
        "lm_head.weight" => "output.weight",
        other => other,
    }
    .to_string()
}

fn report<R>(gguf: &Gguf<R>, used: &[&TensorInfo]) -> LoadReport {
    let mut dtypes: BTreeMap<String, usize> = BTreeMap::new();
    for tensor in used {
        *dtypes.entry(format!("{:?}", tensor.dtype)).or_default() += 1;
    }
    let known: std::collections::HashSet<&str> = used.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut unused: Vec<String> = gguf
        .tensors
        .iter()
        .filter(|tensor| !known.contains(tensor.name.as_str()))
        .map(|tensor| tensor.name.clone())
        .collect();
    unused.sort();
    LoadReport { unused, dtypes: dtypes.into_iter().collect() }
}

impl<R: ReadAt> Gguf<R> {
    /// Values of `tensor` from `first` (which begins a block) into `out`, piece by piece: the quantised tensor is never whole
    /// in memory.
    pub fn dequantize(&self, tensor: &TensorInfo, first: usize, out: &mut [f32]) -> Result<()> {
        let (source, path) = self.source(tensor);
        let io = |error| Error::io(path, "read", error);
        let float = match tensor.dtype {
            GgmlDType::F32 => Some(FloatType::F32),
            GgmlDType::F16 => Some(FloatType::F16),
            GgmlDType::BF16 => Some(FloatType::BF16),
            _ => None,
        };
        if let Some(float) = float {
            let start = tensor.range.start + (first * float.bytes()) as u64;
            return read_floats(source, float, start, out).map_err(io);
        }
        let dtype = tensor.dtype;
        let first = tensor.range.start + (first / dtype.block_size() * dtype.type_size()) as u64;
        // A power of two, as the block sizes are: every piece starts at a block.
        let chunk_bytes = CHUNK / dtype.block_size() * dtype.type_size();
        out.par_chunks_mut(CHUNK).enumerate().try_for_each(|(index, out)| {
            let length = out.len() / dtype.block_size() * dtype.type_size();
            // candle reinterprets the bytes as blocks and asserts their alignment.
            let mut buffer = vec![0u8; length + BLOCK_ALIGNMENT];
            let start = buffer.as_ptr().align_offset(BLOCK_ALIGNMENT).min(BLOCK_ALIGNMENT);
            let bytes = &mut buffer[start..start + length];
            source.read_exact_at(bytes, first + (index * chunk_bytes) as u64).map_err(io)?;
            let values = blocks_to_floats(dtype, bytes, out.len()).map_err(|error| {
                Error::format(&path.display().to_string(), format!("tensor `{}`: {error}", tensor.name))
            })?;
            out.copy_from_slice(&values);
            Ok(())
        })
    }
}

/// Where llama.cpp has the row of a projection whose heads it interleaves: row s·D/2 + i of a head is its row 2i + s.
pub(super) fn interleaved_row(row: usize, head_dim: usize) -> usize {
    let (head, row) = (row / head_dim, row % head_dim);
    let (half, pair) = (row / (head_dim / 2), row % (head_dim / 2));
    head * head_dim + 2 * pair + half
}

/// The other way round: which of our rows is llama.cpp's row 2i + s of a head.
pub(super) fn ours_of_interleaved(row: usize, head_dim: usize) -> usize {
    let (head, row) = (row / head_dim, row % head_dim);
    head * head_dim + row % 2 * (head_dim / 2) + row / 2
}

/// Undoes llama.cpp's permutation (`columns` values a row).
pub(super) fn deinterleave_heads(weight: &mut [f32], head_dim: usize, columns: usize) {
    weight.par_chunks_mut(head_dim * columns).for_each(|head| {
        let interleaved = head.to_vec();
        for (row, values) in head.chunks_exact_mut(columns).enumerate() {
            values.copy_from_slice(&interleaved[interleaved_row(row, head_dim) * columns..][..columns]);
        }
    });
}
