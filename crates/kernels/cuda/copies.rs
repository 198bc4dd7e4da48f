//! Copies between host and card through pinned memory, which alone the card copies while the host goes on: from other memory the
//! driver may first wait for all that the stream has. **Not yet run on a GPU.**
//!
//! Up: a write must come behind what is queued and before what follows, so it is queued with the work. It leaves from one of two
//! buffers; one is filled while the card copies from the other. Down: a copy waits for what is queued when it is asked for and
//! goes on beside what follows, so it is on a stream of its own.

use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};

use super::driver::{done, lock};
use super::{DeviceError, Fetched};

/// Bytes of each of the two buffers that writes leave from.
const STAGE: usize = 4 << 20;
/// What begins in a buffer begins at a multiple of this.
const ALIGNMENT: usize = 256;

/// Memory of the host that the card copies from and to.
struct Pinned {
    context: Arc<CudaContext>,
    address: *mut u8,
    bytes: usize,
    /// The last copy from it, or to it.
    copied: CudaEvent,
}

// SAFETY: the memory belongs to no thread; who writes to it has it alone, by a lock or as a `Fetched`.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Pinned {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, DriverError> {
        let copied = context.new_event(None)?;
        // SAFETY: freed by `drop`.
        let address = unsafe { result::malloc_host(bytes, 0) }?.cast();
        Ok(Self { context: context.clone(), address, bytes, copied })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A card that fails here fails in the next call too, which can tell it.
        let waited = self.context.bind_to_thread().and_then(|()| self.copied.synchronize());
        // SAFETY: of `new`; the last copy is done, or the card does nothing any more.
        let _ = waited.and_then(|()| unsafe { result::free_host(self.address.cast()) });
    }
}

/// Where writes leave from.
struct Stages {
    stages: [Pinned; 2],
    /// The one that is being filled, and how much of it is taken.
    filled: usize,
    taken: usize,
}

/// The copies of one card.
pub(super) struct Copies {
    /// Of the work
    stream: Arc<CudaStream>,
    /// Of the copies to the host
    down: Arc<CudaStream>,
    up: Mutex<Stages>,
    /// The end of the work that a copy to the host waits for.
    queued: Mutex<CudaEvent>,
    /// Where such copies arrive; free is what nobody else has.
    landings: Mutex<Vec<Arc<Pinned>>>,
}

impl Copies {
    /// Beside the work of `stream`.
    pub fn new(stream: &Arc<CudaStream>) -> Result<Self, DeviceError> {
        let context = stream.context();
        let stage = || done("memory of the host for copies", Pinned::new(context, STAGE));
        Ok(Self {
            down: done("opening a stream for copies", context.new_stream())?,
            up: Mutex::new(Stages { stages: [stage()?, stage()?], filled: 0, taken: 0 }),
            queued: Mutex::new(done("an event", context.new_event(None))?),
            landings: Mutex::default(),
            stream: stream.clone(),
        })
    }

    /// Queues a copy to the card, behind all work so far and before all that follows. The context is current on this thread.
    pub fn write(&self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let mut up = lock(&self.up);
        let mut to = to;
        for bytes in bytes.chunks(STAGE) {
            if up.taken + bytes.len() > STAGE {
                done("a copy to the card", up.turn())?;
            }
            let Stages { stages, filled, taken } = &mut *up;
            // SAFETY: no copy from this stretch is under way, since `turn` waited for all that left from the buffer, and the bytes
            // stay until it does so again; the address is that of an arena.
            let copied = unsafe {
                let stage = std::slice::from_raw_parts_mut(stages[*filled].address.add(*taken), bytes.len());
                stage.copy_from_slice(bytes);
                result::memcpy_htod_async(to, stage, self.stream.cu_stream())
            };
            *taken = (*taken + bytes.len()).next_multiple_of(ALIGNMENT);
            done("a copy to the card", copied.and_then(|()| stages[*filled].copied.record(&self.stream)))?;
            to += bytes.len() as u64;
        }
        Ok(())
    }

    /// As [`Device::fetch`](super::Device::fetch). The context is current on this thread.
    pub fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, DeviceError> {
        let landing = self.landing(bytes)?;
        let queue = || {
            let queued = lock(&self.queued);
            queued.record(&self.stream)?;
            // What is recorded by now: the event may be taken for the next copy at once.
            self.down.wait(&queued)?;
            // SAFETY: the address is that of an arena. The landing is nobody else's; where somebody let a copy to it go by, that
            // one comes before this one. It is looked at when this one is done.
            unsafe {
                let landing = std::slice::from_raw_parts_mut(landing.address, bytes);
                result::memcpy_dtoh_async(landing, from, self.down.cu_stream())?;
            }
            landing.copied.record(&self.down)
        };
        done("a copy from the card", queue())?;
        Ok(Fetched::new(bytes, move |to| {
            done("waiting for a copy from the card", landing.copied.synchronize())?;
            // SAFETY: the landing is as long, and the copy to it is done.
            to.copy_from_slice(unsafe { std::slice::from_raw_parts(landing.address, to.len()) });
            Ok(())
        }))
    }

    /// The smallest free one with so much room; a new one where there is none.
    fn landing(&self, bytes: usize) -> Result<Arc<Pinned>, DeviceError> {
        let mut landings = lock(&self.landings);
        let free = landings.iter().filter(|landing| landing.bytes >= bytes && Arc::strong_count(landing) == 1);
        if let Some(landing) = free.min_by_key(|landing| landing.bytes) {
            return Ok(landing.clone());
        }
        let room = bytes.next_power_of_two().max(ALIGNMENT);
        let made = Pinned::new(self.stream.context(), room);
        landings.push(Arc::new(done("memory of the host for copies", made)?));
        Ok(landings[landings.len() - 1].clone())
    }

    /// Waits for the copies to the host.
    pub fn wait(&self) -> Result<(), DeviceError> {
        done("waiting for the card", self.down.synchronize())
    }
}

impl Stages {
    /// Goes on with the other buffer, once all copies from it are done.
    fn turn(&mut self) -> Result<(), DriverError> {
        (self.filled, self.taken) = (1 - self.filled, 0);
        self.stages[self.filled].copied.synchronize()
    }
}
