//! How work is divided over the current rayon pool.

mod team;

use rayon::prelude::*;

pub use team::{leads, team};

/// Below this many touched elements a second thread costs more than it brings (a wake-up is about 5 µs).
const SERIAL_ELEMENTS: usize = 16 * 1024;

/// Rows per task when `rows` rows of `width` elements are divided evenly over the pool.
pub(crate) fn rows_per_task(rows: usize, width: usize) -> usize {
    let tasks = if rows.saturating_mul(width) < SERIAL_ELEMENTS { 1 } else { rayon::current_num_threads() };
    rows.div_ceil(tasks).max(1)
}

/// Runs `body` on every task; a lone task runs on the calling thread.
///
/// Which thread takes which task is open, so tasks must not share sums.
pub fn run<T: Send>(tasks: impl Iterator<Item = T>, body: impl Fn(T) + Sync + Send) {
    let mut tasks: Vec<T> = tasks.collect();
    if tasks.len() <= 1 || rayon::current_num_threads() == 1 {
        for task in tasks.drain(..) {
            body(task);
        }
    } else if tasks.len() > team::MOST || !lead(&mut tasks, &body) {
        tasks.into_par_iter().with_max_len(1).for_each(body);
    }
}

/// Lets the team that this thread leads do all tasks; `false`, and the tasks stay, if it leads none.
fn lead<T: Send>(tasks: &mut Vec<T>, body: &(impl Fn(T) + Sync)) -> bool {
    struct Tasks<T>(*const T);
    // SAFETY: every task goes to one thread.
    unsafe impl<T: Send> Sync for Tasks<T> {}
    impl<T> Tasks<T> {
        /// # Safety
        /// Every index once, below the number of tasks.
        unsafe fn take(&self, index: usize) -> T {
            // SAFETY: the caller's.
            unsafe { self.0.add(index).read() }
        }
    }
    let count = tasks.len();
    let list = Tasks(tasks.as_ptr());
    // Emptied before: a task that panics must not be dropped again, and one that never ran is leaked with it.
    let led = leads();
    if led {
        // SAFETY: no element is lost but to `take`; the memory stays where it is.
        unsafe { tasks.set_len(0) };
        // SAFETY: the team gives out every number below `count` once.
        team::run(count, &|index| body(unsafe { list.take(index) }));
    }
    led
}

/// A buffer that several tasks write, each its own elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    data: *mut f32,
    len: usize,
}

// SAFETY: a `Shared` only hands out memory through `slice_mut`, whose contract makes concurrent uses disjoint.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(data: &mut [f32]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len() }
    }

    /// The elements `[start, start + len)`.
    ///
    /// # Safety
    /// The buffer given to `new` must outlive the use, and no two live slices may overlap.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice_mut(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start + len <= self.len, "elements {start}..{} of a buffer of {}", start + len, self.len);
        // SAFETY: inside the buffer by the line above, alive and unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}
