//! Checkpoints that a crash, a full disk or a flipped bit cannot turn into something else than they were.
//!
//! ```text
//! <folder>/step-120/state.safetensors    every section: parameters, moments
//!                   record.json          step, counters, the caller's own words
//!                   manifest.json        name, size and BLAKE3 of the two others; written last
//! ```
//!
//! A checkpoint is written under a hidden name, every file is flushed, the manifest comes last, and the folder is renamed
//! (the order that POSIX guarantees: fsync of a file before the rename, fsync of the folder after it; Pillai et al.,
//! "All File Systems Are Not Created Equal", OSDI 2014). The *manifest* proves a checkpoint, not the folder's name: what
//! does not verify is no checkpoint. Broken ones are named, kept and skipped; an old one is deleted only when a newer
//! one has been read back and verified. All file operations go through [`Files`], so that the tests can stop the world
//! after each of them.

mod files;
mod lock;
mod manifest;
mod read;
mod session;
mod write;
mod writer;

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod test;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

pub use files::{Disk, Files, Input, Output};
pub use lock::RunLock;
pub use read::{Broken, Found, Verified, newest, verify};
pub use session::{Snapshot, Trained, planned_bytes, restore};
pub use write::{Checkpoints, Saved};
pub use writer::Writer;

use crate::error::{Error, Result};

/// One named array of a checkpoint, borrowed for the time of the writing.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    pub name: String,
    pub dtype: Dtype,
    /// Little-endian values, a whole number of them.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Section<'a> {
    /// A flat array of f32.
    pub fn floats(name: &str, values: &'a [f32]) -> Self {
        Self { name: name.to_owned(), dtype: Dtype::F32, bytes: Cow::Borrowed(bytemuck::cast_slice(values)) }
    }
}

/// Where a section is read back to; it must have the stored type and size.
#[derive(Debug)]
pub struct SectionMut<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub bytes: &'a mut [u8],
}

impl<'a> SectionMut<'a> {
    /// A flat array of f32.
    pub fn floats(name: &str, values: &'a mut [f32]) -> Self {
        Self { name: name.to_owned(), dtype: Dtype::F32, bytes: bytemuck::cast_slice_mut(values) }
    }
}

/// `record.json`: what the arrays belong to. Holds no time of day: equal runs write equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Steps of the run, skipped ones included: the position in the data.
    pub step: u64,
    /// Updates that the optimizer made.
    pub updates: u64,
    /// Tokens read since the run began, prompts included.
    pub tokens_seen: u64,
    /// The caller's own JSON: configuration, seeds, windows, counters.
    pub extra: String,
}

/// Bytes of one read or write.
const CHUNK: usize = 1 << 20;

/// Checkpoints that there must be room for: one more is written before an old one goes.
///
/// `keep` stay, `present` are there already, `planned` will be written.
pub fn room_for(keep: u64, present: u64, planned: u64) -> u64 {
    (keep + 1 - present.min(keep)).min(planned)
}

/// Checks that `checkpoints` of `size` bytes and `more` bytes besides fit on the disk of `folder`. Where the system does
/// not tell, nothing is refused.
///
/// # Errors
/// [`Error::DiskSpace`] with the numbers.
pub fn check_space(files: &dyn Files, folder: &Path, size: u64, checkpoints: u64, more: u64) -> Result<()> {
    let free = again(|| files.free_bytes(folder)).map_err(|error| io_error(folder, "measure the free space", error))?;
    let need = size.saturating_mul(checkpoints).saturating_add(more);
    match free {
        Some(free) if free < need => {
            Err(Error::DiskSpace { path: folder.to_path_buf(), need, free, checkpoints, size, more })
        }
        _ => Ok(()),
    }
}

/// The step in `step-12`.
fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    let step: u64 = digits.parse().ok()?;
    (step.to_string() == digits).then_some(step)
}

/// Runs a file operation again while a signal interrupts it, as the standard library does for reads and writes.
fn again<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn io_error(path: &Path, action: &'static str, error: io::Error) -> Error {
    zephyr_mistral::Error::io(path, action, error).into()
}

fn state_error(path: &Path, reason: impl Into<String>, remedy: &'static str) -> Error {
    Error::State { path: path.to_path_buf(), reason: reason.into(), remedy }
}

/// The run folder's checkpoints on the real disk.
pub fn on_disk(folder: PathBuf, keep: usize) -> Checkpoints {
    Checkpoints::new(Arc::new(Disk), folder, keep)
}
