//! The Node binding: it only translates.
//!
//! Every class is `Native…`; hand-written TypeScript in `ts/` wraps it. Long work is a job on the engine thread
//! ([`engine`]), or on a journal's own ([`journal`]), and comes back as a promise; errors carry the core's stable code
//! ([`failure`]).

// napi exports functions only outside of test builds, where clippy then finds them unused.
#![cfg_attr(test, allow(dead_code))]

mod batch;
mod card;
mod checkpoint;
mod devices;
mod engine;
mod failure;
mod generation;
mod journal;
mod memory;
mod model;
mod peak;
mod resident;
mod schedule;
mod seat;
mod session;
mod tokenizer;
