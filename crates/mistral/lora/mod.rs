//! Low-rank adapters (LoRA, Hu et al. 2021) as PEFT understands and stores them.
//!
//! ```text
//! config   adapter_config.json: rank, alpha, which projections; what is not implemented is refused by name
//! target   how PEFT matches names and patterns
//! adapter  every A and B in one flat f32 arena
//! dropout  masks that are a function of place
//! io       PEFT's folder, read and written
//! merge    W + s·B·A
//! ```

mod adapter;
pub mod config;
pub(crate) mod dropout;
mod io;
mod merge;
mod target;
#[cfg(test)]
mod test;

pub use adapter::{Adapter, AdapterLayout, LowRank};
pub use config::LoraConfig;
pub use dropout::key as dropout_key;
pub use io::{is_adapter, load, read_config, save};
pub use merge::merge;
