//! The arithmetic of training: plain functions over `f32` slices, one folder per operation.
//!
//! The house rule: **an operation is a folder.** Each holds
//! - `mod.rs`: the specification (formula, shapes, convention, source) and the public functions, which check shapes;
//! - `cpu.rs`: the implementation;
//! - `test.rs`: forward and backward against candle's autograd and against finite differences;
//! - `bench.rs`: its cost at the sizes of SmolLM2-135M (`cargo bench -p zephyr-kernels`);
//! - `kernel.cu`, `cuda.rs` and `emulated.rs`: the same on a GPU, how to launch it, and its proof on the CPU ([`cuda`]).
//!
//! Common to all:
//! - Everything is `f32`, row-major; frozen weights may be stored in fewer bits ([`matrix`]). Letters in shapes: T tokens of the packed batch, H heads, KV key/value heads, D head
//!   dimension, h hidden width, I intermediate width, V vocabulary.
//! - Operations work in the *current* rayon pool. The partition of the work is a function of the shapes and of the pool's
//!   size, and every sum has one fixed order: same inputs and same number of threads give the same bits.
//! - The instruction set is chosen at run time (AVX-512, AVX2 with FMA, or what the target guarantees); see [`simd`].
//! - Shapes are the caller's business: a wrong one is a bug and panics at once with both figures, as slices do. Nothing
//!   here reads files or user input.

pub mod adamw;
pub mod attention;
pub mod cast;
pub mod cuda;
pub mod dropout;
pub mod embedding;
pub mod gemm;
pub mod head;
pub mod matrix;
pub mod nf4;
pub mod noise;
pub mod norm;
#[cfg(test)]
mod oracle;
mod parallel;
pub mod quantised;
pub mod rms_norm;
pub mod rope;
mod simd;
pub mod splitmix;
pub mod swiglu;

pub use parallel::{leads, run, team};
