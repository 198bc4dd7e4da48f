//! Totals for the caps, and the ledger by purpose and model.

use rusqlite::Row;

use crate::error::Result;
use crate::open::Journal;

/// What all runs have used together. Calls whose fate is unknown count at their worst.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Calls that were billed, or may have been.
    pub calls: u64,
    /// Dollars that are known.
    pub cost: f64,
    /// Dollars of calls whose fate is unknown, at most.
    pub possible_cost: f64,
    /// Tokens that are known, questions and answers.
    pub tokens: u64,
    /// Tokens of calls whose fate is unknown, at most.
    pub possible_tokens: u64,
    /// What was used of models that had no price then.
    pub unpriced: Vec<Unpriced>,
}

/// Tokens that had no price.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpriced {
    pub model: String,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// At most, of calls whose fate is unknown.
    pub possible_tokens: u64,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub purpose: String,
    pub model: String,
    pub intent: u64,
    pub done: u64,
    pub failed: u64,
    pub invalid: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub cost: f64,
    /// Calls whose cost is unknown, and the most that they can have cost.
    pub possibly_billed: u64,
    pub possible_cost: f64,
    /// Billed calls of a model without a price.
    pub unpriced: u64,
}

/// A process that wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub holder: String,
    /// Milliseconds since 1970.
    pub started: i64,
    /// `None`: killed, or still at work.
    pub ended: Option<i64>,
    pub calls: u64,
    /// Calls without an answer, outside of batches.
    pub unanswered: u64,
}

/// All that a person wants to know of a journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub totals: Totals,
    pub groups: Vec<Group>,
    pub runs: Vec<Run>,
    pub open_batches: u64,
    /// Calls in them.
    pub batched: u64,
    /// Different requests, and those among them that have an answer.
    pub requests: u64,
    pub answered: u64,
}

fn count(row: &Row, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, Option<i64>>(column).map(|value| value.unwrap_or(0) as u64)
}

fn dollars(row: &Row, column: usize) -> rusqlite::Result<f64> {
    row.get::<_, Option<f64>>(column).map(Option::unwrap_or_default)
}

impl Journal {
    /// # Errors
    /// [`crate::Error::Damaged`], [`crate::Error::Io`].
    pub fn totals(&self) -> Result<Totals> {
        let sums = "SELECT count(*), sum(cost), sum(possible_cost), sum(prompt_tokens) + sum(completion_tokens), sum(possible_tokens)
                    FROM spend";
        let read = |row: &Row| {
            Ok(Totals {
                calls: count(row, 0)?,
                cost: dollars(row, 1)?,
                possible_cost: dollars(row, 2)?,
                tokens: count(row, 3)?,
                possible_tokens: count(row, 4)?,
                unpriced: Vec::new(),
            })
        };
        let totals = self.connection.query_row(sums, (), read).map_err(|error| self.error(error))?;
        let unpriced = self.rows(
            "SELECT model, sum(prompt_tokens), sum(completion_tokens), sum(possible_tokens) FROM spend
             WHERE cost IS NULL OR possible_cost IS NULL GROUP BY model",
            |row| {
                Ok(Unpriced {
                    model: row.get(0)?,
                    prompt_tokens: count(row, 1)?,
                    completion_tokens: count(row, 2)?,
                    possible_tokens: count(row, 3)?,
                })
            },
        )?;
        Ok(Totals { unpriced, ..totals })
    }

    /// # Errors
    /// [`crate::Error::Damaged`], [`crate::Error::Io`].
    pub fn summary(&self) -> Result<Summary> {
        let groups = self.rows(
            "SELECT purpose, model, sum(state = 'intent'), sum(state = 'done'), sum(state = 'failed'), sum(state = 'invalid'),
               sum(CASE WHEN billed = 1 THEN prompt_tokens END), sum(CASE WHEN billed = 1 THEN completion_tokens END),
               sum(CASE WHEN billed = 1 THEN cost END),
               sum(billed IS NULL), sum(CASE WHEN billed IS NULL THEN worst_cost END),
               sum(billed = 1 AND cost IS NULL)
             FROM call GROUP BY purpose, model ORDER BY purpose, model",
            |row| {
                Ok(Group {
                    purpose: row.get(0)?,
                    model: row.get(1)?,
                    intent: count(row, 2)?,
                    done: count(row, 3)?,
                    failed: count(row, 4)?,
                    invalid: count(row, 5)?,
                    prompt_tokens: count(row, 6)?,
                    completion_tokens: count(row, 7)?,
                    cost: dollars(row, 8)?,
                    possibly_billed: count(row, 9)?,
                    possible_cost: dollars(row, 10)?,
                    unpriced: count(row, 11)?,
                })
            },
        )?;
        let runs = self.rows(
            "SELECT run.holder, run.started, run.ended, count(call.id), sum(call.state = 'intent' AND call.batch IS NULL)
             FROM run LEFT JOIN call ON call.run = run.id GROUP BY run.id ORDER BY run.id",
            |row| {
                Ok(Run {
                    holder: row.get(0)?,
                    started: row.get(1)?,
                    ended: row.get(2)?,
                    calls: count(row, 3)?,
                    unanswered: count(row, 4)?,
                })
            },
        )?;
        let one =
            |sql: &str| self.connection.query_row(sql, (), |row| count(row, 0)).map_err(|error| self.error(error));
        Ok(Summary {
            totals: self.totals()?,
            groups,
            runs,
            open_batches: one("SELECT count(*) FROM batch WHERE state = 'open'")?,
            batched: one(
                "SELECT count(*) FROM call JOIN batch ON batch.id = call.batch WHERE call.state = 'intent' AND batch.state = 'open'",
            )?,
            requests: one("SELECT count(*) FROM request")?,
            answered: one("SELECT count(DISTINCT key) FROM call WHERE state = 'done'")?,
        })
    }

    fn rows<T>(&self, sql: &str, read: impl FnMut(&Row) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        let mut statement = self.connection.prepare(sql).map_err(|error| self.error(error))?;
        let rows = statement.query_map((), read).map_err(|error| self.error(error))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|error| self.error(error))
    }
}
