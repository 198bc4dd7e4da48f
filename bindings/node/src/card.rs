//! The cards that sessions compute on: one device for each, which all sessions on it share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use zephyr_devices::{Build, Choice, Refusal, Surroundings, Wanted};
use zephyr_kernels::cuda::Device;

use crate::failure::Failure;

/// What this addon can do with a card.
pub const BUILD: Build = if cfg!(feature = "cuda") { Build::Cuda } else { Build::WithoutCuda };

/// Those that a session holds. Memory and context go back to the driver with the last one.
static OPEN: Mutex<BTreeMap<usize, Weak<dyn Device>>> = Mutex::new(BTreeMap::new());

/// The device for a wish; looks for nothing but what this addon could use.
pub fn choose(wanted: Wanted) -> Result<Choice, Refusal> {
    #[cfg(feature = "emulated")]
    if let Wanted::Cuda(None | Some(0)) = wanted {
        return Ok(Choice::Card(emulated::card()));
    }
    zephyr_devices::choose(wanted, BUILD, &Surroundings::of_process())
}

/// Opens the card with that index, unless it is open: for jobs of the engine, as it may take seconds. Two never open one at once.
pub fn open(index: usize) -> Result<Arc<dyn Device>, Failure> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&index).and_then(Weak::upgrade) {
        return Ok(device);
    }
    let device = opened(index)?;
    open.insert(index, Arc::downgrade(&device));
    Ok(device)
}

#[cfg(not(feature = "emulated"))]
fn opened(index: usize) -> Result<Arc<dyn Device>, Failure> {
    // It opens the driver's library where that was found, for those who ask by its name.
    choose(Wanted::Cuda(Some(index)))?;
    Ok(zephyr_kernels::cuda::open(index)?)
}

#[cfg(feature = "emulated")]
fn opened(_: usize) -> Result<Arc<dyn Device>, Failure> {
    emulated::open()
}

/// The feature `emulated`: the emulation of the kernels' tests in a card's place, so that all but the driver is tested where no
/// card is. Never shipped.
#[cfg(feature = "emulated")]
mod emulated {
    use std::sync::Arc;

    use zephyr_devices::Card;
    use zephyr_emulator::{Emulated, Watch};
    use zephyr_kernels::cuda::Device;

    use crate::failure::Failure;

    /// Bytes of its memory; a test may make it small.
    fn memory() -> usize {
        let told = std::env::var("ZEPHYR_EMULATED_MEMORY").ok().and_then(|bytes| bytes.parse().ok());
        told.unwrap_or(1 << 28)
    }

    pub fn card() -> Card {
        Card {
            index: 0,
            name: "emulation".into(),
            compute_capability: [8, 0],
            multiprocessors: 1,
            memory: memory() as u64,
            free: None,
            uuid: "GPU-emulation".into(),
            bus: "none".into(),
        }
    }

    pub fn open() -> Result<Arc<dyn Device>, Failure> {
        match Emulated::with_memory(Watch::Off, 0, memory()) {
            Some(device) => Ok(device),
            None => Err(Failure::new("ZA_DEVICE_FAILS", "the emulation has no C++ compiler. Remedy: install g++")),
        }
    }
}
