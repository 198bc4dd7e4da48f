//! Opening a journal: the file is proven to be ours and sound before anything is written into it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};
use crate::lock::WriterLock;
use crate::schema::{APPLICATION, SCHEMA, VERSION};

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
    /// Of this process, in the table of runs; 0 for a reader.
    pub(crate) run: i64,
    /// Calls of killed runs whose answer never came: found at opening, possibly billed.
    orphans: u64,
    lock: Option<WriterLock>,
}

impl Journal {
    /// Opens a journal for writing, or makes one. `holder` says who this is (process, host, since when).
    ///
    /// # Errors
    /// [`Error::Locked`] when another process writes, [`Error::Foreign`], [`Error::Damaged`], [`Error::Version`].
    pub fn open(path: &Path, holder: &str) -> Result<Self> {
        let fresh = recognise(path)? == Kind::Empty;
        let lock = WriterLock::acquire(path, holder)?;
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        let mut journal = Self { path: path.to_path_buf(), connection, run: 0, orphans: 0, lock: Some(lock) };
        if journal.check()? == Kind::Empty {
            journal.pragma("journal_mode = WAL")?;
            journal.pragma("synchronous = FULL")?;
            journal.create()?;
        } else {
            journal.sound()?;
            journal.pragma("journal_mode = WAL")?;
            journal.pragma("synchronous = FULL")?;
        }
        if fresh {
            sync_folder(path)?;
        }
        journal.begin(holder)?;
        Ok(journal)
    }

    /// Opens a journal to look at it; a writer may be at work meanwhile.
    ///
    /// # Errors
    /// As [`Journal::open`], but never [`Error::Locked`]; [`Error::Io`] when there is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        if recognise(path)? == Kind::Empty && !path.exists() {
            return Err(Error::Io { path: path.to_path_buf(), reason: "there is no such file".to_owned() });
        }
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let journal = Self { path: path.to_path_buf(), connection, run: 0, orphans: 0, lock: None };
        if journal.check()? == Kind::Empty {
            return Err(Error::Foreign { path: path.to_path_buf(), what: "the file is empty".to_owned() });
        }
        Ok(journal)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls of killed runs that this opening found without an answer: they may have been billed. Calls in a batch that
    /// goes on at the provider are not among them.
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// The process that writes at this moment, in its own words; for a reader.
    pub fn writer(&self) -> Option<String> {
        if self.lock.is_some() { None } else { WriterLock::holder(&self.path) }
    }

    /// Runs `work` as one transaction: one wait for the disk, however many calls are settled in it. What `work` does is
    /// on the disk when this returns without an error, and undone when it returns one.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`], [`Error::Damaged`].
    pub fn together<T>(&self, work: impl FnOnce(&Self) -> T) -> Result<T> {
        self.execute(if self.lock.is_some() { "BEGIN IMMEDIATE" } else { "BEGIN" })?;
        let undo = Undo(self);
        let result = work(self);
        self.execute("COMMIT")?;
        std::mem::forget(undo);
        Ok(result)
    }

    /// All of `work` or nothing of it, alone or within [`Journal::together`].
    pub(crate) fn atomically<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.execute("SAVEPOINT whole")?;
        let undo = UndoWhole(self);
        let value = work()?;
        self.execute("RELEASE whole")?;
        std::mem::forget(undo);
        Ok(value)
    }

    /// Ends the run in good order. Without it (a killed process) calls under way are orphans of the next opening.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`].
    pub fn close(self) -> Result<()> {
        if self.lock.is_some() {
            let ended = self.connection.execute("UPDATE run SET ended = ?1 WHERE id = ?2", (now(), self.run));
            ended.map_err(|error| self.error(error))?;
        }
        let path = self.path;
        self.connection.close().map_err(|(_, error)| Error::sqlite(&path, error))
    }

    pub(crate) fn error(&self, error: rusqlite::Error) -> Error {
        Error::sqlite(&self.path, error)
    }

    fn execute(&self, sql: &str) -> Result<()> {
        self.connection.execute_batch(sql).map_err(|error| self.error(error))
    }

    fn pragma(&self, pragma: &str) -> Result<()> {
        // Some answer with a row, some do not.
        let sql = format!("PRAGMA {pragma}");
        let mut statement = self.connection.prepare(&sql).map_err(|error| self.error(error))?;
        let mut rows = statement.query(()).map_err(|error| self.error(error))?;
        rows.next().map(drop).map_err(|error| self.error(error))
    }

    fn number(&self, sql: &str) -> Result<i64> {
        self.connection.query_row(sql, (), |row| row.get(0)).map_err(|error| self.error(error))
    }

    /// Whose the file is, by what it says of itself.
    fn check(&self) -> Result<Kind> {
        let application = self.number("PRAGMA application_id")?;
        if application == 0 && self.number("SELECT count(*) FROM sqlite_master")? == 0 {
            return Ok(Kind::Empty);
        }
        if application != APPLICATION {
            let what = "the file is an SQLite database of another program".to_owned();
            return Err(Error::Foreign { path: self.path.clone(), what });
        }
        let found = self.number("PRAGMA user_version")?;
        if found != VERSION {
            return Err(Error::Version { path: self.path.clone(), found, known: VERSION });
        }
        Ok(Kind::Sqlite)
    }

    /// Every page and every row is looked at, once a run: a fault is better found now than after paying.
    fn sound(&self) -> Result<()> {
        let query = self.connection.query_row("PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0));
        match query.map_err(|error| self.error(error))?.as_str() {
            "ok" => Ok(()),
            found => Err(Error::Damaged { path: self.path.clone(), reason: found.replace('\n', "; ") }),
        }
    }

    fn create(&self) -> Result<()> {
        self.execute(&format!(
            "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
        ))
    }

    fn begin(&mut self, holder: &str) -> Result<()> {
        // Rows of earlier runs: this process has the lock, so nobody works on them any more.
        let orphans = self.number(
            "SELECT count(*) FROM call JOIN run ON run.id = call.run
             WHERE call.state = 'intent' AND call.batch IS NULL AND run.ended IS NULL
               AND run.id = (SELECT max(id) FROM run)",
        )?;
        self.orphans = orphans as u64;
        let begun = self.connection.execute("INSERT INTO run (holder, started) VALUES (?1, ?2)", (holder, now()));
        begun.map_err(|error| self.error(error))?;
        self.run = self.connection.last_insert_rowid();
        Ok(())
    }
}

/// Rolls back when a transaction is left without a commit.
struct Undo<'a>(&'a Journal);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // SQLite has rolled back by itself after some errors.
        if !self.0.connection.is_autocommit() {
            let _ = self.0.execute("ROLLBACK");
        }
    }
}

/// Undoes what was begun since the savepoint.
struct UndoWhole<'a>(&'a Journal);

impl Drop for UndoWhole<'_> {
    fn drop(&mut self) {
        let _ = self.0.execute("ROLLBACK TO whole").and_then(|()| self.0.execute("RELEASE whole"));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    Sqlite,
}

/// Looks at the first bytes, so that a foreign file is named for what it is.
fn recognise(path: &Path) -> Result<Kind> {
    const HEAD: &[u8] = b"SQLite format 3\0";
    let mut head = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kind::Empty),
        Err(error) => return Err(Error::io(path, error)),
        Ok(file) => file.take(HEAD.len() as u64).read_to_end(&mut head).map_err(|error| Error::io(path, error))?,
    };
    match head.as_slice() {
        [] => Ok(Kind::Empty),
        HEAD => Ok(Kind::Sqlite),
        _ => Err(Error::Foreign { path: path.to_path_buf(), what: "the file is of another kind".to_owned() }),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let fail = |error| Error::sqlite(path, error);
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(fail)?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A new file is found after a power cut only when its folder's entry has reached the disk.
fn sync_folder(path: &Path) -> Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| Error::io(path, error))?;
    }
    Ok(())
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
