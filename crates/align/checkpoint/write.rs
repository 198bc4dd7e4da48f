//! Writing a checkpoint so that it is there whole or not at all, and letting old ones go.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zephyr_mistral::weights::safetensors::HeaderBuilder;

use super::files::{Files, Output};
use super::manifest::{Entry, MANIFEST, Manifest, RECORD, STATE};
use super::read::{Found, Verified, newest, steps, verify};
use super::{CHUNK, Record, Section, again, io_error, state_error, step_of};
use crate::error::Result;

/// The checkpoints of one run: `folder/step-N`. One writer at a time ([`super::RunLock`] sees to that).
pub struct Checkpoints {
    files: Arc<dyn Files>,
    folder: PathBuf,
    /// Verified ones that stay, at least 2: the newest may be the one that a power loss takes.
    keep: usize,
    /// Bytes of one write.
    pub(super) chunk: usize,
    /// Steps that were verified, and whether they were sound; each is read once.
    known: BTreeMap<u64, bool>,
}

/// What a save did.
#[derive(Clone, Debug)]
pub struct Saved {
    pub path: PathBuf,
    /// Of all its files.
    pub bytes: u64,
    /// Old checkpoints that were removed.
    pub removed: Vec<PathBuf>,
    /// What did not go as wanted without harm to this checkpoint.
    pub warnings: Vec<String>,
}

impl Checkpoints {
    /// `keep` below 2 counts as 2.
    pub fn new(files: Arc<dyn Files>, folder: PathBuf, keep: usize) -> Self {
        Self { files, folder, keep: keep.max(2), chunk: CHUNK, known: BTreeMap::new() }
    }

    /// Removes what a killed process was writing or removing. Nothing that was ever published is touched.
    ///
    /// # Errors
    /// The folder cannot be listed, or something in it cannot be removed.
    pub fn tidy(&self) -> Result<()> {
        let files = &*self.files;
        let names = match again(|| files.names(&self.folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => outcome.map_err(|error| io_error(&self.folder, "list", error))?,
        };
        for name in names.iter().filter(|name| is_unfinished(name)) {
            let path = self.folder.join(name);
            remove(files, &path).map_err(|error| io_error(&path, "remove", error))?;
        }
        Ok(())
    }

    /// The newest checkpoint that verifies, and broken ones that are newer.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn newest(&mut self) -> Result<Found> {
        let found = newest(&*self.files, &self.folder)?;
        self.learn(&found);
        Ok(found)
    }

    /// Removes what a process that was killed after a save had no time to remove: old checkpoints beyond those that stay.
    ///
    /// # Errors
    /// The folder cannot be listed, or an old checkpoint cannot be removed.
    pub fn trim(&mut self, found: &Found) -> Result<Vec<PathBuf>> {
        self.learn(found);
        let mut removed = Vec::new();
        if let Some(newest) = &found.newest {
            self.retire(newest.record.step, &mut removed)?;
        }
        Ok(removed)
    }

    fn learn(&mut self, found: &Found) {
        let step = |path: &Path| path.file_name().and_then(|name| step_of(&name.to_string_lossy()));
        self.known.extend(found.broken.iter().filter_map(|broken| Some((step(&broken.path)?, false))));
        self.known.extend(found.newest.iter().map(|verified| (verified.record.step, true)));
    }

    /// Writes `step-N` and reads it back; then old checkpoints may go.
    ///
    /// A broken checkpoint that has the name already is moved aside, not deleted.
    ///
    /// # Errors
    /// File system errors (a full disk has its own code), and a sound checkpoint of that name. Nothing that was there
    /// before is lost then, and nothing half-written stays under a checkpoint's name.
    pub fn save(&mut self, record: &Record, sections: &[Section<'_>]) -> Result<Saved> {
        let path = self.folder.join(format!("step-{}", record.step));
        self.make_room(&path, record.step)?;
        let hidden = self.folder.join(format!(".step-{}.writing", record.step));
        let bytes = self.publish(&hidden, &path, record, sections).map_err(|error| {
            // What could not be finished is removed: it would only take space.
            let _ = remove(&*self.files, &hidden);
            io_error(&path, "save", error)
        })?;
        self.read_back(&path, record)?;
        self.known.insert(record.step, true);
        let (mut removed, mut warnings) = (Vec::new(), Vec::new());
        if let Err(error) = self.retire(record.step, &mut removed) {
            warnings.push(format!("old checkpoints could not be removed: {error}"));
        }
        Ok(Saved { path, bytes, removed, warnings })
    }

    /// Frees the name: a sound checkpoint has it for good, a broken one gets another.
    fn make_room(&self, path: &Path, step: u64) -> Result<()> {
        let files = &*self.files;
        let names = match again(|| files.names(&self.folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return create_all(files, &self.folder).map_err(|error| io_error(&self.folder, "create", error));
            }
            outcome => outcome.map_err(|error| io_error(&self.folder, "list", error))?,
        };
        let name = format!("step-{step}");
        if !names.contains(&name) {
            return Ok(());
        }
        if verify(files, path).is_ok() {
            return Err(state_error(path, "a sound checkpoint has this name already", "choose another folder"));
        }
        let aside = (1..).map(|count| format!("{name}.broken-{count}")).find(|aside| !names.contains(aside));
        let aside = self.folder.join(aside.expect("some number is free"));
        again(|| files.rename(path, &aside)).map_err(|error| io_error(path, "move aside", error))
    }

    fn publish(&self, hidden: &Path, path: &Path, record: &Record, sections: &[Section<'_>]) -> io::Result<u64> {
        let files = &*self.files;
        remove(files, hidden)?;
        again(|| files.create_folder(hidden))?;
        let record = serde_json::to_vec_pretty(record)?;
        let head = header_of(sections)?;
        let parts = std::iter::once(&*head).chain(in_order(sections).map(|section| &*section.bytes));
        let manifest = Manifest::new(vec![self.write(hidden, STATE, parts)?, self.write(hidden, RECORD, [&*record])?]);
        let proof = self.write(hidden, MANIFEST, [&*manifest.bytes()])?;
        again(|| files.sync_folder(hidden))?;
        again(|| files.rename(hidden, path))?;
        again(|| files.sync_folder(&self.folder))?;
        Ok(manifest.files.iter().chain([&proof]).map(|file| file.size).sum())
    }

    /// Writes and flushes one file; returns its line of the manifest.
    fn write<'a>(&self, folder: &Path, name: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Entry> {
        let path = folder.join(name);
        let mut file: Box<dyn Output> = again(|| self.files.create(&path))?;
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        for chunk in parts.into_iter().flat_map(|part| part.chunks(self.chunk)) {
            file.write_all(chunk)?;
            hasher.update(chunk);
            size += chunk.len() as u64;
        }
        again(|| file.sync())?;
        Ok(Entry { name: name.to_owned(), size, blake3: hasher.finalize().to_hex().to_string() })
    }

    fn read_back(&self, path: &Path, record: &Record) -> Result<Verified> {
        const REMEDY: &str = "check the disk; older checkpoints are kept";
        let verified = verify(&*self.files, path)
            .map_err(|reason| state_error(path, format!("it does not read back as written: {reason}"), REMEDY))?;
        if verified.record != *record {
            return Err(state_error(path, "its record does not read back as written", REMEDY));
        }
        Ok(verified)
    }

    /// Removes checkpoints older than the newest `keep` sound ones. Broken ones stay.
    fn retire(&mut self, newest: u64, removed: &mut Vec<PathBuf>) -> Result<()> {
        let mut older = steps(&*self.files, &self.folder)?;
        older.retain(|&step| step <= newest);
        if older.len() <= self.keep {
            return Ok(());
        }
        let mut sound = 0;
        for step in older {
            let path = self.folder.join(format!("step-{step}"));
            let is_sound = *self.known.entry(step).or_insert_with(|| verify(&*self.files, &path).is_ok());
            if !is_sound {
                continue;
            }
            sound += 1;
            if sound > self.keep {
                self.withdraw(&path, step).map_err(|error| io_error(&path, "remove", error))?;
                removed.push(path);
            }
        }
        Ok(())
    }

    /// Takes the name first: half a checkpoint must not be found under it.
    fn withdraw(&mut self, path: &Path, step: u64) -> io::Result<()> {
        let hidden = self.folder.join(format!(".step-{step}.removed"));
        remove(&*self.files, &hidden)?;
        again(|| self.files.rename(path, &hidden))?;
        self.known.remove(&step);
        remove(&*self.files, &hidden)
    }
}

/// Names of what is being written or removed.
fn is_unfinished(name: &str) -> bool {
    let middle = |end| name.strip_prefix('.').and_then(|name| name.strip_suffix(end));
    middle(".writing").or_else(|| middle(".removed")).is_some_and(|name| step_of(name).is_some())
}

/// Removes a folder and the files in it; one that is not there is removed already.
fn remove(files: &dyn Files, folder: &Path) -> io::Result<()> {
    let names = match again(|| files.names(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome?,
    };
    for name in names {
        again(|| files.remove_file(&folder.join(&name)))?;
    }
    again(|| files.remove_folder(folder))
}

/// Makes a folder and its parents, and makes each durable in its parent.
fn create_all(files: &dyn Files, folder: &Path) -> io::Result<()> {
    // The parent of a bare name is the empty path, which cannot be opened.
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match again(|| files.create_folder(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_all(files, parent)?;
            again(|| files.create_folder(folder))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        outcome => outcome?,
    }
    again(|| files.sync_folder(parent))
}

/// Sections from the widest type to the narrowest, so that each lies aligned in the file, as safetensors orders them.
fn in_order<'a>(sections: &'a [Section<'a>]) -> impl Iterator<Item = &'a Section<'a>> {
    let mut order: Vec<&Section<'_>> = sections.iter().collect();
    order.sort_by_key(|section| std::cmp::Reverse(section.dtype.bitsize()));
    order.into_iter()
}

/// The safetensors header, its length in front.
fn header_of(sections: &[Section<'_>]) -> io::Result<Vec<u8>> {
    let mut header = HeaderBuilder::default();
    for section in in_order(sections) {
        let values = section.bytes.len() * 8 / section.dtype.bitsize();
        if !header.add(&section.name, &section.dtype.to_string(), &[values], section.bytes.len()) {
            return Err(io::Error::other(format!("two sections are named {}", section.name)));
        }
    }
    Ok(header.bytes())
}
