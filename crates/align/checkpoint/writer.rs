//! A checkpoint written while the next step's gradients are computed.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// At most one write in flight, on a thread of its own.
///
/// The write reads parameters and moments through `Arc`s. Forward and backward change neither, so it costs no copy; an
/// optimizer step waits for it ([`Self::wait`]), else `Arc::make_mut` would have to copy what is being written.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Writer {
    /// Waits for the write before, then starts this one.
    ///
    /// # Panics
    /// The operating system gives no thread.
    pub fn start(&self, work: impl FnOnce() + Send + 'static) {
        self.wait();
        let thread = std::thread::Builder::new().name("zephyr-checkpoint".into()).spawn(work);
        let thread = thread.expect("a thread for the checkpoint");
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    /// Returns when no write is in flight. How it went, `work` has told by itself.
    pub fn wait(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the write is reported where its result is expected.
            let _ = thread.join();
        }
    }
}
