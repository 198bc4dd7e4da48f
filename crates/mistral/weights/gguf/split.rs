//! Models split into several files (`gguf-split`): keys in the first, tensors in all.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::super::index::WHOLE;
use super::super::read_at::ReadAt;
use super::{Gguf, Value, check_names};
use crate::error::{Error, Result};

const MAX_PARTS: u64 = 1 << 12;

impl Gguf<File> {
    /// Opens a file; with any part of a split model all its parts, which lie beside it under gguf-split's names.
    ///
    /// # Errors
    /// Those of [`Gguf::read`]; `ZA_SHARD_MISSING` for a part that is not there; `ZA_MODEL_FORMAT` for parts that do not belong
    /// together.
    pub fn open(path: &Path) -> Result<Self> {
        let given = open_one(path)?;
        let count = given.count()?;
        if count == 1 {
            return Ok(given);
        }
        let mut whole: Option<Self> = None;
        for number in 0..count {
            let path = part_path(path, number, count).ok_or_else(|| misnamed(path, count))?;
            if !path.exists() {
                return Err(missing(path, &given, count, WHOLE));
            }
            let part = open_one(&path)?;
            let own = part.get("split.no").and_then(Value::as_u64);
            if part.count()? != count || own != Some(number) {
                let found = own.map_or("none".to_string(), |own| (own + 1).to_string());
                return Err(Error::format(
                    &path.display().to_string(),
                    format!(
                        "by its name it is part {} of {count}, by its keys part {found} of {}",
                        number + 1,
                        part.count()?
                    ),
                ));
            }
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.append(part),
            }
        }
        let whole = whole.unwrap_or(given);
        let fail = |problem: String| Error::format(&whole.path.display().to_string(), problem);
        check_names(&[], &whole.tensors).map_err(|problem| fail(format!("in its {count} parts {problem}")))?;
        match whole.get("split.tensors.count").and_then(Value::as_u64) {
            Some(expected) if expected != whole.tensors.len() as u64 => {
                Err(fail(format!("its {count} parts hold {} tensors, not {expected}", whole.tensors.len())))
            }
            _ => Ok(whole),
        }
    }

    fn append(&mut self, part: Self) {
        let number = self.parts.len();
        self.parts.extend(part.parts);
        self.tensors.extend(part.tensors.into_iter().map(|tensor| super::TensorInfo { part: number, ..tensor }));
    }
}

impl<R: ReadAt> Gguf<R> {
    /// How many parts the model has.
    fn count(&self) -> Result<u64> {
        match self.get("split.count").map(Value::as_u64) {
            None | Some(Some(0)) => Ok(1),
            Some(Some(count)) if count <= MAX_PARTS => Ok(count),
            Some(other) => {
                let found = other.map_or("no whole number".to_string(), |count| count.to_string());
                let problem = format!("the key `split.count` is {found} (limit {MAX_PARTS})");
                Err(Error::format(&self.path.display().to_string(), problem))
            }
        }
    }

    /// That all parts are here.
    ///
    /// # Errors
    /// `ZA_SHARD_MISSING`.
    pub(in crate::weights) fn check_whole(&self) -> Result<()> {
        let count = self.count()?;
        if self.parts.len() as u64 == count {
            return Ok(());
        }
        let own = self.get("split.no").and_then(Value::as_u64).unwrap_or(0);
        let other = u64::from(own == 0);
        // Bytes have no name that would tell the other's.
        let shard = part_path(&self.path, other, count);
        let shard = shard.unwrap_or_else(|| PathBuf::from(format!("part {} of {count}", other + 1)));
        let remedy = "Merge the parts into one file (llama-gguf-split --merge), or load them by the native package from a folder that holds them all.";
        Err(missing(shard, self, count, remedy))
    }
}

fn open_one(path: &Path) -> Result<Gguf<File>> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            Error::ModelNotFound { path: path.to_path_buf(), problem: "there is no such file".to_string() }
        }
        _ => Error::io(path, "open it", error),
    })?;
    Gguf::read(file, path)
}

/// `model-00002-of-00003.gguf` for the part 1 of 3, beside the given part.
fn part_path(given: &Path, number: u64, count: u64) -> Option<PathBuf> {
    let name = given.file_name()?.to_str()?;
    let (rest, total) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, own) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|digit| digit.is_ascii_digit());
    let named = is_number(own) && is_number(total) && total.parse() == Ok(count);
    named.then(|| given.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", number + 1)))
}

fn misnamed(path: &Path, count: u64) -> Error {
    Error::format(
        &path.display().to_string(),
        format!(
            "it is one of {count} parts of a model, but its name does not end in -00001-of-{count:05}.gguf, by which the others are found"
        ),
    )
}

fn missing<R>(shard: PathBuf, given: &Gguf<R>, count: u64, remedy: &'static str) -> Error {
    let name = given.path.file_name().unwrap_or_default().to_string_lossy();
    Error::ShardMissing { shard, wanted: format!("{name} is one of {count} parts of a model"), remedy }
}

#[cfg(test)]
mod test;
