//! What can go wrong with a journal: each message names the file, then the remedy.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate; [`Error::code`] is stable, the wording is not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: the journal is in use by {holder}. Remedy: wait for that run, stop it, or choose another journal", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("{}: {what}, not a journal of calls. Remedy: choose another path for the journal", path.display())]
    Foreign { path: PathBuf, what: String },
    #[error(
        "{}: the journal is damaged: {reason}. Remedy: restore the file from a copy, or save what can be read with \
         `sqlite3 FILE .recover`; a new journal would pay for every call again",
        path.display()
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{}: the journal has format {found}, this version knows {known}. Remedy: take the version of zephyr-align that wrote it, or a newer one",
        path.display()
    )]
    Version { path: PathBuf, found: i64, known: i64 },
    #[error("{}: no space left on the device. Remedy: free space; the same command goes on where it stopped", path.display())]
    Full { path: PathBuf },
    #[error("{}: {reason}. Remedy: check the path, its permissions and the disk", path.display())]
    Io { path: PathBuf, reason: String },
    #[error("{}: {reason}. Remedy: this is a fault in zephyr-align; please report it", path.display())]
    Fault { path: PathBuf, reason: String },
}

impl Error {
    /// The stable code, `ZA_…`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "ZA_JOURNAL_LOCKED",
            Self::Foreign { .. } => "ZA_JOURNAL_FOREIGN",
            Self::Damaged { .. } => "ZA_JOURNAL_DAMAGED",
            Self::Version { .. } => "ZA_JOURNAL_VERSION",
            Self::Full { .. } => "ZA_DISK_FULL",
            Self::Io { .. } => "ZA_IO",
            Self::Fault { .. } => "ZA_INTERNAL",
        }
    }

    pub(crate) fn io(path: &Path, error: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { path, reason: error.to_string() },
        }
    }

    pub(crate) fn sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { path, reason },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Locked { path, holder: "another program".to_owned() }
            }
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport,
            ) => Self::Io { path, reason },
            // A value that has not the type of its column: the file was written to by somebody else.
            None if matches!(
                error,
                rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..)
            ) =>
            {
                Self::Damaged { path, reason }
            }
            _ => Self::Fault { path, reason },
        }
    }
}
