//! The Mistral / Llama decoder: what a layer is lives here, and nowhere else.
//!
//! ```text
//! config    config.json of the family, checked; what is not implemented is refused by name
//! layout    every parameter's place in one flat f32 arena (HF names, HF shapes)
//! weights   safetensors and GGUF into that arena, and back to an HF folder
//! storage   weights as f32, or frozen as bf16 or NF4
//! model     weights, or frozen weights under an adapter: what is computed with
//! linear    the products of a layer
//! lora      low-rank adapters, PEFT's folder
//! train     forward and explicit backward over a packed batch, activations in a reused workspace
//! device    the same on a GPU, or on the tests' emulation of one
//! generate  kv-cache decoding, sampling, log-probabilities of given text
//! ```
//! Knows the kernels; knows no losses, no text, no users.

pub mod config;
pub mod device;
pub mod error;
pub mod generate;
pub mod layout;
mod linear;
pub mod lora;
mod model;
pub mod storage;
pub mod train;
pub mod weights;

pub use config::Config;
pub use error::{Error, Result};
pub use layout::{Layout, TensorSpec, Weights};
pub use linear::Projection;
pub use lora::{Adapter, LoraConfig};
pub use model::{Model, Parameters};
pub use storage::Storage;
