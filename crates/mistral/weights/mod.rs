//! Models on disk, into the flat f32 arena and back.
//!
//! ```text
//! read_at      positioned reads, so that several threads read one file (and no map that a truncation turns into SIGBUS)
//! safetensors  the container: guarded header, F32/F16/BF16 values
//! folder       an HF folder: config.json, one file or an index with shards
//! index        which shard holds which tensor
//! gguf         llama.cpp's container, dequantised
//! arriving     the same formats piece by piece, as over a network
//! save         an HF folder that transformers loads, never half-written
//! ```
//! Everything is checked (names, shapes, types, extents) before the model's memory is asked for.

mod arriving;
pub mod folder;
pub mod gguf;
mod index;
pub mod read_at;
pub mod safetensors;
pub mod save;

use crate::error::{Error, Result};
use crate::layout::Weights;
use crate::storage::Storage;
pub use arriving::Arriving;
use safetensors::SafeTensorsFile;
use serde_json::{Map, Value};
use std::path::Path;

/// Values converted by one task: small enough to stay in a core's cache, large enough to hide the system call.
pub(crate) const CHUNK: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    HfFolder,
    Gguf,
}

/// What a user should know of a loading that went well.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadReport {
    /// Tensors of the files that the model does not use, by name, sorted.
    pub unused: Vec<String>,
    /// The stored types with their number of tensors, e.g. `("BF16", 291)`, sorted.
    pub dtypes: Vec<(String, usize)>,
}

#[derive(Debug)]
pub struct Loaded {
    pub weights: Weights,
    pub source: Source,
    /// The `tokenizer.*` keys of a GGUF file, for the text crate; an HF folder has tokenizer.json instead.
    pub tokenizer_gguf: Option<Map<String, Value>>,
    pub report: LoadReport,
}

/// Loads an HF folder (or a `.safetensors` file in one) or a GGUF file as f32.
///
/// # Errors
/// As [`load_as`].
pub fn load(path: &Path) -> Result<Loaded> {
    load_as(path, Storage::F32)
}

/// Loads an HF folder (or a `.safetensors` file in one) or a GGUF file, and keeps its weights in that form. Each tensor is
/// converted as it is read: the model is never whole in memory as f32 unless that is what it is kept as.
///
/// # Errors
/// `ZA_MODEL_NOT_FOUND`, and what [`folder::load`] and [`gguf::load`] give. There is no partial model.
pub fn load_as(path: &Path, storage: Storage) -> Result<Loaded> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::ModelNotFound { path: path.to_path_buf(), problem: "there is no such file or folder".to_string() }
        }
        _ => Error::io(path, "look at it", error),
    })?;
    if metadata.is_dir() {
        return folder::load(path, None, storage);
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("gguf") => gguf::load(path, storage),
        Some("safetensors") => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            folder::load(parent.unwrap_or(Path::new(".")), Some(path), storage)
        }
        Some("bin" | "pt" | "pth" | "ckpt") => Err(pickle(path)),
        _ => Err(Error::Unsupported {
            place: path.display().to_string(),
            what: "this kind of file".to_string(),
            remedy: "Give a folder with config.json and safetensors, or a .gguf file.".to_string(),
        }),
    }
}

/// Opens a safetensors file of any content: tensors, metadata, values.
pub fn read_safetensors(path: &Path) -> Result<SafeTensorsFile> {
    SafeTensorsFile::open(path)
}

fn pickle(path: &Path) -> Error {
    Error::Unsupported {
        place: path.display().to_string(),
        what: "a pickle checkpoint (.bin, .pt): reading it can run foreign code, and it".to_string(),
        remedy: "Convert the model to safetensors (in Python: save_pretrained with safe_serialization=True)."
            .to_string(),
    }
}

/// Memory of the model, zeroed; a refusal by the system is an error, not the end of the process.
pub(crate) fn arena<T: Clone + Default>(length: usize, what: &str) -> Result<Vec<T>> {
    let mut probe: Vec<T> = Vec::new();
    if probe.try_reserve_exact(length).is_err() {
        return Err(Error::OutOfMemory { what: what.to_string(), bytes: length.saturating_mul(size_of::<T>()) });
    }
    // Given back and taken again: zeroed memory comes as untouched pages, where resizing the probe would write it all twice.
    drop(probe);
    Ok(vec![T::default(); length])
}

#[cfg(test)]
pub(crate) mod allocation;
#[cfg(test)]
mod fuzz_test;
#[cfg(test)]
mod guards_test;
#[cfg(test)]
pub(crate) mod test;
