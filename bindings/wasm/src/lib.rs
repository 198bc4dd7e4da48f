//! The WebAssembly binding: it only translates.
//!
//! Every class is `Wasm…`; hand-written TypeScript in `ts/browser` wraps it. A call does a bounded piece of work and comes back,
//! so that whoever holds the thread can look for messages in between: loading takes a piece of a file ([`loading`]),
//! generating and scoring a step of the network ([`generation`], [`scoring`]). Errors are objects with the core's stable code ([`failure`]).
#![cfg(target_arch = "wasm32")]

mod failure;
mod generation;
mod loading;
mod memory;
mod model;
mod scoring;
#[cfg(feature = "threads")]
mod threads;
mod tokenizer;

use wasm_bindgen::prelude::wasm_bindgen;

/// The package's version, which must be that of the TypeScript around it.
#[wasm_bindgen(js_name = wasmVersion)]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

#[wasm_bindgen(start)]
pub fn start() {
    failure::throw_panics();
}
