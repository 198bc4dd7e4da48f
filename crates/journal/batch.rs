//! Calls that are handed over together and answered later, maybe to another process.

use rusqlite::{Row, params};

use crate::call::Intent;
use crate::error::Result;
use crate::open::{Journal, now};

/// A batch that is about to be handed over.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Ours, given to the provider too: a batch that was made, but whose id never arrived, is found by it.
    pub name: String,
    pub model: String,
    pub endpoint: String,
}

/// A batch as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub id: i64,
    pub name: String,
    pub model: String,
    pub endpoint: String,
    pub input_file: Option<String>,
    /// The provider's id; `None`: it was never confirmed that the batch exists.
    pub provider_id: Option<String>,
    /// Milliseconds since 1970.
    pub created: i64,
}

impl Journal {
    /// Writes down a batch with its calls before it is handed over. Returns the batch's id and those of the calls.
    ///
    /// # Errors
    /// [`crate::Error::Full`], [`crate::Error::Io`].
    pub fn intend_batch(&self, batch: &NewBatch, intents: &[Intent]) -> Result<(i64, Vec<i64>)> {
        self.atomically(|| {
            let write = self.connection.execute(
                "INSERT INTO batch (name, model, endpoint, state, created) VALUES (?1, ?2, ?3, 'open', ?4)",
                (&batch.name, &batch.model, &batch.endpoint, now()),
            );
            write.map_err(|error| self.error(error))?;
            let id = self.connection.last_insert_rowid();
            let intents: Vec<Intent> =
                intents.iter().map(|intent| Intent { batch: Some(id), ..intent.clone() }).collect();
            Ok((id, self.intend(&intents)?))
        })
    }

    /// Notes what the provider called the file and the batch, as they become known.
    ///
    /// # Errors
    /// [`crate::Error::Full`], [`crate::Error::Io`].
    pub fn name_batch(&self, batch: i64, input_file: Option<&str>, provider_id: Option<&str>) -> Result<()> {
        let sql = "UPDATE batch SET input_file = coalesce(?2, input_file), provider_id = coalesce(?3, provider_id) WHERE id = ?1";
        self.connection
            .execute(sql, params![batch, input_file, provider_id])
            .map(drop)
            .map_err(|error| self.error(error))
    }

    /// Ends a batch whose calls are all settled; `note` says how it ended.
    ///
    /// # Errors
    /// [`crate::Error::Full`], [`crate::Error::Io`].
    pub fn close_batch(&self, batch: i64, note: &str) -> Result<()> {
        let sql = "UPDATE batch SET state = 'closed', note = ?2, ended = ?3 WHERE id = ?1";
        self.connection.execute(sql, (batch, note, now())).map(drop).map_err(|error| self.error(error))
    }

    /// Batches whose answers have not been taken yet, oldest first.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`], [`crate::Error::Io`].
    pub fn open_batches(&self) -> Result<Vec<Batch>> {
        let sql = "SELECT id, name, model, endpoint, input_file, provider_id, created FROM batch WHERE state = 'open' ORDER BY id";
        let read = |row: &Row| {
            Ok(Batch {
                id: row.get(0)?,
                name: row.get(1)?,
                model: row.get(2)?,
                endpoint: row.get(3)?,
                input_file: row.get(4)?,
                provider_id: row.get(5)?,
                created: row.get(6)?,
            })
        };
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.error(error))?;
        let rows = statement.query_map((), read).map_err(|error| self.error(error))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|error| self.error(error))
    }

    /// The calls of a batch that have no answer yet: id and key.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`], [`crate::Error::Io`].
    pub fn waiting_in(&self, batch: i64) -> Result<Vec<(i64, String)>> {
        let sql = "SELECT id, key FROM call WHERE batch = ?1 AND state = 'intent' ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.error(error))?;
        let rows =
            statement.query_map([batch], |row| Ok((row.get(0)?, row.get(1)?))).map_err(|error| self.error(error))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|error| self.error(error))
    }
}
