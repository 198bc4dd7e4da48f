//! The Node binding: it only translates.
//!
//! Every class is `Native…`; hand-written TypeScript in `ts/` wraps it. Long work is a job on the engine thread
//! ([`engine`]) and comes back as a promise; errors carry the core's stable code ([`failure`]).

mod engine;
mod failure;
mod model;
mod session;
mod tokenizer;
