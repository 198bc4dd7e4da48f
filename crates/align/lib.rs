//! What a loss, a pair and a step are.
//!
//! ```text
//! batch      documents and preference pairs laid end to end, without padding
//! checkpoint saving and resuming a session at a step boundary, so that nothing is ever lost
//! fingerprint what model this is, to tie reference log-probs to it
//! flops      how many operations a step needs, the measure of its speed
//! losses     DPO's loss table, ORPO, CPO, KTO: pure functions with their derivatives, in f64
//! metrics    TRL's names and meaning, as sums that micro-batches can be added to
//! reference  a frozen reference that follows the policy from time to time (TR-DPO)
//! schedule   learning rates and step counts as transformers counts them
//! session    accumulate → apply: one optimizer step over micro-batches; reference log-probs; evaluation
//! ```

pub mod batch;
pub mod checkpoint;
pub mod error;
pub mod fingerprint;
pub mod flops;
pub mod losses;
pub mod metrics;
pub mod reference;
pub mod schedule;
pub mod session;
#[cfg(test)]
mod test;

pub use batch::{Packed, Pair, Sequence};
pub use error::{Error, Result};
pub use session::{Session, SessionOptions, Update};
