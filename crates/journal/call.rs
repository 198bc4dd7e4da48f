//! The life of a call: intent → done, failed, or (answered, but of no use) invalid.

use rusqlite::{OptionalExtension, Row, params};

use crate::error::{Error, Result};
use crate::open::{Journal, now};

/// A call that is about to be sent.
#[derive(Debug, Clone, Default)]
pub struct Intent {
    /// SHA-256 of `request`, in hexadecimal.
    pub key: String,
    /// Canonical JSON of everything that decides the answer.
    pub request: String,
    pub model: String,
    /// What it is for: groups the ledger.
    pub purpose: String,
    /// The most it can cost, in dollars; `None` without a price.
    pub worst_cost: Option<f64>,
    /// The most tokens that it can use, question and answer.
    pub worst_tokens: u64,
    /// The batch that it is part of.
    pub batch: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Settled {
    pub call: i64,
    pub outcome: Outcome,
    /// `None`: nobody knows, or the server did not say how much.
    pub billed: Option<bool>,
    /// HTTP status.
    pub status: Option<u32>,
    /// The provider's id of the request, for disputes.
    pub provider_id: Option<String>,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    /// Dollars.
    pub cost: Option<f64>,
    /// Why it failed.
    pub note: Option<String>,
    /// What came back.
    pub response: Option<String>,
}

/// An answer that was paid for earlier.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub call: i64,
    pub response: String,
    pub cost: Option<f64>,
}

/// An answer that could not be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    pub call: i64,
    pub key: String,
    pub model: String,
    pub purpose: String,
    /// What was wrong with it.
    pub reason: String,
    pub request: String,
    pub response: String,
}

impl Journal {
    /// The newest answer to a request that nobody has rejected.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn find(&self, key: &str) -> Result<Option<Answer>> {
        let sql = "SELECT call.id, response.body, call.cost FROM call JOIN response ON response.call = call.id
                   WHERE call.key = ?1 AND call.state = 'done' ORDER BY call.attempt DESC LIMIT 1";
        let answer = |row: &Row| Ok(Answer { call: row.get(0)?, response: row.get(1)?, cost: row.get(2)? });
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.error(error))?;
        statement.query_row([key], answer).optional().map_err(|error| self.error(error))
    }

    /// Writes down calls that are about to be sent; all or none. Returns their ids.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`]: then nothing may be sent.
    pub fn intend(&self, intents: &[Intent]) -> Result<Vec<i64>> {
        self.atomically(|| intents.iter().map(|intent| self.intend_one(intent)).collect())
    }

    fn intend_one(&self, intent: &Intent) -> Result<i64> {
        let write = || {
            let mut request = self
                .connection
                .prepare_cached("INSERT INTO request (key, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
            request.execute((&intent.key, &intent.request))?;
            let mut call = self.connection.prepare_cached(
                "INSERT INTO call (key, attempt, run, batch, state, model, purpose, worst_cost, worst_tokens, started)
                 VALUES (?1, (SELECT coalesce(max(attempt), 0) + 1 FROM call WHERE key = ?1), ?2, ?3, 'intent', ?4, ?5, ?6, ?7, ?8)",
            )?;
            call.insert(params![
                intent.key,
                self.run,
                intent.batch,
                intent.model,
                intent.purpose,
                intent.worst_cost,
                intent.worst_tokens as i64,
                now()
            ])
        };
        write().map_err(|error| self.error(error))
    }

    /// Writes down how calls ended; all or none.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`]: then the answers are not safe yet, and nobody may see them.
    pub fn settle(&self, calls: &[Settled]) -> Result<()> {
        self.atomically(|| calls.iter().try_for_each(|call| self.settle_one(call)))
    }

    fn settle_one(&self, settled: &Settled) -> Result<()> {
        let write = || {
            let mut call = self.connection.prepare_cached(
                "UPDATE call SET state = ?2, billed = ?3, status = ?4, provider_id = ?5, prompt_tokens = ?6,
                 completion_tokens = ?7, cost = ?8, note = ?9, bytes = ?10, ended = ?11 WHERE id = ?1 AND state = 'intent'",
            )?;
            let state = match settled.outcome {
                Outcome::Done => "done",
                Outcome::Failed => "failed",
            };
            let changed = call.execute(params![
                settled.call,
                state,
                settled.billed,
                settled.status,
                settled.provider_id,
                settled.prompt_tokens.map(|tokens| tokens as i64),
                settled.completion_tokens.map(|tokens| tokens as i64),
                settled.cost,
                settled.note,
                settled.response.as_ref().map(|body| body.len() as i64),
                now()
            ])?;
            if let (1, Some(body)) = (changed, &settled.response) {
                let mut response =
                    self.connection.prepare_cached("INSERT INTO response (call, body) VALUES (?1, ?2)")?;
                response.execute((settled.call, body))?;
            }
            Ok(changed)
        };
        match write() {
            Ok(1) => Ok(()),
            Ok(_) => Err(self.fault(format!("call {} is settled twice", settled.call))),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Says that an answer is of no use: it is kept, but the request is asked again.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`].
    pub fn reject(&self, call: i64, reason: &str) -> Result<()> {
        self.change(
            "UPDATE call SET state = 'invalid', note = ?2 WHERE id = ?1 AND state IN ('done', 'invalid')",
            call,
            reason,
        )
    }

    /// Takes a rejected answer back into use: a better parser reads it.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`].
    pub fn reinstate(&self, call: i64) -> Result<()> {
        self.change(
            "UPDATE call SET state = 'done', note = ?2 WHERE id = ?1 AND state IN ('done', 'invalid')",
            call,
            "read again",
        )
    }

    fn change(&self, sql: &str, call: i64, note: &str) -> Result<()> {
        match self.connection.execute(sql, (call, note)) {
            Ok(1) => Ok(()),
            Ok(_) => Err(self.fault(format!("call {call} has no answer"))),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Rejected answers to one request, the newest first.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn rejected(&self, key: &str) -> Result<Vec<Rejected>> {
        self.rejections("call.key = ?1 ORDER BY call.attempt DESC LIMIT ?2", key, i64::MAX)
    }

    /// Rejected answers in the order of their calls, after a call, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn invalid(&self, after: i64, limit: u32) -> Result<Vec<Rejected>> {
        self.rejections("call.id > ?1 ORDER BY call.id LIMIT ?2", after, i64::from(limit))
    }

    fn rejections(&self, which: &str, value: impl rusqlite::ToSql, limit: i64) -> Result<Vec<Rejected>> {
        let sql = format!(
            "SELECT call.id, call.key, call.model, call.purpose, coalesce(call.note, ''), request.body, response.body
             FROM call JOIN request ON request.key = call.key JOIN response ON response.call = call.id
             WHERE call.state = 'invalid' AND {which}"
        );
        let read = |row: &Row| {
            Ok(Rejected {
                call: row.get(0)?,
                key: row.get(1)?,
                model: row.get(2)?,
                purpose: row.get(3)?,
                reason: row.get(4)?,
                request: row.get(5)?,
                response: row.get(6)?,
            })
        };
        let mut statement = self.connection.prepare_cached(&sql).map_err(|error| self.error(error))?;
        let rows = statement.query_map(params![value, limit], read).map_err(|error| self.error(error))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|error| self.error(error))
    }

    fn fault(&self, reason: String) -> Error {
        Error::Fault { path: self.path.clone(), reason }
    }
}
