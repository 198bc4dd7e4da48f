//! The proofs on a real card (feature `card`, bench/gpu): what the emulator gives them, given by the driver.
//!
//! A card tells less than the emulation. Memory begins as NaN, a margin around each allocation must stay as it was, and a proof
//! that is run twice must give the same bits; reads out of bounds and races are the emulation's to find.

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, result};
use zephyr_devices::first_card;
// What a card counts none of, and what is put into no compiled source: the proofs name both.
pub use zephyr_emulator::{Mutation, Statistics};
use zephyr_kernels::cuda::launch::Launcher;
use zephyr_kernels::cuda::{self, Launch, Pointer, Stored};

/// Bytes before and behind each allocation.
const MARGIN: usize = 256;
/// What they hold.
const UNTOUCHED: u8 = 0xa5;
/// A NaN of every type.
const UNWRITTEN: u8 = 0xff;

/// The first card that can be used, with all kernels loaded; one for all proofs, which take turns.
struct Card {
    stream: Arc<CudaStream>,
    launcher: Mutex<Launcher>,
}

static CARD: LazyLock<Card> = LazyLock::new(|| {
    let card = first_card().unwrap_or_else(|refusal| panic!("{refusal}"));
    let context = CudaContext::new(card.index).expect("the card can be opened");
    let stream = context.default_stream();
    let launcher = Launcher::new(stream.clone()).unwrap_or_else(|error| panic!("{error}"));
    Card { stream, launcher: Mutex::new(launcher) }
});

struct Allocation {
    name: String,
    /// Of the margin before it.
    base: u64,
    bytes: usize,
}

/// Memory of one run of a proof.
pub struct Device {
    allocations: RefCell<Vec<Allocation>>,
    digest: Cell<u64>,
}

impl Device {
    fn new() -> Self {
        CARD.stream.context().bind_to_thread().expect("the card's context");
        Self { allocations: RefCell::default(), digest: Cell::default() }
    }

    /// Memory that nothing has written; `name` is for messages.
    pub fn empty<T: Stored>(&self, name: &str, len: usize) -> Pointer<T> {
        let bytes = len * size_of::<T>();
        let mut content = vec![UNTOUCHED; bytes + 2 * MARGIN];
        content[MARGIN..MARGIN + bytes].fill(UNWRITTEN);
        // SAFETY: the memory is freed when the device is dropped, and as long as the content.
        let base = unsafe {
            let base = result::malloc_sync(content.len()).expect("memory on the card");
            result::memcpy_htod_sync(base, &content).expect("the card's memory can be written");
            base
        };
        self.allocations.borrow_mut().push(Allocation { name: name.to_owned(), base, bytes });
        Pointer::new(base + MARGIN as u64)
    }

    /// A copy of `values`.
    pub fn upload<T: Stored>(&self, name: &str, values: &[T]) -> Pointer<T> {
        let pointer = self.empty(name, values.len());
        // SAFETY: just allocated, as long as the values.
        unsafe { result::memcpy_htod_sync(pointer.address, values) }.expect("the card's memory can be written");
        pointer
    }

    /// What lies at `pointer`, when all that was launched is done.
    pub fn download<T: Stored + Default>(&self, name: &str, pointer: Pointer<T>, len: usize) -> Result<Vec<T>, String> {
        CARD.stream.synchronize().map_err(|error| format!("before {name}: {error:?}"))?;
        let mut values = vec![T::default(); len];
        // SAFETY: what a proof downloads it has allocated.
        unsafe { result::memcpy_dtoh_sync(&mut values, pointer.address) }
            .map_err(|error| format!("{name}: {error:?}"))?;
        let mut hash = DefaultHasher::new();
        self.digest.get().hash(&mut hash);
        // SAFETY: numbers without padding.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(&values[..])) }.hash(&mut hash);
        self.digest.set(hash.finish());
        Ok(values)
    }

    /// Runs a kernel to its end; an error is the driver's.
    pub fn run(&self, launch: &Launch) -> Result<(), String> {
        let mut launcher = CARD.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the pointers are of this device's allocations, of the sizes that the launch was made for.
        unsafe { launcher.run(launch) }.map_err(|error| error.to_string())?;
        CARD.stream.synchronize().map_err(|error| format!("{}: {error:?}", launch.kernel))
    }

    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// Nothing was written around what was allocated.
    fn margins(&self) -> Result<(), String> {
        for Allocation { name, base, bytes } in self.allocations.borrow().iter() {
            let mut content = vec![0u8; bytes + 2 * MARGIN];
            // SAFETY: the whole allocation.
            unsafe { result::memcpy_dtoh_sync(&mut content, *base) }.map_err(|error| format!("{name}: {error:?}"))?;
            let [before, behind] = [&content[..MARGIN], &content[MARGIN + bytes..]];
            if before.iter().chain(behind).any(|&byte| byte != UNTOUCHED) {
                return Err(format!("something was written outside of {name}"));
            }
        }
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for Allocation { base, .. } in self.allocations.get_mut() {
            // SAFETY: allocated here; all launches are done. A card that failed frees everything with its context.
            let _ = unsafe { result::free_sync(*base) };
        }
    }
}

/// The card as a model sees it, with its matrix products.
pub fn whole() -> Option<Arc<dyn cuda::Device>> {
    static OPEN: LazyLock<Arc<dyn cuda::Device>> = LazyLock::new(|| {
        let card = first_card().unwrap_or_else(|refusal| panic!("{refusal}"));
        cuda::open(card.index).unwrap_or_else(|error| panic!("{error}"))
    });
    Some(OPEN.clone())
}

/// What is to be shown of the kernels of a source.
pub type Proof<'a> = &'a dyn Fn(&Device) -> Result<(), String>;

/// `proof` holds for the kernels of `source`, twice with the same bits.
pub fn prove(source: &str, proof: Proof) {
    let capability = CARD.stream.context().compute_capability().expect("the card's generation");
    if source.contains("hopper_") && capability != (9, 0) {
        eprintln!("SKIPPED: {source} is for cards of compute capability 9.0, and this one has {capability:?}");
        return;
    }
    let mut digests = Vec::new();
    for _ in 0..2 {
        let device = Device::new();
        proof(&device).and_then(|()| device.margins()).unwrap_or_else(|fault| panic!("{source}: {fault}"));
        digests.push(device.digest.get());
    }
    assert_eq!(digests[0], digests[1], "{source}: the second run gives other bits");
}

pub fn catches(_: &str, _: Proof, _: &[Mutation]) {
    panic!("mistakes are put into sources, and a card has compiled ones: take the emulation");
}
