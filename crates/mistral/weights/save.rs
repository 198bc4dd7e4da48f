//! An HF folder that transformers loads. Every file is written under a temporary name beside its place, flushed to the
//! disk, and renamed when all are there: an interrupted or failed save leaves nothing half-written under a final name.

use super::CHUNK;
use super::folder::{index_path, single_path};
use super::safetensors::{FloatType, HeaderBuilder};
use crate::error::{Error, Result};
use crate::layout::{TensorSpec, Weights};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Saves `weights` as `dtype` (rounded to nearest even) with config.json and generation_config.json.
///
/// One `model.safetensors` where everything fits in `max_shard_bytes`, else shards and an index; a tensor larger than
/// that gets a shard of its own. Weight files of an earlier save in the folder that the new one does not replace are removed.
/// Returns the files written.
///
/// # Errors
/// `ZA_DISK_FULL`, `ZA_IO`; `ZA_MODEL_UNSUPPORTED` where F16 cannot hold a value.
pub fn save_safetensors(
    weights: &Weights,
    folder: &Path,
    dtype: FloatType,
    max_shard_bytes: u64,
) -> Result<Vec<PathBuf>> {
    // The empty path names the current folder when joined, but cannot be listed.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, "create the folder", error))?;
    let shards = shards(weights, dtype, max_shard_bytes);
    let mut staged = Vec::new();
    let mut weight_map = Map::new();
    for (index, tensors) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(name))));
        let mut file = Staged::create(folder.join(name))?;
        write_tensors(&mut file, tensors, dtype, |tensor, start, out| weights.read(tensor, start, out))?;
        staged.push(file);
    }
    if shards.len() > 1 {
        let total = weights.layout.len as u64 * dtype.bytes() as u64;
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        staged.push(Staged::json(index_path(folder), &index)?);
    }
    staged.push(Staged::json(folder.join("config.json"), &config_json(weights, dtype))?);
    staged.push(Staged::json(folder.join("generation_config.json"), &generation_json(weights))?);

    let mut written = Vec::with_capacity(staged.len());
    for file in staged {
        written.push(file.publish()?);
    }
    remove_stale(folder, &written)?;
    sync_folder(folder)?;
    Ok(written)
}

/// Consecutive tensors, up to the limit each.
fn shards(weights: &Weights, dtype: FloatType, max_bytes: u64) -> Vec<Vec<&TensorSpec>> {
    let mut shards: Vec<Vec<&TensorSpec>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in &weights.layout.tensors {
        let bytes = (tensor.range.len() * dtype.bytes()) as u64;
        if filled > 0 && filled + bytes > max_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

/// Writes one safetensors file of `tensors`; `read` gives the values of a tensor from a place on.
pub(crate) fn write_tensors(
    file: &mut Staged,
    tensors: &[&TensorSpec],
    dtype: FloatType,
    read: impl Fn(&TensorSpec, usize, &mut [f32]),
) -> Result<()> {
    // transformers refuses a file that does not name its format.
    let mut head = HeaderBuilder::new(&[("format", "pt")]);
    for tensor in tensors {
        head.add(&tensor.name, &format!("{dtype:?}"), &tensor.shape, tensor.range.len() * dtype.bytes());
    }
    file.write(&head.bytes())?;
    let mut bytes = vec![0; CHUNK * dtype.bytes()];
    let mut values = vec![0.0; CHUNK];
    for tensor in tensors {
        for start in (0..tensor.range.len()).step_by(CHUNK) {
            let values = &mut values[..CHUNK.min(tensor.range.len() - start)];
            let bytes = &mut bytes[..values.len() * dtype.bytes()];
            read(tensor, start, values);
            encode(values, dtype, bytes).map_err(|value| Error::Unsupported {
                place: file.target.display().to_string(),
                what: format!("F16 for the value {value:e} in tensor `{}`", tensor.name),
                remedy: "F16 ends at 65504: save as BF16 or F32.".to_string(),
            })?;
            file.write(bytes)?;
        }
    }
    file.finish()
}

/// Writes the little-endian bytes; a finite value that F16 would turn into infinity comes back as the error.
pub(crate) fn encode(values: &[f32], dtype: FloatType, bytes: &mut [u8]) -> std::result::Result<(), f32> {
    match dtype {
        FloatType::F32 => {
            for (value, bytes) in values.iter().zip(bytes.as_chunks_mut::<4>().0) {
                *bytes = value.to_le_bytes();
            }
        }
        FloatType::BF16 => {
            for (value, bytes) in values.iter().zip(bytes.as_chunks_mut::<2>().0) {
                *bytes = bf16::from_f32(*value).to_le_bytes();
            }
        }
        FloatType::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            for ((value, half), bytes) in values.iter().zip(&halves).zip(bytes.as_chunks_mut::<2>().0) {
                if half.is_infinite() && value.is_finite() {
                    return Err(*value);
                }
                *bytes = half.to_le_bytes();
            }
        }
    }
    Ok(())
}

fn config_json(weights: &Weights, dtype: FloatType) -> Value {
    let mut config = weights.config.to_json();
    if let Some(map) = config.as_object_mut() {
        let name = match dtype {
            FloatType::F32 => "float32",
            FloatType::F16 => "float16",
            FloatType::BF16 => "bfloat16",
        };
        // transformers 5 writes `dtype`, but reads this name too; 4 reads only this one.
        map.shift_remove("dtype");
        map.insert("torch_dtype".to_string(), json!(name));
    }
    config
}

fn generation_json(weights: &Weights) -> Value {
    let config = weights.config.to_json();
    let mut out = weights.config.generation.clone();
    if out.is_empty() {
        out.insert("_from_model_config".to_string(), json!(true));
    }
    for name in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(value) = config.get(name).filter(|value| !value.is_null()) {
            out.insert(name.to_string(), value.clone());
        }
    }
    Value::Object(out)
}

/// A file under its temporary name; dropped before [`Staged::publish`], it is removed again.
pub(crate) struct Staged {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    published: bool,
}

impl Staged {
    pub(crate) fn create(target: PathBuf) -> Result<Staged> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = target.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(|error| Error::io(&target, "create it", error))?;
        Ok(Staged { target, temporary, file, published: false })
    }

    pub(crate) fn json(target: PathBuf, value: &Value) -> Result<Staged> {
        let mut file = Staged::create(target)?;
        file.write(format!("{value:#}\n").as_bytes())?;
        file.finish()?;
        Ok(file)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io(&self.target, "write", error))
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io(&self.target, "write", error))
    }

    pub(crate) fn publish(mut self) -> Result<PathBuf> {
        std::fs::rename(&self.temporary, &self.target).map_err(|error| Error::io(&self.target, "rename", error))?;
        self.published = true;
        Ok(self.target.clone())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // Nothing better can be done here: the error that led to this is on its way to the user.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Readers take `model.safetensors` before an index: what is left of an earlier save would be read instead of this one.
fn remove_stale(folder: &Path, written: &[PathBuf]) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder, "list the folder", error))?;
    for entry in entries {
        let path = entry.map_err(|error| Error::io(folder, "list the folder", error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = path == single_path(folder) || path == index_path(folder) || is_shard(&name);
        if ours && !written.contains(&path) {
            std::fs::remove_file(&path).map_err(|error| Error::io(&path, "remove the earlier save", error))?;
        }
    }
    Ok(())
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let middle = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    middle.and_then(|middle| middle.split_once("-of-")).is_some_and(|(left, right)| digits(left) && digits(right))
}

/// The names themselves must reach the disk too.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io(folder, "flush the folder", error))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
