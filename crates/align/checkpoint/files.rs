//! The file system behind a trait: the real one here, one that fails and forgets in the tests.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// A file being written.
pub trait Output: Write + Send {
    /// fsync: when it returns, the content survives a power loss.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file being read.
pub trait Input: Read + Seek + Send {}

/// The operations that the protocol needs, each of them one call of the operating system.
pub trait Files: Send + Sync {
    /// Makes a folder; its parent is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// A new, empty file.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>>;
    /// Names in a folder, sorted.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Renames a folder; the target is absent.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// fsync of a folder: when it returns, names in it survive a power loss.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Bytes that may still be written to the file system of `path`; `None` where the system does not tell.
    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>>;
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Output for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Input for File {}

impl Files for Disk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(File::create_new(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        Ok(Box::new(File::open(path)?))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    /// Windows cannot flush a folder, and orders a rename itself.
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    #[cfg(unix)]
    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let about = rustix::fs::statvfs(path)?;
        Ok(Some(about.f_bavail.saturating_mul(about.f_frsize)))
    }

    #[cfg(not(unix))]
    fn free_bytes(&self, _path: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }
}
