//! A file system in memory that fails on demand and forgets, at a crash, what was not flushed.
//!
//! Every change is logged. A crash after any prefix of the log can be played with several losses: content that was not
//! fsynced may be gone, torn or zeros; names whose folder was not fsynced may be there or not, in any combination. That
//! is more than real file systems lose, so what survives here survives there.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::{Files, Input, Output};

type Id = usize;
const ROOT: Id = 0;

/// What the operating system may answer instead of working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// ENOSPC; a write has written half by then.
    NoSpace,
    /// EIO; a write has written half by then.
    Io,
    /// EINTR; nothing was done.
    Interrupted,
    /// A write that says that it went well, and wrote a bit wrong. Other operations do what they should.
    Flipped,
}

impl Fault {
    fn error(self) -> io::Error {
        io::Error::from(match self {
            Self::NoSpace => io::ErrorKind::StorageFull,
            Self::Io => return io::Error::other("EIO"),
            Self::Interrupted => io::ErrorKind::Interrupted,
            Self::Flipped => unreachable!("it tells nobody"),
        })
    }
}

/// What becomes of content that was not fsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    Kept,
    Lost,
    /// Half of it is there.
    Torn,
    /// The size is there, the bytes are zeros.
    Zeros,
}

#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>),
    Folder(BTreeMap<String, Id>),
}

/// One logged change.
#[derive(Clone, Debug)]
enum Change {
    New(Id, Node),
    /// A name in a folder; `from` is the name that it had there before.
    Name {
        folder: Id,
        name: String,
        node: Id,
        from: Option<String>,
    },
    Unname {
        folder: Id,
        name: String,
    },
    Append {
        file: Id,
        bytes: Vec<u8>,
    },
    SyncFile(Id),
    SyncFolder(Id),
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    /// The nodes when the log was begun: all of it durable.
    start: Vec<Node>,
    log: Vec<Change>,
    /// Calls since the log was begun, reads included.
    calls: usize,
    fault: Option<(usize, Fault)>,
    free: Option<u64>,
}

/// The file system; clones are the same one.
#[derive(Clone)]
pub struct FaultyDisk(Arc<Mutex<State>>);

impl FaultyDisk {
    pub fn new() -> Self {
        Self::of(vec![Node::Folder(BTreeMap::new())])
    }

    fn of(nodes: Vec<Node>) -> Self {
        Self(Arc::new(Mutex::new(State { start: nodes.clone(), nodes, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A disk of the same content, all of it durable, with an empty log.
    pub fn copy(&self) -> Self {
        Self::of(self.state().nodes.clone())
    }

    /// Calls since this disk was made.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// Lets the `call`-th call from now on (from 0) fail.
    pub fn fail(&self, call: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.calls + call, fault));
    }

    pub fn set_free(&self, bytes: u64) {
        self.state().free = Some(bytes);
    }

    /// Changes logged since this disk was made.
    pub fn changes(&self) -> usize {
        self.state().log.len()
    }

    /// Names changed by the first `prefix` changes whose folder was not flushed since.
    pub fn pending_names(&self, prefix: usize) -> usize {
        let state = self.state();
        pending(&state.log[..prefix]).len()
    }

    /// The disk after a crash behind the first `prefix` changes. Bit `i` of `kept` says whether the `i`-th pending name
    /// made it to the disk.
    pub fn crash(&self, prefix: usize, unsynced: Unsynced, kept: u64) -> Self {
        let state = self.state();
        let log = &state.log[..prefix];
        let lost: Vec<usize> =
            pending(log).into_iter().enumerate().filter(|(bit, _)| kept >> bit & 1 == 0).map(|(_, at)| at).collect();
        let mut nodes = state.start.clone();
        // Bytes of each file that are surely on the disk.
        let mut durable: BTreeMap<Id, usize> = BTreeMap::new();
        for (at, change) in log.iter().enumerate() {
            match change {
                Change::SyncFile(file) => {
                    durable.insert(*file, content(&nodes[*file]).len());
                }
                Change::Name { .. } | Change::Unname { .. } if lost.contains(&at) => {}
                change => apply(&mut nodes, change),
            }
        }
        for (id, node) in nodes.iter_mut().enumerate().skip(state.start.len()) {
            let Node::File(bytes) = node else { continue };
            let sure = durable.get(&id).copied().unwrap_or(0);
            match unsynced {
                Unsynced::Kept => {}
                Unsynced::Lost => bytes.truncate(sure),
                Unsynced::Torn => bytes.truncate(sure + (bytes.len() - sure) / 2),
                Unsynced::Zeros => bytes[sure..].fill(0),
            }
        }
        Self::of(nodes)
    }

    /// Changes the bytes of a file behind everybody's back.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = find(&state.nodes, path).unwrap();
        let Node::File(bytes) = &mut state.nodes[id] else { panic!("{} is no file", path.display()) };
        change(bytes);
    }

    pub fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        content(&state.nodes[find(&state.nodes, path).unwrap()]).to_vec()
    }

    /// Counts a call; `Err` when it is the one that fails.
    fn call(&self) -> Result<MutexGuard<'_, State>, (Fault, MutexGuard<'_, State>)> {
        let mut state = self.state();
        state.calls += 1;
        match state.fault {
            Some((at, fault)) if at + 1 == state.calls => Err((fault, state)),
            _ => Ok(state),
        }
    }

    fn working(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.call() {
            Err((Fault::Flipped, state)) => Ok(state),
            outcome => outcome.map_err(|(fault, _)| fault.error()),
        }
    }
}

impl State {
    fn change(&mut self, change: Change) {
        apply(&mut self.nodes, &change);
        self.log.push(change);
    }

    /// A new node under a free name.
    fn add(&mut self, path: &Path, node: Node) -> io::Result<Id> {
        let (folder, name) = parent(&self.nodes, path)?;
        if folder_of(&self.nodes, folder)?.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.nodes.len();
        self.change(Change::New(id, node));
        self.change(Change::Name { folder, name, node: id, from: None });
        Ok(id)
    }
}

/// Places in the log of name changes that no flush of their folder followed.
fn pending(log: &[Change]) -> Vec<usize> {
    let mut open: Vec<(usize, Id)> = Vec::new();
    for (at, change) in log.iter().enumerate() {
        match change {
            Change::Name { folder, .. } | Change::Unname { folder, .. } => open.push((at, *folder)),
            Change::SyncFolder(folder) => open.retain(|(_, of)| of != folder),
            _ => {}
        }
    }
    open.into_iter().map(|(at, _)| at).collect()
}

fn apply(nodes: &mut Vec<Node>, change: &Change) {
    let names = |nodes: &mut Vec<Node>, folder: Id| match &mut nodes[folder] {
        Node::Folder(names) => std::mem::take(names),
        Node::File(_) => panic!("a file has no names"),
    };
    match change {
        Change::New(id, node) => {
            assert_eq!(*id, nodes.len());
            nodes.push(node.clone());
        }
        Change::Name { folder, name, node, from } => {
            let mut entries = names(nodes, *folder);
            if let Some(from) = from {
                entries.remove(from);
            }
            entries.insert(name.clone(), *node);
            nodes[*folder] = Node::Folder(entries);
        }
        Change::Unname { folder, name } => {
            let mut entries = names(nodes, *folder);
            entries.remove(name);
            nodes[*folder] = Node::Folder(entries);
        }
        Change::Append { file, bytes } => match &mut nodes[*file] {
            Node::File(content) => content.extend_from_slice(bytes),
            Node::Folder(_) => panic!("a folder has no content"),
        },
        Change::SyncFile(_) | Change::SyncFolder(_) => {}
    }
}

fn content(node: &Node) -> &[u8] {
    match node {
        Node::File(bytes) => bytes,
        Node::Folder(_) => panic!("a folder has no content"),
    }
}

fn folder_of(nodes: &[Node], id: Id) -> io::Result<&BTreeMap<String, Id>> {
    match &nodes[id] {
        Node::Folder(names) => Ok(names),
        Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
    }
}

fn find(nodes: &[Node], path: &Path) -> io::Result<Id> {
    let mut id = ROOT;
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        let names = folder_of(nodes, id)?;
        id = *names.get(name.to_str().unwrap()).ok_or(io::ErrorKind::NotFound)?;
    }
    Ok(id)
}

fn parent(nodes: &[Node], path: &Path) -> io::Result<(Id, String)> {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    Ok((find(nodes, path.parent().unwrap())?, name))
}

struct OutputFile {
    disk: FaultyDisk,
    id: Id,
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.disk.call() {
            Ok(mut state) => {
                state.change(Change::Append { file: self.id, bytes: bytes.to_vec() });
                Ok(bytes.len())
            }
            Err((Fault::Flipped, mut state)) => {
                let mut wrong = bytes.to_vec();
                wrong[bytes.len() / 2] ^= 1;
                state.change(Change::Append { file: self.id, bytes: wrong });
                Ok(bytes.len())
            }
            Err((fault, mut state)) => {
                if fault != Fault::Interrupted {
                    state.change(Change::Append { file: self.id, bytes: bytes[..bytes.len() / 2].to_vec() });
                }
                Err(fault.error())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for OutputFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.working()?.change(Change::SyncFile(self.id));
        Ok(())
    }
}

struct InputFile {
    disk: FaultyDisk,
    content: Cursor<Vec<u8>>,
}

impl Read for InputFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        drop(self.disk.working()?);
        self.content.read(buffer)
    }
}

impl Seek for InputFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.content.seek(position)
    }
}

impl Input for InputFile {}

impl Files for FaultyDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.working()?.add(path, Node::Folder(BTreeMap::new())).map(drop)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let id = self.working()?.add(path, Node::File(Vec::new()))?;
        Ok(Box::new(OutputFile { disk: self.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        let state = self.working()?;
        let bytes = content(&state.nodes[find(&state.nodes, path)?]).to_vec();
        drop(state);
        Ok(Box::new(InputFile { disk: self.clone(), content: Cursor::new(bytes) }))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.working()?;
        let id = find(&state.nodes, folder)?;
        Ok(folder_of(&state.nodes, id)?.keys().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.working()?;
        let node = find(&state.nodes, from)?;
        let ((folder, old), (other, name)) = (parent(&state.nodes, from)?, parent(&state.nodes, to)?);
        assert_eq!(folder, other, "the protocol renames beside the target");
        assert!(!folder_of(&state.nodes, folder)?.contains_key(&name), "the target of a rename is absent");
        state.change(Change::Name { folder, name, node, from: Some(old) });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.working()?;
        find(&state.nodes, path)?;
        let (folder, name) = parent(&state.nodes, path)?;
        state.change(Change::Unname { folder, name });
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.working()?;
        let id = find(&state.nodes, path)?;
        if !folder_of(&state.nodes, id)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (folder, name) = parent(&state.nodes, path)?;
        state.change(Change::Unname { folder, name });
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.working()?;
        let id = find(&state.nodes, path)?;
        state.change(Change::SyncFolder(id));
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<Option<u64>> {
        Ok(self.working()?.free)
    }
}
