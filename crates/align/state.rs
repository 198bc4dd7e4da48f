//! Saving and resuming a session at a step boundary: weights and moments as exact f32, the step, the caller's words.
//!
//! The folder appears whole under its name or not at all: everything is written beside it, flushed, and renamed.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, View};
use serde::{Deserialize, Serialize};
use zephyr_mistral::Weights;
use zephyr_mistral::weights::safetensors::SafeTensorsFile;

use crate::error::{Error, Result};
use crate::session::{Optimizer, Section, Session, decay_runs};

const TENSORS: &str = "state.safetensors";
const RECORD: &str = "state.json";

/// `state.json`: what is needed to check and to go on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: String,
    step: u64,
    tokens_seen: u64,
    parameters: usize,
    extra: String,
}

/// A flat array as a one-dimensional tensor, borrowed.
pub(crate) struct Flat<'a> {
    dtype: Dtype,
    bytes: Cow<'a, [u8]>,
    shape: [usize; 1],
}

impl<'a> Flat<'a> {
    pub(crate) fn new(values: &'a [f32]) -> Self {
        Self { dtype: Dtype::F32, bytes: Cow::Borrowed(bytemuck::cast_slice(values)), shape: [values.len()] }
    }
}

impl View for Flat<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes the session to `folder`, which must not exist. `extra` is the caller's own text (JSON), given back by
/// [`restore`].
///
/// # Errors
/// [`Error::State`] when the folder exists; file system errors (a full disk has its own code) leave nothing behind.
pub fn save(session: &Session, weights: &Weights, folder: &Path, extra: &str) -> Result<()> {
    if folder.exists() {
        return Err(state_error(folder, "the folder exists already", "choose another name or remove it"));
    }
    let mut temporary = folder.as_os_str().to_os_string();
    temporary.push(".partial");
    let temporary = PathBuf::from(temporary);
    // The parent of a bare name is the empty path, which cannot be opened.
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = write_all(session, weights, &temporary, extra)
        .and_then(|()| fs::rename(&temporary, folder))
        .and_then(|()| sync_folder(parent));
    written.map_err(|error| {
        // What could not be finished is removed: it would only be taken for a saved state.
        let _ = fs::remove_dir_all(&temporary);
        zephyr_mistral::Error::io(folder, "save the training state", error).into()
    })
}

fn write_all(session: &Session, weights: &Weights, folder: &Path, extra: &str) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let mut tensors = vec![("weights".to_owned(), Flat::new(&weights.data))];
    for Section { name, dtype, bytes } in session.optimizer().sections() {
        let shape = [bytes.len() / (dtype.bitsize() / 8)];
        tensors.push((name, Flat { dtype, bytes, shape }));
    }
    let path = folder.join(TENSORS);
    safetensors::serialize_to_file(tensors, None, &path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(error) => error,
        other => std::io::Error::other(other.to_string()),
    })?;
    File::open(&path)?.sync_all()?;
    let record = Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        step: session.step(),
        tokens_seen: session.tokens_seen(),
        parameters: weights.data.len(),
        extra: extra.to_owned(),
    };
    let mut file = File::create(folder.join(RECORD))?;
    file.write_all(serde_json::to_string_pretty(&record)?.as_bytes())?;
    file.sync_all()?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Goes back to a saved step boundary: overwrites the weights, moments and counters. Returns the caller's `extra`.
///
/// # Errors
/// [`Error::State`] when the record is missing, damaged or of another model; the session is then unchanged.
pub fn restore(session: &mut Session, weights: &mut Weights, folder: &Path) -> Result<String> {
    const OTHER: &str = "resume with the model, data and version that saved it, or start a new run";
    let path = folder.join(RECORD);
    let text = fs::read_to_string(&path)
        .map_err(|error| state_error(&path, format!("cannot be read: {error}"), "name a folder that a run saved"))?;
    let record: Record = serde_json::from_str(&text)
        .map_err(|error| state_error(&path, format!("is damaged: {error}"), "resume from another saved state"))?;
    let here = env!("CARGO_PKG_VERSION");
    if record.version != here {
        return Err(state_error(&path, format!("was saved by version {}, this is {here}", record.version), OTHER));
    }
    if record.parameters != weights.data.len() {
        let reason = format!("holds {} parameters, the model has {}", record.parameters, weights.data.len());
        return Err(state_error(&path, reason, OTHER));
    }
    let file = SafeTensorsFile::open(&folder.join(TENSORS))?;
    let broken = |reason: String| state_error(&file.path, reason, OTHER);
    let read = |name: &str, dtype: Dtype, expected: usize| -> Result<Vec<u8>> {
        if file.find(name).is_none_or(|tensor| tensor.dtype != dtype) {
            return Err(broken(format!("{name} is missing or of another type")));
        }
        let bytes = file.bytes(name)?;
        let width = dtype.bitsize() / 8;
        let (found, wanted) = (bytes.len() / width, expected / width);
        if found == wanted { Ok(bytes) } else { Err(broken(format!("{name} holds {found} numbers, not {wanted}"))) }
    };
    let mut optimizer = Optimizer::sized(session.optimizer().kind(), record.step, &decay_runs(weights));
    let mut sections = optimizer.sections_mut();
    if file.tensors().len() != sections.len() + 1 {
        let reason = format!("holds {} arrays, not {}", file.tensors().len(), sections.len() + 1);
        return Err(broken(reason));
    }
    for section in &mut sections {
        let bytes = read(&section.name, section.dtype, section.bytes.len())?;
        section.bytes.copy_from_slice(&bytes);
    }
    drop(sections);
    // Everything is read before anything is overwritten.
    let saved = read("weights", Dtype::F32, size_of_val(weights.data.as_slice()))?;
    bytemuck::cast_slice_mut(&mut weights.data).copy_from_slice(&saved);
    session.restore(record.tokens_seen, optimizer);
    Ok(record.extra)
}

fn state_error(path: &Path, reason: impl Into<String>, remedy: &'static str) -> Error {
    Error::State { path: path.to_path_buf(), reason: reason.into(), remedy }
}
