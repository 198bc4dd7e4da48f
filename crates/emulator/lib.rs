//! The GPU that tests have: the kernels' own sources, compiled by g++ (crates/kernels/cuda/emulation), on the CPU.
//!
//! ```text
//! compiler  sources to libraries, kept from run to run
//! machine   memory by name and launches
//! proof     an op's proof: two schedules, and sources with mistakes
//! device    the same as a `cuda::Device`, for whole models
//! ```
//! For tests alone; without a C++ compiler they say that they skip.

mod compiler;
mod device;
mod machine;
mod proof;

pub use compiler::{Library, Watch};
pub use device::{Emulated, whole};
pub use machine::{Device, Statistics};
pub use proof::{Mutation, Proof, catches, prove};
