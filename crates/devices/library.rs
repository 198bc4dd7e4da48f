//! Opening a library: every place is tried in turn, and what became of it is kept.

use std::path::{Path, PathBuf};

use libloading::Library;
use serde::Serialize;

/// One place where a library was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Its soname.
    pub library: &'static str,
    /// A file, or the soname alone for the loader's own search.
    pub path: PathBuf,
    /// Why it was not taken; none for the one in use.
    pub problem: Option<String>,
}

impl Attempt {
    /// Nothing lies there.
    pub fn is_missing(&self) -> bool {
        self.problem.as_deref() == Some(MISSING)
    }
}

const MISSING: &str = "no such file";

/// The first library of that name that opens and that `accept` finds good. It stays open for the life of the process: whoever
/// asks the loader for its soname later gets this one.
pub(crate) fn look_for<T>(
    soname: &'static str,
    folders: &[PathBuf],
    attempts: &mut Vec<Attempt>,
    mut accept: impl FnMut(&Library) -> Result<T, String>,
) -> Option<(PathBuf, T)> {
    // Last the loader's own search: its cache knows folders that distributions have chosen.
    let places = folders.iter().map(|folder| folder.join(soname)).chain([PathBuf::from(soname)]);
    for path in places {
        let outcome = open(&path).and_then(|library| {
            let accepted = accept(&library)?;
            std::mem::forget(library);
            Ok(accepted)
        });
        let problem = outcome.as_ref().err().cloned();
        attempts.push(Attempt { library: soname, path: path.clone(), problem });
        if let Ok(accepted) = outcome {
            return Some((path, accepted));
        }
    }
    None
}

fn open(path: &Path) -> Result<Library, String> {
    let is_file = path.components().count() > 1;
    // A link that leads nowhere is no file either, and says so.
    if is_file && path.symlink_metadata().is_err() {
        return Err(MISSING.to_owned());
    }
    // SAFETY: a library of that name is NVIDIA's, whose initialisers do nothing that others could see.
    unsafe { Library::new(path) }.map_err(|error| cause(&error, path, is_file))
}

/// What the loader says, without the path that stands before it anyway.
fn cause(error: &libloading::Error, path: &Path, is_file: bool) -> String {
    let text = match error {
        libloading::Error::DlOpen { source } => source.to_string(),
        other => other.to_string(),
    };
    let told = text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text);
    if !is_file && told.contains("cannot open shared object file") { MISSING.to_owned() } else { told.to_owned() }
}
