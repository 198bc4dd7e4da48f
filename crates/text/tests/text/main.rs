//! The crate against the reference: golden vectors, cases from other projects' bug trackers, and properties.

mod cases;
mod folders;
mod golden;
mod properties;
mod smollm2;
