//! The journal of paid calls: what was sent, what came back, what it cost. It knows nothing of models.
//!
//! ```text
//! schema   the tables, and the view that is the spend ledger
//! open     a file is proven to be a sound journal before it is used
//! lock     one writer at a time
//! call     intent → done | failed | invalid
//! batch    calls that were handed over together and are answered later
//! summary  totals, and who spent what on what
//! ```
//! A call is written down before it is sent and its answer before anyone sees it, each with a commit that has reached the
//! disk (`synchronous=FULL`). So the worst that a killed process leaves behind is an `intent`: it may have been billed, and
//! is counted at the most that it can have cost.

mod batch;
mod call;
mod error;
mod lock;
mod open;
mod schema;
mod summary;
#[cfg(test)]
mod test;

pub use batch::{Batch, NewBatch};
pub use call::{Answer, Intent, Outcome, Rejected, Settled};
pub use error::{Error, Result};
pub use open::Journal;
pub use summary::{Group, Run, Summary, Totals, Unpriced};
