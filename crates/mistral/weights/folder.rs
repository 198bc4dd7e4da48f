//! An HF folder: config.json, and model.safetensors or an index with shards.

use super::safetensors::{FloatType, SafeTensorsFile, TensorInfo, WEIGHT_DTYPES};
use super::{LoadReport, Loaded, Source, pickle};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::{Layout, TensorSpec, Weights};
use crate::storage::Storage;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// An index of a thousand layers has a few megabytes.
const MAX_JSON: u64 = 64 << 20;
const MAX_SHARDS: usize = 1 << 12;

/// Which file holds which tensor.
struct Shards {
    files: Vec<SafeTensorsFile>,
    /// From the index: tensor → place in `files`. `None`: there is one file, which holds all.
    map: Option<HashMap<String, usize>>,
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
        Some(file) => Shards { files: vec![SafeTensorsFile::open(file)?], map: None },
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
        return Ok(Shards { files: vec![SafeTensorsFile::open(&single)?], map: None });
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

fn open_index(folder: &Path, index: &Path, text: &str) -> Result<Shards> {
    let place = index.display().to_string();
    let value: Value =
        serde_json::from_str(text).map_err(|error| Error::format(&place, format!("this is not JSON ({error})")))?;
    let weight_map = value
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::format(&place, "it has no object `weight_map`"))?;
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (tensor, shard) in weight_map {
        let shard = shard.as_str().filter(|name| is_file_name(name)).ok_or_else(|| {
            Error::format(
                &place,
                format!("the file of tensor `{tensor}` is {shard}, which is not a file name in this folder"),
            )
        })?;
        *names.entry(shard).or_default() += 1;
    }
    if names.len() > MAX_SHARDS {
        return Err(Error::format(&place, format!("it names {} files (limit {MAX_SHARDS})", names.len())));
    }
    let mut files = Vec::with_capacity(names.len());
    let mut positions = HashMap::new();
    for (name, tensors) in names {
        let path = folder.join(name);
        if !path.exists() {
            let wanted = format!("{INDEX} places {tensors} tensor(s) in it");
            return Err(Error::ShardMissing { shard: path, wanted });
        }
        positions.insert(name, files.len());
        files.push(SafeTensorsFile::open(&path)?);
    }
    let map = weight_map
        .iter()
        .filter_map(|(tensor, shard)| Some((tensor.clone(), *positions.get(shard.as_str()?)?)))
        .collect();
    Ok(Shards { files, map: Some(map) })
}

/// A name that cannot leave the folder, by the rules of POSIX and of Windows.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', ':', '\0']) && name != "." && name != ".."
}

fn locate<'a>(spec: &TensorSpec, config: &Config, shards: &'a Shards) -> Result<(&'a SafeTensorsFile, &'a TensorInfo)> {
    let name = &spec.name;
    let missing =
        |place: String, remedy: &str| Error::TensorMissing { place, tensor: name.clone(), remedy: remedy.to_string() };
    let file = match &shards.map {
        None => shards.files.first(),
        Some(map) => map.get(name).and_then(|position| shards.files.get(*position)),
    };
    let untied_head = name == "lm_head.weight" && !config.tie_word_embeddings;
    let remedy = if untied_head {
        "If the model shares it with the embedding, set tie_word_embeddings to true in config.json; otherwise download the model again."
    } else {
        "Download the whole model again, and take config.json and weights from the same model."
    };
    let file = file.ok_or_else(|| missing(INDEX.to_string(), remedy))?;
    let tensor = file.find(name).ok_or_else(|| missing(file.path.display().to_string(), remedy))?;
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
    if let Some(map) = &shards.map {
        for (position, file) in shards.files.iter().enumerate() {
            let stale = |tensor: &&TensorInfo| {
                known.contains(tensor.name.as_str()) && map.get(&tensor.name).is_some_and(|place| *place != position)
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
