//! The decoder on a GPU: [`train`](crate::train)'s twin, launch by launch, over one packed batch. **Not yet run on a GPU**:
//! the tests run it on the emulation (crates/emulator).
//!
//! ```text
//! decoder    weights and adapter in device memory, in the host's layout or packed as NF4; up and down
//! workspace  every activation and every backward buffer, laid out before anything is allocated
//! linear     the products of a layer, with what an adapter adds
//! forward    the layers up
//! backward   the layers down, under the same recompute policies
//! head       log-probabilities of the rows that predict something, in chunks, and their gradient
//! cached     steps over tokens whose keys and values stay: what generating and scoring drive
//! resident   a model that stays, of whichever type, for those
//! ```
//! `T` is the type of weights and activations: f32 to compare with the CPU, bf16 to be fast. Sums are f32 either way, and so
//! are logits. Everything is queued; the host waits in [`Statistics::wait`] and [`Decoder::all_logits`] alone.

mod backward;
mod cached;
#[cfg(test)]
mod cached_test;
mod decoder;
mod forward;
mod head;
mod linear;
#[cfg(test)]
mod packed_test;
mod resident;
#[cfg(test)]
mod test;
mod workspace;

pub use cached::{Cached, PagedCache, Room};
pub use decoder::{Decoder, Gradients, check_config, download, upload};
pub use head::Statistics;
pub use resident::Resident;
pub use workspace::{Drawn, Loaded, Planned, Sizes, Workspace, plan_workspace};
