//! An HF folder: config.json, and model.safetensors or an index with shards.

use super::index::{INDEX, Index, missing};
use super::safetensors::{FloatType, SafeTensorsFile, TensorInfo, WEIGHT_DTYPES};
use super::{LoadReport, Loaded, Source, pickle};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::{Layout, TensorSpec, Weights};
use crate::storage::Storage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
/// An index of a thousand layers has a few megabytes.
const MAX_JSON: u64 = 64 << 20;

/// Which file holds which tensor.
struct Shards {
    files: Vec<SafeTensorsFile>,
    /// Its shards are `files`. `None`: there is one file, which holds all.
    index: Option<Index>,
}

/// Loads `folder`; `file` is its only weights file where the caller named one.
///
/// # Errors
/// `ZA_MODEL_NOT_FOUND`, `ZA_MODEL_FORMAT`, `ZA_MODEL_CONFIG`, `ZA_MODEL_UNSUPPORTED`, `ZA_SHARD_MISSING`,
/// `ZA_TENSOR_MISSING`, `ZA_TENSOR_SHAPE`, `ZA_TENSOR_DTYPE`, `ZA_OUT_OF_MEMORY`, `ZA_IO`.
pub fn load(folder: &Path, file: Option<&Path>, storage: Storage) -> Result<Loaded> {
    let config = read_config(folder)?;
    let layout = Layout::new(&config);
    let shards = match file {
        Some(file) => Shards { files: vec![SafeTensorsFile::open(file)?], index: None },
        None => open_shards(folder)?,
    };
    let mut places = Vec::with_capacity(layout.tensors.len());
    for spec in &layout.tensors {
        places.push(locate(spec, &config, &shards)?);
    }
    let report = report(&layout, &config, &shards, &places);
    let what = format!("The model in {}", folder.display());
    let weights = Weights::read_with(config, layout.clone(), storage, &what, |index, start, out| {
        let (file, tensor) = places[index];
        file.read_part(tensor, start, out)
    })?;
    Ok(Loaded { weights, source: Source::HfFolder, tokenizer_gguf: None, report })
}

fn read_config(folder: &Path) -> Result<Config> {
    let path = folder.join("config.json");
    let text = read_text(&path)?.ok_or_else(|| Error::ModelNotFound {
        path: folder.to_path_buf(),
        problem: "the folder holds no config.json".to_string(),
    })?;
    let mut config = Config::from_json(&text, &path.display().to_string())?;
    // transformers' generate() stops at the ids of this file, which are often more than config.json names.
    let path = folder.join("generation_config.json");
    if let Some(text) = read_text(&path)? {
        take_generation_config(&mut config, &text, &path.display().to_string())?;
    }
    Ok(config)
}

/// Takes what a generation_config.json says: the end tokens, if it names any, and all its fields for the folder that is saved.
pub(super) fn take_generation_config(config: &mut Config, text: &str, place: &str) -> Result<()> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| Error::format(place, format!("this is not JSON ({error})")))?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Vec<u32> = match value.get("eos_token_id") {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    };
    if !ids.is_empty() {
        config.eos_token_ids = ids;
    }
    if let Value::Object(fields) = value {
        config.generation = fields;
    }
    Ok(())
}

/// The text of a small file, or `None` where there is none.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>> {
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, "read", error)),
    };
    if size > MAX_JSON {
        return Err(Error::format(&path.display().to_string(), format!("{size} bytes are too many for this file")));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(Error::format(&path.display().to_string(), "this is not UTF-8 text"))
        }
        Err(error) => Err(Error::io(path, "read", error)),
    }
}

fn open_shards(folder: &Path) -> Result<Shards> {
    // The order of transformers: the single file wins over an index.
    let single = folder.join(SINGLE);
    if single.exists() {
        return Ok(Shards { files: vec![SafeTensorsFile::open(&single)?], index: None });
    }
    let index = folder.join(INDEX);
    if let Some(text) = read_text(&index)? {
        return open_index(folder, &index, &text);
    }
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"] {
        let path = folder.join(name);
        if path.exists() {
            return Err(pickle(&path));
        }
    }
    Err(Error::ModelNotFound {
        path: folder.to_path_buf(),
        problem: format!("the folder holds neither {SINGLE} nor {INDEX}"),
    })
}

fn open_index(folder: &Path, path: &Path, text: &str) -> Result<Shards> {
    let index = Index::read(text, &path.display().to_string())?;
    // All of them before the first is read.
    for (place, (name, _)) in index.shards.iter().enumerate() {
        let path = folder.join(name);
        if !path.exists() {
            return Err(index.shard_missing(place, path));
        }
    }
    let files =
        index.shards.iter().map(|(name, _)| SafeTensorsFile::open(&folder.join(name))).collect::<Result<_>>()?;
    Ok(Shards { files, index: Some(index) })
}

fn locate<'a>(spec: &TensorSpec, config: &Config, shards: &'a Shards) -> Result<(&'a SafeTensorsFile, &'a TensorInfo)> {
    let name = &spec.name;
    let position = match &shards.index {
        None => 0,
        Some(index) => index.shard_of(name).ok_or_else(|| missing(INDEX, name, config))?,
    };
    let file = &shards.files[position];
    let tensor = file.find(name).ok_or_else(|| missing(&file.path.display().to_string(), name, config))?;
    check(spec, tensor, &file.path)?;
    Ok((file, tensor))
}

/// Whether a tensor of that file has the shape that is asked for, and a type that can be read.
pub(super) fn check(spec: &TensorSpec, tensor: &TensorInfo, path: &Path) -> Result<()> {
    let (place, name) = (path.display().to_string(), spec.name.clone());
    if tensor.shape != spec.shape {
        let (expected, found) = (spec.shape.clone(), tensor.shape.clone());
        return Err(Error::TensorShape { place, tensor: name, expected, found });
    }
    if FloatType::of(tensor.dtype).is_none() {
        let found = tensor.dtype.to_string();
        return Err(Error::TensorDtype { place, tensor: name, found, accepted: WEIGHT_DTYPES });
    }
    Ok(())
}

fn report(layout: &Layout, config: &Config, shards: &Shards, places: &[(&SafeTensorsFile, &TensorInfo)]) -> LoadReport {
    let mut dtypes: BTreeMap<String, usize> = BTreeMap::new();
    for (_, tensor) in places {
        *dtypes.entry(tensor.dtype.to_string()).or_default() += 1;
    }
    let known: std::collections::HashSet<&str> = layout.tensors.iter().map(|spec| spec.name.as_str()).collect();
    // A tied model's head is the embedding once more; older files carry it.
    let tied_head = |name: &str| config.tie_word_embeddings && name == "lm_head.weight";
    let mut unused: Vec<String> = shards
        .files
        .iter()
        .flat_map(|file| file.tensors())
        .filter(|tensor| !known.contains(tensor.name.as_str()) && !tied_head(&tensor.name))
        .map(|tensor| tensor.name.clone())
        .collect();
    // A copy of a known tensor in a shard that the index does not name for it is as unused as an unknown one.
    if let Some(index) = &shards.index {
        for (position, file) in shards.files.iter().enumerate() {
            let stale = |tensor: &&TensorInfo| {
                known.contains(tensor.name.as_str()) && index.shard_of(&tensor.name).is_some_and(|own| own != position)
            };
            let file_name = file.path.file_name().unwrap_or_default().to_string_lossy();
            unused.extend(
                file.tensors().iter().filter(stale).map(|tensor| format!("{} (copy in {file_name})", tensor.name)),
            );
        }
    }
    unused.sort();
    LoadReport { unused, dtypes: dtypes.into_iter().collect() }
}

/// The file that a save replaces; kept here so that reader and writer agree on names.
pub(crate) fn index_path(folder: &Path) -> PathBuf {
    folder.join(INDEX)
}

pub(crate) fn single_path(folder: &Path) -> PathBuf {
    folder.join(SINGLE)
}
