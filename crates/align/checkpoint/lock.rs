//! One process at a time in a run folder: two writers would mix their checkpoints.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::io_error;
use crate::error::{Error, Result};

const NAME: &str = ".lock";

/// An exclusive lock on a run folder. The operating system lets go of it when the process ends, however it ends: a file
/// that a killed process left behind locks nobody out.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock; `holder` says who that is (process, host, since when), for the one who comes second.
    ///
    /// # Errors
    /// [`Error::Locked`] with the holder's words when another run has it, in this process or another.
    pub fn acquire(folder: &Path, holder: &str) -> Result<Self> {
        let path = folder.join(NAME);
        let fail = |error| io_error(&path, "lock", error);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut other = String::new();
                // Who it is may be missing in the moment between its lock and its words.
                let _ = file.read_to_string(&mut other);
                let holder = if other.is_empty() { "another run".to_owned() } else { other };
                return Err(Error::Locked { path: folder.to_path_buf(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes())).map_err(fail)?;
        Ok(Self { _file: file })
    }
}
