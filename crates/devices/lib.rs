//! The devices of this machine: which cards there are, what NVIDIA's driver and libraries are, where they were looked for,
//! and why a card can or cannot be used.
//!
//! Nothing is linked: every library is opened at run time, so that one addon loads anywhere. Nothing here fails or panics
//! because of what a machine has or lacks; what is missing is a finding. The one thing that can be refused is a wish
//! ([`choose`]), with every place that was looked at.

mod choice;
mod driver;
mod error;
mod library;
mod places;
mod survey;
#[cfg(all(test, target_os = "linux"))]
mod test;

pub use choice::{Build, Choice, Wanted, choose, first_card};
pub use driver::Card;
pub use error::{Error, Refusal};
pub use library::Attempt;
pub use places::Surroundings;
pub use survey::{DriverFacts, LibraryFacts, Survey};
