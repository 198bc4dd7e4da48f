//! A [`Device`] by NVIDIA's driver and cublasLt, both opened at run time. **Not yet run on a GPU.**

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::blas::Blas;
use super::copies::Copies;
use super::launch::{LaunchError, Launcher};
use super::{Device, DeviceError, Fetched, Free, Launch, Part, opened};
use crate::gemm::cuda::Product;

/// The environment variable that, as `hopper`, switches on the kernels of attention for Hopper: they have not been measured yet.
const ATTENTION: &str = "ZEPHYR_ATTENTION";

/// One card and its stream of work, with one for copies beside it.
pub struct Driver {
    stream: Arc<CudaStream>,
    copies: Copies,
    launcher: Mutex<Launcher>,
    blas: Mutex<Blas>,
    name: String,
    hopper: bool,
}

impl fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn failed(what: impl Into<String>, cause: impl fmt::Debug) -> DeviceError {
    DeviceError::Failed { what: what.into(), cause: format!("{cause:?}") }
}

/// The driver's refusal of `what`. Memory runs out in many places: a context, code that is loaded, a kernel's first launch.
fn refused(what: impl Into<String>, DriverError(cause): DriverError) -> DeviceError {
    match cause {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => DeviceError::OutOfMemory { what: what.into(), asked_and_free: None },
        cause => failed(what, cause),
    }
}

impl From<LaunchError> for DeviceError {
    fn from(error: LaunchError) -> Self {
        refused(error.what, error.cause)
    }
}

/// What a call of the driver gave.
pub(super) fn done<T>(what: &str, outcome: Result<T, DriverError>) -> Result<T, DeviceError> {
    outcome.map_err(|error| refused(what, error))
}

impl Driver {
    /// Opens the card with that index and loads the kernels.
    ///
    /// # Errors
    /// [`DeviceError::Library`] where the driver or cublasLt is not there (cudarc itself would panic), and
    /// [`DeviceError::LibraryOld`] where another one is opened than this build needs; what the driver refuses: no such card, a card
    /// older than sm_80.
    pub fn open(index: usize) -> Result<Arc<Self>, DeviceError> {
        // SAFETY: it loads the library, whose initialiser is NVIDIA's.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceError::Library { name: "NVIDIA's driver", cause: "libcuda.so was not found".to_owned() });
        }
        opened::check_driver()?;
        let context = done("opening the card", CudaContext::new(index))?;
        let stream = done("opening a stream", context.new_stream())?;
        let launcher = Launcher::new(stream.clone())?;
        let blas = Blas::new(stream.clone())?;
        let name = done("asking for the card's name", context.name())?;
        let capability = done("asking for the card's generation", context.compute_capability())?;
        // Their instructions are those of 9.0 and of no card after it.
        let hopper = capability == (9, 0) && std::env::var_os(ATTENTION).is_some_and(|wanted| wanted == "hopper");
        let copies = Copies::new(&stream)?;
        Ok(Arc::new(Self { hopper, stream, copies, launcher: Mutex::new(launcher), blas: Mutex::new(blas), name }))
    }

    /// The raw stream, with the context current on this thread.
    fn stream(&self) -> Result<sys::CUstream, DeviceError> {
        done("taking up the card", self.stream.context().bind_to_thread())?;
        Ok(self.stream.cu_stream())
    }

    /// Waits for all work and all copies.
    fn wait(&self) -> Result<(), DeviceError> {
        done("waiting for the card", self.stream.synchronize())?;
        self.copies.wait()
    }
}

impl Device for Driver {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn memory(&self) -> Result<Free, DeviceError> {
        let (free, total) = done("asking for free memory", self.stream.context().mem_get_info())?;
        Ok(Free::of_card(free, total))
    }

    fn allocate(&self, what: &str, bytes: usize, _: &[Part]) -> Result<u64, DeviceError> {
        self.stream()?;
        // SAFETY: `Reserved` frees it.
        match unsafe { result::malloc_sync(bytes.max(1)) } {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let free = self.memory()?.free;
                Err(DeviceError::OutOfMemory { what: what.to_owned(), asked_and_free: Some([bytes, free]) })
            }
            outcome => done(what, outcome),
        }
    }

    fn free(&self, base: u64) {
        // A card that fails here fails in the next call too, which can tell it.
        if self.stream().and_then(|_| self.wait()).is_ok() {
            // SAFETY: of `allocate`, and nothing that is queued uses it.
            let _ = unsafe { result::free_sync(base) };
        }
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.stream()?;
        self.copies.write(to, bytes)
    }

    fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, DeviceError> {
        self.stream()?;
        self.copies.fetch(from, bytes)
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceError> {
        let stream = self.stream()?;
        // SAFETY: the address is that of an arena.
        done("zeros", unsafe { result::memset_d8_async(at, 0, bytes, stream) })
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        let stream = self.stream()?;
        // SAFETY: the addresses are those of an arena.
        done("a copy on the card", unsafe { result::memcpy_dtod_async(to, from, bytes, stream) })
    }

    fn run(&self, launch: &Launch) -> Result<(), DeviceError> {
        // SAFETY: the addresses are those of arenas, which outlive what is queued: `free` waits.
        Ok(unsafe { lock(&self.launcher).run(launch) }?)
    }

    fn multiply(&self, product: &Product) -> Result<(), DeviceError> {
        self.stream()?;
        lock(&self.blas).multiply(product)
    }

    fn takes_hopper_kernels(&self) -> bool {
        self.hopper
    }
}
