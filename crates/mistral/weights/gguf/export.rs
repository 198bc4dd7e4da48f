//! A model as a GGUF file that llama.cpp loads.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};
use zephyr_kernels::quantised::Kind;

use super::ggml::{GgmlDType, kind};
use super::model::{gguf_name, ours_of_interleaved};
use super::write::{ALIGNMENT, HeaderBuilder};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::{TensorSpec, Weights};
use crate::storage::Storage;
use crate::weights::safetensors::FloatType;
use crate::weights::save::{Staged, encode, sync_folder};

/// Values that are in memory at one time while they are rounded.
const PIECE: usize = 1 << 20;

/// What a file's matrices are rounded to. Norms stay f32 in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum FileType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    /// llama.cpp's mixture Q4_K_M.
    Q4_K,
}

/// Name, number (`general.file_type`) and type of most matrices.
const FILE_TYPES: [(FileType, &str, u32, GgmlDType); 6] = [
    (FileType::F32, "F32", 0, GgmlDType::F32),
    (FileType::F16, "F16", 1, GgmlDType::F16),
    (FileType::BF16, "BF16", 32, GgmlDType::BF16),
    (FileType::Q8_0, "Q8_0", 7, GgmlDType::Q8_0),
    (FileType::Q4_0, "Q4_0", 2, GgmlDType::Q4_0),
    (FileType::Q4_K, "Q4_K", 15, GgmlDType::Q4K),
];

impl FileType {
    /// The type of that name.
    pub fn parse(name: &str) -> Option<Self> {
        FILE_TYPES.iter().find(|(_, own, ..)| *own == name).map(|(own, ..)| *own)
    }

    fn number(self) -> u32 {
        FILE_TYPES[self as usize].2
    }

    /// The type of a tensor, as `llama-quantize` chooses it: the output (the embedding, where they are one) in more bits, in
    /// Q4_K also half of the value and down projections; what does not fit whole blocks in the next larger type that does.
    fn of(self, spec: &TensorSpec, config: &Config) -> GgmlDType {
        if spec.shape.len() == 1 {
            return GgmlDType::F32;
        }
        let columns = spec.shape.last().copied().unwrap_or(0);
        let most = FILE_TYPES[self as usize].3;
        let few_bits = matches!(self, Self::Q4_0 | Self::Q4_K);
        let output = if config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let more = match layer_part(&spec.name) {
            Some((layer, "self_attn.v_proj" | "mlp.down_proj")) => {
                self == Self::Q4_K && more_bits(layer, config.layers)
            }
            _ => few_bits && spec.name == output,
        };
        let mut dtype = if more { GgmlDType::Q6K } else { most };
        while !columns.is_multiple_of(dtype.block_size()) {
            dtype = match dtype {
                GgmlDType::Q4K => GgmlDType::Q5_0,
                GgmlDType::Q6K => GgmlDType::Q8_0,
                _ => GgmlDType::F16,
            };
        }
        dtype
    }
}

/// The first and the last eighth of the layers, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// `model.layers.3.mlp.down_proj.weight` → 3, `mlp.down_proj`.
fn layer_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    Some((layer.parse().ok()?, part.strip_suffix(".weight")?))
}

/// What a file holds beside the weights.
pub struct Description<'a> {
    /// `general.name`.
    pub name: &'a str,
    /// The `tokenizer.*` keys, from the text crate.
    pub tokenizer: &'a Map<String, Value>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// Of the file.
    pub bytes: u64,
    /// ggml's types with their number of tensors, sorted.
    pub types: Vec<(String, usize)>,
    /// What the file says less exactly than the model, in sentences.
    pub notes: Vec<String>,
}

/// Writes the file, flushed and renamed when it is whole. The same model gives the same bytes.
///
/// # Errors
/// `ZA_MODEL_UNSUPPORTED` for a value that the type cannot hold (named with its tensor), `ZA_DISK_FULL`, `ZA_IO`.
pub fn export(weights: &Weights, path: &Path, file_type: FileType, description: &Description) -> Result<Exported> {
    let config = &weights.config;
    let plan: Vec<(&TensorSpec, GgmlDType)> =
        weights.layout.tensors.iter().map(|spec| (spec, file_type.of(spec, config))).collect();
    let mut header = HeaderBuilder::default();
    describe(&mut header, weights, file_type, description);
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    for (spec, dtype) in &plan {
        *types.entry(name_of(*dtype)).or_default() += 1;
        header.tensor(&gguf_name(&spec.name), &spec.shape, *dtype, row_bytes(spec, *dtype) * rows(spec));
    }

    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, "create the folder", error))?;
    let mut file = Staged::create(path.to_path_buf())?;
    let head = header.bytes();
    let mut bytes = head.len() as u64;
    file.write(&head)?;
    for (spec, dtype) in &plan {
        bytes += write_tensor(&mut file, weights, spec, *dtype, path)?;
    }
    file.finish()?;
    file.publish()?;
    sync_folder(folder)?;
    Ok(Exported { bytes, types: types.into_iter().collect(), notes: notes(weights) })
}

/// The keys of llama.cpp's converter, in its order.
fn describe(header: &mut HeaderBuilder, weights: &Weights, file_type: FileType, description: &Description) {
    let config = &weights.config;
    let size = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    header.text("general.architecture", "llama");
    header.text("general.type", "model");
    header.text("general.name", description.name);
    header.text("general.size_label", &size_label(weights.layout.len));
    for (key, value) in [
        ("vocab_size", config.vocab_size),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.layers),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ] {
        header.u32(&format!("llama.{key}"), size(value));
    }
    header.f32("llama.rope.freq_base", config.rope_theta as f32);
    header.f32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    if let Some(window) = config.sliding_window {
        header.u32("llama.attention.sliding_window", size(window));
    }
    header.u32("general.file_type", file_type.number());
    header.u32("general.quantization_version", 2);
    for (key, value) in description.tokenizer {
        header.json(key, value);
    }
}

/// `135M`, `7.2B`: as llama.cpp's converter rounds it.
fn size_label(parameters: usize) -> String {
    let count = parameters as f64;
    let (scaled, unit) = match count {
        _ if count > 1e12 => (count * 1e-12, "T"),
        _ if count > 1e9 => (count * 1e-9, "B"),
        _ if count > 1e6 => (count * 1e-6, "M"),
        _ => (count * 1e-3, "K"),
    };
    let decimals = usize::from(scaled.round_ties_even() < 10.0);
    format!("{scaled:.decimals$}{unit}")
}

fn notes(weights: &Weights) -> Vec<String> {
    let mut notes = Vec::new();
    let config = &weights.config;
    if let Some(window) = config.sliding_window.filter(|window| *window < config.max_position_embeddings) {
        notes.push(format!(
            "llama.cpp lets a token attend to all before it; the model's window of {window} is in the file, and is ignored there"
        ));
    }
    if matches!(weights.storage(), Storage::Nf4 | Storage::Gguf) {
        let storage = weights.storage().name();
        notes.push(format!("the weights were kept as {storage}: what that rounded away stays away"));
    }
    notes
}

fn rows(spec: &TensorSpec) -> u64 {
    if spec.shape.len() == 1 { 1 } else { spec.shape[0] as u64 }
}

fn row_bytes(spec: &TensorSpec, dtype: GgmlDType) -> u64 {
    let columns = spec.shape.last().copied().unwrap_or(0);
    (columns / dtype.block_size() * dtype.type_size()) as u64
}

/// ggml's name.
fn name_of(dtype: GgmlDType) -> String {
    kind(dtype).map_or_else(|| format!("{dtype:?}"), |kind| format!("{kind:?}"))
}

/// Writes a tensor and what fills it up to the alignment; returns their bytes.
fn write_tensor(file: &mut Staged, weights: &Weights, spec: &TensorSpec, dtype: GgmlDType, path: &Path) -> Result<u64> {
    let columns = spec.shape.last().copied().unwrap_or(0);
    let (rows, row_bytes) = (rows(spec) as usize, row_bytes(spec, dtype) as usize);
    let head_dim = weights.config.head_dim;
    let interleaved = spec.name.ends_with("q_proj.weight") || spec.name.ends_with("k_proj.weight");
    let at_once = (PIECE / columns.max(1)).max(1);
    let mut bytes = vec![0; at_once.min(rows) * row_bytes];
    for first in (0..rows).step_by(at_once) {
        let bytes = &mut bytes[..at_once.min(rows - first) * row_bytes];
        let rows = bytes.par_chunks_exact_mut(row_bytes).enumerate();
        rows.try_for_each_init(
            || vec![0.0; columns],
            |values, (row, bytes)| {
                let row = first + row;
                let ours = if interleaved { ours_of_interleaved(row, head_dim) } else { row };
                weights.read(spec, ours * columns, values);
                round(dtype, values, bytes).map_err(|value| unsuitable(path, spec, dtype, value))
            },
        )?;
        file.write(bytes)?;
    }
    let written = rows * row_bytes;
    let filled = written.next_multiple_of(ALIGNMENT);
    file.write(&[0; ALIGNMENT][..filled - written])?;
    Ok(filled as u64)
}

/// The bytes of a row; the error is a value that the type cannot hold.
fn round(dtype: GgmlDType, values: &[f32], bytes: &mut [u8]) -> std::result::Result<(), f32> {
    let float = match dtype {
        GgmlDType::F32 => FloatType::F32,
        GgmlDType::F16 => FloatType::F16,
        GgmlDType::BF16 => FloatType::BF16,
        _ => return block_kind(dtype).quantise(values, bytes),
    };
    encode(values, float, bytes)
}

fn block_kind(dtype: GgmlDType) -> Kind {
    kind(dtype).unwrap_or_else(|| unreachable!("{dtype:?} is not among the types that are written"))
}

fn unsuitable(path: &Path, spec: &TensorSpec, dtype: GgmlDType, value: f32) -> Error {
    let remedy = if value.is_finite() {
        "Its scales end at 65504: export as BF16 or F32."
    } else {
        "The weights are damaged, or training has diverged."
    };
    Error::Unsupported {
        place: path.display().to_string(),
        what: format!("{} for the value {value:e} in tensor `{}`", name_of(dtype), spec.name),
        remedy: remedy.to_string(),
    }
}

#[cfg(test)]
mod test;
