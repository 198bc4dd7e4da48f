//! What a model on a GPU stands on: memory, launches and matrix products, in the order in which they are asked for. The
//! driver ([`driver`](super::driver)) and the emulation of the tests (crates/emulator) are two of it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{Launch, Part, Pointer, Stored};
use crate::gemm::cuda::Product;

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    pub free: usize,
    pub total: usize,
    /// Of the free ones, what no plan may count on
    pub reserve: usize,
}

impl Free {
    /// The least that is left of a card.
    const LEAST_RESERVE: usize = 512 << 20;

    /// What a card tells. Beside what is asked of it, memory goes to the code of kernels, ours and cublasLt's, which the driver
    /// loads at their first use; to rounding, as every piece is a whole number of 2 MiB; and to the gaps between pieces. How much
    /// that is nobody tells beforehand: 1 % of the card, and 512 MiB at least, stay free.
    pub fn of_card(free: usize, total: usize) -> Self {
        Self { free, total, reserve: (total / 100).max(Self::LEAST_RESERVE) }
    }

    /// What a plan may take.
    pub fn plannable(&self) -> usize {
        self.free.saturating_sub(self.reserve)
    }
}

/// Elements that are on their way between host and device at one time.
pub const PIECE: usize = 1 << 20;

type Wait = Box<dyn FnOnce(&mut [u8]) -> Result<(), DeviceError> + Send>;

/// Bytes on their way to the host, from [`Device::fetch`]. Whoever drops them does not want them any more.
#[must_use]
pub struct Fetched {
    bytes: usize,
    wait: Wait,
}

impl Fetched {
    /// So many bytes, which `wait` waits for and gives.
    pub fn new(bytes: usize, wait: impl FnOnce(&mut [u8]) -> Result<(), DeviceError> + Send + 'static) -> Self {
        Self { bytes, wait: Box::new(wait) }
    }

    /// Waits for these values, and for nothing that was queued after them.
    ///
    /// # Errors
    /// [`DeviceError::Failed`]
    pub fn wait<T: Stored>(self, values: &mut [T]) -> Result<(), DeviceError> {
        assert_eq!(size_of_val(values), self.bytes, "bytes that were fetched");
        // SAFETY: `Stored` are numbers without padding, of which every bit pattern is one.
        (self.wait)(unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), self.bytes) })
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes on their way", self.bytes)
    }
}

/// One GPU with one queue of work, beside which copies to the host are made. Everything returns as soon as it is queued; the
/// host waits in [`Fetched::wait`], and in [`Device::free`]. Any thread may call; what two queue at once comes in either order.
///
/// Addresses are the caller's business, as shapes are everywhere here: they come from an [`Arena`](super::Arena), and the
/// functions that make launches and products check sizes.
pub trait Device: Send + Sync + fmt::Debug {
    /// For messages and logs.
    fn name(&self) -> String;

    /// What is free now.
    ///
    /// # Errors
    /// [`DeviceError::Failed`], as of all methods here: by what the driver finds at once, or found in earlier work.
    fn memory(&self) -> Result<Free, DeviceError>;

    /// One piece of `bytes` bytes, whose `parts` are for the eyes of an emulation. `what` is for messages.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], after which the device goes on as before.
    fn allocate(&self, what: &str, bytes: usize, parts: &[Part]) -> Result<u64, DeviceError>;

    /// Gives a piece back, once all queued work and all copies are done.
    fn free(&self, base: u64);

    /// Copies from the host. The bytes may be changed afterwards. Behind megabytes of other writes it waits until those have gone.
    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies to the host behind all that is queued by now, and beside what is queued later: **until the copy has been waited
    /// for, nothing may be queued that writes to these bytes.** The emulation copies when it is waited for, and fails if they are
    /// other ones by then.
    fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, DeviceError>;

    /// Zeros.
    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceError>;

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError>;

    fn run(&self, launch: &Launch) -> Result<(), DeviceError>;

    fn multiply(&self, product: &Product) -> Result<(), DeviceError>;

    /// Whether attention shall take the kernels for Hopper, where there are such.
    fn takes_hopper_kernels(&self) -> bool {
        false
    }
}

impl dyn Device + '_ {
    /// Copies from the host.
    pub fn upload<T: Stored>(&self, values: &[T], to: Pointer<T>) -> Result<(), DeviceError> {
        // SAFETY: `Stored` are numbers without padding.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        self.write(to.address, bytes)
    }

    /// Waits for them, then copies to the host.
    pub fn download<T: Stored>(&self, from: Pointer<T>, values: &mut [T]) -> Result<(), DeviceError> {
        self.download_with(from, values.len(), |range, fetched| fetched.wait(&mut values[range]))
    }

    /// Copies `len` elements to the host by the [`PIECE`]: `take` waits for one while the next is on its way.
    pub fn download_with<T: Stored>(
        &self,
        from: Pointer<T>,
        len: usize,
        mut take: impl FnMut(Range<usize>, Fetched) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let pieces = (0..len).step_by(PIECE).map(|start| start..len.min(start + PIECE));
        let mut coming = None;
        for range in pieces.map(Some).chain([None]) {
            let fetch = |range: Range<usize>| {
                let fetched = self.fetch(from.offset(range.start).address, range.len() * size_of::<T>());
                fetched.map(|fetched| (range, fetched))
            };
            let next = range.map(fetch).transpose()?;
            if let Some((range, fetched)) = std::mem::replace(&mut coming, next) {
                take(range, fetched)?;
            }
        }
        Ok(())
    }

    /// Zeros `len` elements.
    pub fn zero<T: Stored>(&self, at: Pointer<T>, len: usize) -> Result<(), DeviceError> {
        self.clear(at.address, len * size_of::<T>())
    }
}

/// Opens the card with that index. **Not yet run on a GPU.**
///
/// # Errors
/// [`DeviceError::NoBuild`] without the feature `cuda`; a library that is missing; what the driver refuses.
pub fn open(index: usize) -> Result<Arc<dyn Device>, DeviceError> {
    #[cfg(feature = "cuda")]
    return Ok(super::driver::Driver::open(index)?);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = index;
        Err(DeviceError::NoBuild)
    }
}

/// What a device refused or failed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// Nothing was allocated, and all that was there still is. Bytes asked for and bytes free, where they are known: what a
    /// library takes for itself it does not tell.
    OutOfMemory { what: String, asked_and_free: Option<[usize; 2]> },
    /// This build has no driver's face (feature `cuda`).
    NoBuild,
    /// A library of CUDA is not there.
    Library { name: &'static str, cause: String },
    /// A library of CUDA is there, and of no use: it is older than this build, or a stub. With the file that was opened.
    LibraryOld { name: &'static str, file: String, found: String, needed: String },
    /// The driver's answer to `what`.
    Failed { what: String, cause: String },
}

impl DeviceError {
    /// The stable code, `ZA_…`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OutOfMemory { .. } => "ZA_OUT_OF_MEMORY",
            Self::NoBuild => "ZA_DEVICE_NO_BUILD",
            Self::Library { .. } | Self::LibraryOld { .. } => "ZA_DEVICE_LIBRARY",
            Self::Failed { .. } => "ZA_DEVICE_FAILS",
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { what, asked_and_free } => {
                match asked_and_free {
                    Some([bytes, free]) => {
                        write!(formatter, "{what} needs {bytes} bytes of device memory, {free} are free")?
                    }
                    None => write!(formatter, "{what} found too little device memory")?,
                }
                formatter.write_str(
                    ". Remedy: Take a smaller batch or maxLength, recompute \"layer\", LoRA, or device \"cpu\", or end what else uses the card.",
                )
            }
            Self::NoBuild => formatter.write_str(
                "this build has no CUDA. Remedy: Build it with `npm run build:cuda`, or take device \"cpu\".",
            ),
            Self::Library { name, cause } => write!(
                formatter,
                "{name} cannot be used: {cause}. Remedy: Install the CUDA 13 libraries, or name their folder in LD_LIBRARY_PATH."
            ),
            Self::LibraryOld { name, file, found, needed } => write!(
                formatter,
                "{name} was opened from {file}, which is {found}, and this build needs {needed}. Remedy: Take the folder of that \
                 file off LD_LIBRARY_PATH; where no newer one is installed, install driver 580 or newer and the CUDA 13 libraries."
            ),
            Self::Failed { what, cause } => write!(
                formatter,
                "{what} failed on the device: {cause}. Remedy: Start the process again; if it fails again, run zephyr-align \
                 doctor and report it."
            ),
        }
    }
}

impl std::error::Error for DeviceError {}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_shortage_is_told_with_its_numbers_where_they_are_known() {
        let of = |asked_and_free| DeviceError::OutOfMemory { what: "Loading kernels".to_owned(), asked_and_free };
        assert_eq!((of(None).code(), of(Some([2, 1])).code()), ("ZA_OUT_OF_MEMORY", "ZA_OUT_OF_MEMORY"));
        assert!(
            of(Some([2, 1]))
                .to_string()
                .starts_with("Loading kernels needs 2 bytes of device memory, 1 are free. Remedy: ")
        );
        assert!(of(None).to_string().starts_with("Loading kernels found too little device memory. Remedy: "));
    }
}
