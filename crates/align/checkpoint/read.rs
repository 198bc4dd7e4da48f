//! Finding, verifying and reading checkpoints.

use std::collections::BTreeMap;
use std::io::{self, Read, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::Deserialize;

use super::files::{Files, Input};
use super::manifest::{MANIFEST, MAX_MANIFEST, Manifest, RECORD, STATE};
use super::{CHUNK, Record, SectionMut, again, io_error, state_error, step_of};
use crate::error::{Error, Result};

/// A checkpoint whose every byte was found to be what was written. There is no other way to get one.
#[derive(Clone, Debug)]
pub struct Verified {
    pub path: PathBuf,
    pub record: Record,
    sections: BTreeMap<String, Stored>,
}

/// A section in the file.
#[derive(Clone, Debug)]
struct Stored {
    dtype: Dtype,
    /// Bytes from the start of the file.
    range: Range<u64>,
}

/// A folder that looks like a checkpoint and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub path: PathBuf,
    pub reason: String,
}

/// What a folder of checkpoints holds.
#[derive(Clone, Debug)]
pub struct Found {
    pub newest: Option<Verified>,
    /// Newer than `newest`, newest first; they are left where they are.
    pub broken: Vec<Broken>,
}

impl Found {
    /// The newest checkpoint, or `None` when none was ever saved.
    ///
    /// # Errors
    /// [`Error::CheckpointsBroken`] when there are checkpoints but none can be used: that is no reason to start anew.
    pub fn usable(self, folder: &Path) -> Result<Option<Verified>> {
        if self.newest.is_none() && !self.broken.is_empty() {
            let list = self.broken.iter().map(|broken| format!("\n  {}: {}", broken.path.display(), broken.reason));
            return Err(Error::CheckpointsBroken { path: folder.to_path_buf(), list: list.collect() });
        }
        Ok(self.newest)
    }
}

/// The newest checkpoint of a folder that verifies, and the broken ones that are newer. A folder that does not exist
/// holds none.
///
/// # Errors
/// The folder cannot be listed.
pub fn newest(files: &dyn Files, folder: &Path) -> Result<Found> {
    let mut found = Found { newest: None, broken: Vec::new() };
    for step in steps(files, folder)? {
        let path = folder.join(format!("step-{step}"));
        match verify(files, &path) {
            Ok(verified) => {
                found.newest = Some(verified);
                break;
            }
            Err(reason) => found.broken.push(Broken { path, reason }),
        }
    }
    Ok(found)
}

/// Steps of the folders that look like checkpoints, newest first.
pub(super) fn steps(files: &dyn Files, folder: &Path) -> Result<Vec<u64>> {
    let names = match again(|| files.names(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        outcome => outcome.map_err(|error| io_error(folder, "list", error))?,
    };
    let mut steps: Vec<u64> = names.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    Ok(steps)
}

/// Reads every byte of a checkpoint and compares it with the manifest.
///
/// # Errors
/// Why it is not a checkpoint, as a sentence.
pub fn verify(files: &dyn Files, path: &Path) -> std::result::Result<Verified, String> {
    let unreadable = |name: &str, error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("{name} is missing"),
        _ => format!("{name} cannot be read: {error}"),
    };
    let mut manifest = Vec::new();
    let mut file = again(|| files.open(&path.join(MANIFEST))).map_err(|error| unreadable(MANIFEST, error))?;
    (&mut file).take(MAX_MANIFEST).read_to_end(&mut manifest).map_err(|error| unreadable(MANIFEST, error))?;
    let manifest = Manifest::parse(&manifest)?;
    let mut buffer = vec![0; CHUNK];
    for entry in &manifest.files {
        let unreadable = |error| unreadable(&entry.name, error);
        let mut file = again(|| files.open(&path.join(&entry.name))).map_err(unreadable)?;
        let (size, hash) = digest(&mut *file, &mut buffer).map_err(unreadable)?;
        if size != entry.size {
            return Err(format!("{} has {size} bytes, {} were written", entry.name, entry.size));
        }
        if hash != entry.blake3 {
            return Err(format!("{} is damaged: its hash is not that of what was written", entry.name));
        }
    }
    let record = read_record(files, path).map_err(|error| unreadable(RECORD, error))?;
    if path.file_name().and_then(|name| step_of(&name.to_string_lossy())).is_some_and(|step| step != record.step) {
        return Err(format!("it is the checkpoint of step {}, under another name", record.step));
    }
    let sections = read_header(files, path).map_err(|error| unreadable(STATE, error))?;
    Ok(Verified { path: path.to_path_buf(), record, sections })
}

fn digest(file: &mut dyn Input, buffer: &mut [u8]) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    loop {
        let count = again(|| file.read(buffer))?;
        if count == 0 {
            return Ok((size, hasher.finalize().to_hex().to_string()));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}

fn read_record(files: &dyn Files, path: &Path) -> io::Result<Record> {
    let mut text = Vec::new();
    again(|| files.open(&path.join(RECORD)))?.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// One entry of a safetensors header.
#[derive(Deserialize)]
struct HeaderEntry {
    dtype: Dtype,
    data_offsets: (u64, u64),
}

/// The header; the hash has shown that it is the one that was written.
fn read_header(files: &dyn Files, path: &Path) -> io::Result<BTreeMap<String, Stored>> {
    let mut file = again(|| files.open(&path.join(STATE)))?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    let entries: BTreeMap<String, HeaderEntry> = serde_json::from_slice(&text)?;
    let place = |(start, end): (u64, u64)| 8 + length + start..8 + length + end;
    let stored = |entry: HeaderEntry| Stored { dtype: entry.dtype, range: place(entry.data_offsets) };
    Ok(entries.into_iter().map(|(name, entry)| (name, stored(entry))).collect())
}

impl Verified {
    /// Whether exactly these sections are stored, with their types and sizes.
    ///
    /// # Errors
    /// [`Error::State`] with the first difference.
    pub fn check(&self, sections: &[SectionMut<'_>]) -> Result<()> {
        const OTHER: &str = "resume with the model and the optimizer that saved it, or start a new run";
        let differs = |reason: String| Err(state_error(&self.path, reason, OTHER));
        for section in sections {
            let Some(stored) = self.sections.get(&section.name) else {
                return differs(format!("it holds no {}", section.name));
            };
            let bytes = stored.range.end - stored.range.start;
            if stored.dtype != section.dtype || bytes != section.bytes.len() as u64 {
                let found = format!("{:?} in {bytes} bytes", stored.dtype);
                let wanted = format!("{:?} in {} bytes", section.dtype, section.bytes.len());
                return differs(format!("its {} are {found}, this run has {wanted}", section.name));
            }
        }
        match self.sections.keys().find(|name| !sections.iter().any(|section| section.name == **name)) {
            Some(name) => differs(format!("it holds {name}, which this run does not have")),
            None => Ok(()),
        }
    }

    /// Reads all sections. They are checked before the first is overwritten.
    ///
    /// # Errors
    /// As [`Self::check`]; a disk that fails on bytes that it has just delivered leaves a section half read.
    pub fn read(&self, files: &dyn Files, mut sections: Vec<SectionMut<'_>>) -> Result<()> {
        self.check(&sections)?;
        let path = self.path.join(STATE);
        let fail = |error| io_error(&path, "read", error);
        let mut file = again(|| files.open(&path)).map_err(fail)?;
        for section in &mut sections {
            let start = self.sections[&section.name].range.start;
            again(|| file.seek(SeekFrom::Start(start))).map_err(fail)?;
            file.read_exact(section.bytes).map_err(fail)?;
        }
        Ok(())
    }
}
