//! Threads, in the module that has them: every one is a worker with an instance of its own on the one shared memory.
//!
//! WebAssembly starts no threads itself. The model's thread makes the pool, of which it is one; whoever holds the workers lets
//! each of the others call [`run_thread`], which waits for its place in the pool and leaves it never. A fault in one of them
//! cannot be seen from the others, which then wait for ever: whoever holds the workers is told, and ends them all.

use std::sync::{Condvar, Mutex, PoisonError};

use rayon::{ThreadBuilder, ThreadPoolBuilder};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::failure::Failure;

/// Places in the pool that no thread has taken yet.
static PLACES: Mutex<Vec<ThreadBuilder>> = Mutex::new(Vec::new());
static OFFERED: Condvar = Condvar::new();

/// The compiled module, for the instances of other threads.
#[wasm_bindgen(js_name = sharedModule)]
pub fn shared_module() -> JsValue {
    wasm_bindgen::module()
}

/// The memory that all instances share.
#[wasm_bindgen(js_name = sharedMemory)]
pub fn shared_memory() -> JsValue {
    wasm_bindgen::memory()
}

/// Makes the pool of this thread and `threads` − 1 others, once, before any other work; waits until those have come.
#[wasm_bindgen(js_name = startThreads)]
pub fn start_threads(threads: u32) -> Result<(), Failure> {
    let offer = |place: ThreadBuilder| {
        PLACES.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        OFFERED.notify_one();
        Ok(())
    };
    let pool = ThreadPoolBuilder::new().num_threads(threads as usize).use_current_thread().spawn_handler(offer);
    let failed = |error| format!("{error}. Remedy: Load the model anew, or with one thread.");
    pool.build_global().map_err(|error| Failure::new("ZA_THREADS", failed(error)))
}

/// What a thread of the pool does, all its life.
#[wasm_bindgen(js_name = runThread)]
pub fn run_thread() {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let place = loop {
        match places.pop() {
            Some(place) => break place,
            None => places = OFFERED.wait(places).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(places);
    place.run();
}
