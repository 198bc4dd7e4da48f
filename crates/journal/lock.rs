//! One process at a time writes: two would not know of each other's spending.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// The lock's file lies beside the journal: SQLite has locks of its own on the journal itself.
fn beside(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn open(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    opened.map_err(|error| Error::io(path, error))
}

/// The writer's lock. The operating system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Takes the lock; `holder` says who that is (process, host, since when), for the one who comes second.
    pub fn acquire(journal: &Path, holder: &str) -> Result<Self> {
        let path = beside(journal);
        let mut file = open(&path)?;
        // A reader that looks whether there is a writer has the lock for a moment.
        for patience in (0..5).rev() {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if patience > 0 => std::thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Locked { path: journal.to_path_buf(), holder: words(&mut file) });
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(&path, error)),
            }
        }
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
        written.map_err(|error| Error::io(&path, error))?;
        Ok(Self { _file: file })
    }

    /// Who writes at this moment, if anyone does.
    pub fn holder(journal: &Path) -> Option<String> {
        let mut file = File::open(beside(journal)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(words(&mut file)),
            _ => None,
        }
    }
}

/// They may be missing in the moment between the lock and its words.
fn words(file: &mut File) -> String {
    let mut words = String::new();
    let _ = file.read_to_string(&mut words);
    if words.is_empty() { "another process".to_owned() } else { words }
}
