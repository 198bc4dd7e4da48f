//! model.safetensors.index.json: which shard holds which tensor. A copy in another shard is of an older save: it is never read.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::Layout;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

pub(super) const INDEX: &str = "model.safetensors.index.json";
const MAX_SHARDS: usize = 1 << 12;

pub(super) struct Index {
    /// Sorted, with how many tensors each holds.
    pub shards: Vec<(String, usize)>,
    /// Places in `shards`.
    places: HashMap<String, usize>,
}

impl Index {
    /// Reads the text of an index; `place` names it in messages.
    ///
    /// # Errors
    /// `ZA_MODEL_FORMAT`, for names too that would leave the folder.
    pub fn read(text: &str, place: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| Error::format(place, format!("this is not JSON ({error})")))?;
        let map = value
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| Error::format(place, "it has no object `weight_map`"))?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut named = Vec::with_capacity(map.len());
        for (tensor, shard) in map {
            let shard = shard.as_str().filter(|name| is_file_name(name)).ok_or_else(|| {
                Error::format(
                    place,
                    format!("the file of tensor `{tensor}` is {shard}, which is not a file name in this folder"),
                )
            })?;
            *counts.entry(shard).or_default() += 1;
            named.push((tensor, shard));
        }
        if counts.len() > MAX_SHARDS {
            return Err(Error::format(place, format!("it names {} files (limit {MAX_SHARDS})", counts.len())));
        }
        let positions: HashMap<&str, usize> =
            counts.keys().enumerate().map(|(position, name)| (*name, position)).collect();
        let places = named.iter().map(|(tensor, shard)| ((*tensor).clone(), positions[shard])).collect();
        Ok(Self { shards: counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(), places })
    }

    /// The place in `shards` of a file.
    pub fn place_of(&self, shard: &str) -> Option<usize> {
        self.shards.binary_search_by(|(name, _)| name.as_str().cmp(shard)).ok()
    }

    /// The place in `shards` of the one that a tensor is to be taken from.
    pub fn shard_of(&self, tensor: &str) -> Option<usize> {
        self.places.get(tensor).copied()
    }

    /// That every tensor of the layout has a shard.
    ///
    /// # Errors
    /// `ZA_TENSOR_MISSING`.
    pub fn check(&self, config: &Config, layout: &Layout) -> Result<()> {
        match layout.tensors.iter().find(|spec| self.shard_of(&spec.name).is_none()) {
            Some(spec) => Err(missing(INDEX, &spec.name, config)),
            None => Ok(()),
        }
    }

    /// A shard that is not there.
    pub fn shard_missing(&self, shard: usize, path: std::path::PathBuf) -> Error {
        let wanted = format!("{INDEX} places {} tensor(s) in it", self.shards[shard].1);
        Error::ShardMissing { shard: path, wanted, remedy: WHOLE }
    }
}

/// What helps where a part of a model is missing.
pub(super) const WHOLE: &str = "Download the whole model again, all its files into one folder.";

/// A tensor that is not where it should be.
pub(super) fn missing(place: &str, tensor: &str, config: &Config) -> Error {
    let untied_head = tensor == "lm_head.weight" && !config.tie_word_embeddings;
    let remedy = if untied_head {
        "If the model shares it with the embedding, set tie_word_embeddings to true in config.json; otherwise download the model again."
    } else {
        "Download the whole model again, and take config.json and weights from the same model."
    };
    Error::TensorMissing { place: place.to_owned(), tensor: tensor.to_owned(), remedy: remedy.to_owned() }
}

/// A name that cannot leave the folder, by the rules of POSIX and of Windows.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', ':', '\0']) && name != "." && name != ".."
}
