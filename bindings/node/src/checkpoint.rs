//! Checkpoints and the lock of a run folder.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use zephyr_align::checkpoint::{Found, RunLock, Saved, on_disk};

use crate::engine::submit;
use crate::failure::guard;

/// What saving a checkpoint did.
#[napi(object)]
pub struct NativeSaved {
    pub path: String,
    /// Of all its files.
    pub bytes: f64,
    /// Old checkpoints that were removed.
    pub removed: Vec<String>,
    /// What did not go as wanted without harm to this checkpoint.
    pub warnings: Vec<String>,
}

impl From<Saved> for NativeSaved {
    fn from(saved: Saved) -> Self {
        Self {
            path: saved.path.display().to_string(),
            bytes: saved.bytes as f64,
            removed: saved.removed.iter().map(|path| path.display().to_string()).collect(),
            warnings: saved.warnings,
        }
    }
}

/// A checkpoint that did not verify.
#[napi(object)]
pub struct NativeBroken {
    pub path: String,
    pub reason: String,
}

/// The checkpoints that were found in a folder.
#[napi]
pub struct NativeCheckpoints {
    pub(crate) found: Arc<Found>,
}

#[napi]
impl NativeCheckpoints {
    /// Removes what a killed process left half-written, and verifies checkpoints from the newest on until one is sound.
    #[napi(ts_return_type = "Promise<NativeCheckpoints>")]
    pub fn open(env: &Env, folder: String) -> napi::Result<Object<'_>> {
        submit(env, move || {
            // How many stay is the saver's affair.
            let mut checkpoints = on_disk(folder.into(), 2);
            checkpoints.tidy()?;
            Ok(Self { found: Arc::new(checkpoints.newest()?) })
        })
    }

    /// Removes old checkpoints that a killed process had no time to remove; resolves to their paths.
    #[napi(ts_return_type = "Promise<Array<string>>")]
    pub fn trim<'env>(&self, env: &'env Env, folder: String, keep: u32) -> napi::Result<Object<'env>> {
        let found = self.found.clone();
        submit(env, move || {
            let removed = on_disk(folder.into(), keep as usize).trim(&found)?;
            Ok(removed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
        })
    }

    /// Throws `ZA_CHECKPOINT_BROKEN` when there are checkpoints but none is sound.
    #[napi]
    pub fn refuse_only_broken(&self, folder: String) -> napi::Result<()> {
        guard(|| Ok(Found::clone(&self.found).usable(folder.as_ref()).map(drop)?))
    }

    /// Folder of the newest sound checkpoint.
    #[napi(getter)]
    pub fn path(&self) -> Option<String> {
        self.found.newest.as_ref().map(|newest| newest.path.display().to_string())
    }

    /// Its step.
    #[napi(getter)]
    pub fn step(&self) -> Option<f64> {
        self.found.newest.as_ref().map(|newest| newest.record.step as f64)
    }

    /// Tokens read up to it.
    #[napi(getter)]
    pub fn tokens_seen(&self) -> Option<f64> {
        self.found.newest.as_ref().map(|newest| newest.record.tokens_seen as f64)
    }

    /// The JSON that was saved with it.
    #[napi(getter)]
    pub fn extra(&self) -> Option<String> {
        self.found.newest.as_ref().map(|newest| newest.record.extra.clone())
    }

    /// Newer ones that are broken, newest first.
    #[napi(getter)]
    pub fn broken(&self) -> Vec<NativeBroken> {
        let broken = self.found.broken.iter();
        broken.map(|each| NativeBroken { path: each.path.display().to_string(), reason: each.reason.clone() }).collect()
    }
}

/// An exclusive lock on a run folder; the system lets go of it when the process ends, however it ends.
#[napi]
pub struct NativeRunLock {
    lock: Option<RunLock>,
}

#[napi]
impl NativeRunLock {
    /// `holder` says who has it, for whoever comes second. Throws `ZA_FOLDER_LOCKED` when another run has it.
    #[napi(constructor)]
    pub fn new(folder: String, holder: String) -> napi::Result<Self> {
        guard(|| Ok(Self { lock: Some(RunLock::acquire(folder.as_ref(), &holder)?) }))
    }

    /// Lets go of the folder.
    #[napi]
    pub fn release(&mut self) {
        self.lock = None;
    }
}
