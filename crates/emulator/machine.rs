//! The emulated GPU as its C++ shows it: memory by name, launches, and what a launch did.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use zephyr_kernels::cuda::{Argument, Launch, Part, Pointer, Stored};

use crate::compiler::Library;

/// Dynamic shared memory that a block may have on every card from sm_80 on (sm_86 and sm_89 have the least).
const SHARED_LIMIT: u32 = 99 * 1024;
/// The same on Hopper, where alone kernels that take tensor maps run.
const HOPPER_SHARED_LIMIT: u32 = 227 * 1024;

/// What a launch did, counted by the emulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Statistics {
    /// Bytes of global memory
    pub global_read: u64,
    pub global_written: u64,
    /// The part of both that went by accesses of 16 bytes
    pub global_wide: u64,
    /// Barriers that were passed
    pub barriers: u64,
    /// mma.sync instructions, and warps' parts of wgmma
    pub matrix_products: u64,
    /// Rows that ldmatrix had to wait for
    pub bank_conflicts: u64,
}

type Open = unsafe extern "C" fn() -> *mut c_void;
type Close = unsafe extern "C" fn(*mut c_void);
type Allocate = unsafe extern "C" fn(*mut c_void, *const c_char, u64, u32) -> u64;
type Reserve = unsafe extern "C" fn(*mut c_void, u64) -> u64;
type Name = unsafe extern "C" fn(*mut c_void, *const c_char, u64, u64, u32);
type Write = unsafe extern "C" fn(*mut c_void, u64, *const c_void, u64) -> bool;
type Read = unsafe extern "C" fn(*mut c_void, u64, *mut c_void, u64, *mut u64) -> bool;
type Run = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    *const c_char,
    *const u32,
    *const u32,
    u64,
    *const u64,
    u32,
    *mut Statistics,
) -> *const c_char;

/// Device memory and what runs on it.
pub(crate) struct Machine {
    library: Arc<Library>,
    handle: *mut c_void,
}

// SAFETY: the machine belongs to no thread; only the running of a kernel knows the thread that it is on.
unsafe impl Send for Machine {}

fn text(text: &str) -> CString {
    CString::new(text).expect("a name")
}

impl Machine {
    pub fn new(library: &Arc<Library>) -> Self {
        // SAFETY: the type is that of device.cpp.
        let handle = unsafe { library.function::<Open>("emulation_open")() };
        Self { library: library.clone(), handle }
    }

    /// A buffer that nothing has written.
    pub fn allocate(&self, name: &str, bytes: usize, element: usize) -> u64 {
        // SAFETY: the type is that of device.cpp, the machine is open.
        unsafe {
            let allocate = self.library.function::<Allocate>("emulation_allocate");
            allocate(self.handle, text(name).as_ptr(), bytes as u64, element as u32)
        }
    }

    /// Memory of which only the parts may be touched. None when there is no more.
    pub fn reserve(&self, bytes: usize, parts: &[Part]) -> Option<u64> {
        // SAFETY: the types are those of device.cpp, the machine is open, the parts lie in the piece.
        unsafe {
            let reserve = self.library.function::<Reserve>("emulation_reserve");
            let name = self.library.function::<Name>("emulation_name");
            let base = reserve(self.handle, bytes as u64);
            if base == 0 {
                return None;
            }
            for part in parts {
                let element = part.element as u32;
                name(self.handle, text(&part.name).as_ptr(), base + part.offset, part.bytes as u64, element);
            }
            Some(base)
        }
    }

    /// False where the bytes do not lie in one buffer.
    #[must_use]
    pub fn write(&self, to: u64, bytes: &[u8]) -> bool {
        // SAFETY: the type is that of device.cpp, the machine is open, the slice is as long as told.
        unsafe {
            let write = self.library.function::<Write>("emulation_write");
            write(self.handle, to, bytes.as_ptr().cast(), bytes.len() as u64)
        }
    }

    /// How many of the elements were never written; None where the bytes do not lie in one buffer.
    #[must_use]
    pub fn read(&self, from: u64, bytes: &mut [u8]) -> Option<u64> {
        let mut unwritten = 0;
        // SAFETY: the type is that of device.cpp, the machine is open, the slice is as long as told.
        let read = unsafe {
            let read = self.library.function::<Read>("emulation_read");
            read(self.handle, from, bytes.as_mut_ptr().cast(), bytes.len() as u64, &mut unwritten)
        };
        read.then_some(unwritten)
    }

    /// Runs a kernel; an error tells what it did wrong.
    pub fn run(&self, launch: &Launch, schedule: u32) -> (Result<(), String>, Statistics) {
        let mut statistics = Statistics::default();
        let hopper = launch.arguments.iter().any(|argument| argument.map.is_some());
        if launch.shared > if hopper { HOPPER_SHARED_LIMIT } else { SHARED_LIMIT } {
            return (Err(format!("{} wants {} bytes of shared memory", launch.kernel, launch.shared)), statistics);
        }
        let letters: String = launch.arguments.iter().map(|argument| argument.letter).collect();
        // What needs more than a slot is where the slot points.
        let slot =
            |argument: &Argument| argument.map.as_ref().map_or(argument.slot, |map| std::ptr::from_ref(map) as u64);
        let slots: Vec<u64> = launch.arguments.iter().map(slot).collect();
        let (name, letters) = (text(launch.kernel), text(&letters));
        // SAFETY: the type is that of device.cpp, the machine is open, the message is copied at once.
        let fault = unsafe {
            let run = self.library.function::<Run>("emulation_launch");
            let message = run(
                self.handle,
                name.as_ptr(),
                letters.as_ptr(),
                launch.grid.as_ptr(),
                [launch.block, 1, 1].as_ptr(),
                u64::from(launch.shared),
                slots.as_ptr(),
                schedule,
                &mut statistics,
            );
            (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
        };
        (fault.map_or(Ok(()), Err), statistics)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: the type is that of device.cpp; nobody uses the machine any more.
        unsafe { self.library.function::<Close>("emulation_close")(self.handle) };
    }
}

/// An emulated GPU for an op's proof.
pub struct Device {
    machine: Machine,
    schedule: u32,
    statistics: Cell<Statistics>,
    digest: Cell<u64>,
}

impl Device {
    /// `schedule` 0 runs threads and blocks in their order, any other number in an order of its own.
    pub fn new(library: &Arc<Library>, schedule: u32) -> Self {
        Self { machine: Machine::new(library), schedule, statistics: Cell::default(), digest: Cell::default() }
    }

    /// Memory that nothing has written; `name` is for messages.
    pub fn empty<T: Stored>(&self, name: &str, len: usize) -> Pointer<T> {
        Pointer::new(self.machine.allocate(name, size_of::<T>() * len, size_of::<T>()))
    }

    /// A copy of `values`.
    pub fn upload<T: Stored>(&self, name: &str, values: &[T]) -> Pointer<T> {
        let pointer = self.empty(name, values.len());
        assert!(self.machine.write(pointer.address, bytes_of(values)), "{name} fits its own memory");
        pointer
    }

    /// What lies at `pointer`; an error if a part of it was never written.
    pub fn download<T: Stored + Default>(&self, name: &str, pointer: Pointer<T>, len: usize) -> Result<Vec<T>, String> {
        let mut values = vec![T::default(); len];
        let unwritten = self.machine.read(pointer.address, bytes_of_mut(&mut values));
        match unwritten {
            Some(0) => {}
            Some(unwritten) => return Err(format!("{unwritten} of {len} elements of {name} were never written")),
            None => panic!("{name} is not in device memory"),
        }
        let mut hash = DefaultHasher::new();
        self.digest.get().hash(&mut hash);
        bytes_of(&values).hash(&mut hash);
        self.digest.set(hash.finish());
        Ok(values)
    }

    /// Runs a kernel; an error tells what it did wrong.
    pub fn run(&self, launch: &Launch) -> Result<(), String> {
        let (outcome, statistics) = self.machine.run(launch, self.schedule);
        self.statistics.set(statistics);
        outcome
    }

    /// Of the last launch.
    pub fn statistics(&self) -> Statistics {
        self.statistics.get()
    }

    /// Of all that was downloaded.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.get()
    }
}

fn bytes_of<T: Stored>(values: &[T]) -> &[u8] {
    // SAFETY: `Stored` are numbers without padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Stored>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: `Stored` are numbers without padding, of which every bit pattern is one.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
