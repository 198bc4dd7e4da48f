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
    /// Waits for the write before, then starts this one. Without a thread to be had, it is done here and now.
    pub fn start(&self, work: impl FnOnce() + Send + 'static) {
        self.wait();
        let work = Arc::new(Mutex::new(Some(work)));
        let taken = work.clone();
        let take = move || taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let builder = std::thread::Builder::new().name("zephyr-checkpoint".into());
        let thread = builder.spawn(move || take().into_iter().for_each(|work| work()));
        match thread {
            Ok(thread) => *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread),
            Err(_) => {
                let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                work.into_iter().for_each(|work| work());
            }
        }
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
