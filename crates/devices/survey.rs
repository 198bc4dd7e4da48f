//! Everything that can be found out about NVIDIA's cards here.

use std::path::PathBuf;

use serde::Serialize;

use crate::driver::{self, Card, Driver, Fault, code};
use crate::error::version as version_of;
use crate::library::{Attempt, look_for};
use crate::{Error, Surroundings};

/// The driver's library.
const DRIVER: &str = "libcuda.so.1";

/// The toolkit's libraries that the engine opens.
const LIBRARIES: [&str; 1] = ["libcublasLt.so.13"];

/// The CUDA that the kernels are built with: older drivers do not read them.
const OLDEST: i32 = 13000;

/// The oldest card that has the kernels' instructions (bf16 products, asynchronous copies).
const OLDEST_CARD: [u32; 2] = [8, 0];

/// Bytes that kernels and workspace take on a card before there is a model.
const ENGINE_MEMORY: u64 = 512 << 20;

/// NVIDIA's driver.
#[derive(Clone, Debug, Serialize)]
pub struct DriverFacts {
    pub path: PathBuf,
    /// The newest CUDA that it can do, `13.0`.
    pub cuda: String,
    /// Version of its part in the kernel, `580.159.04`.
    pub version: Option<String>,
}

/// A library of the toolkit that is there.
#[derive(Clone, Debug, Serialize)]
pub struct LibraryFacts {
    pub name: &'static str,
    pub path: PathBuf,
}

/// What was looked for, where, and what was found.
#[derive(Default)]
pub struct Survey {
    pub driver: Option<DriverFacts>,
    pub libraries: Vec<LibraryFacts>,
    pub cards: Vec<Card>,
    /// In the order in which they were made.
    pub attempts: Vec<Attempt>,
    /// Why no card can be used, whichever it is.
    pub problem: Option<Error>,
    functions: Option<Driver>,
}

impl Survey {
    /// Looks for driver, cards and libraries. Libraries that are found stay open, so that whoever asks the loader for them
    /// by name gets these.
    pub fn of(surroundings: &Surroundings) -> Self {
        let mut survey = Self::default();
        survey.look_for_driver(surroundings);
        survey.look_for_libraries(surroundings);
        survey
    }

    fn look_for_driver(&mut self, surroundings: &Surroundings) {
        if cfg!(not(target_os = "linux")) {
            self.problem = Some(Error::NoDriver { soname: DRIVER });
            return;
        }
        let found = look_for(DRIVER, &surroundings.driver_folders(), &mut self.attempts, |library| {
            let cuda = driver::cuda_version(library)?;
            // Functions that an older driver lacks are not what is wrong with it.
            let functions = (cuda >= OLDEST).then(|| Driver::of(library)).transpose()?;
            Ok((cuda, functions))
        });
        let Some((path, (cuda, functions))) = found else {
            self.problem = Some(Error::NoDriver { soname: DRIVER });
            return;
        };
        let kernel = std::fs::read_to_string(surroundings.at("/proc/driver/nvidia/version")).ok();
        let version = kernel.as_deref().and_then(kernel_version).map(str::to_owned);
        self.driver = Some(DriverFacts { path: path.clone(), cuda: version_of(cuda), version });
        let Some(functions) = functions else {
            self.problem = Some(Error::DriverOld { path, has: cuda, needs: OLDEST });
            return;
        };
        let visible = surroundings.variable("CUDA_VISIBLE_DEVICES").map(|value| value.to_string_lossy().into_owned());
        match functions.cards() {
            Ok(cards) if cards.is_empty() => self.problem = Some(Error::NoCard { visible }),
            Err(Fault { code: code::NO_DEVICE, .. }) => self.problem = Some(Error::NoCard { visible }),
            Err(fault) => {
                let remedy = remedy_of(fault.code);
                self.problem = Some(Error::DriverFails { path, fault: fault.text, remedy });
            }
            Ok(cards) => self.cards = cards,
        }
        self.functions = Some(functions);
    }

    /// Looked for also where there is no driver: `doctor` tells all that is missing at once.
    fn look_for_libraries(&mut self, surroundings: &Surroundings) {
        let folders = surroundings.library_folders();
        for name in LIBRARIES {
            match look_for(name, &folders, &mut self.attempts, |_| Ok(())) {
                Some((path, ())) => self.libraries.push(LibraryFacts { name, path }),
                None => self.problem = self.problem.take().or(Some(Error::Library { soname: name })),
            }
        }
    }

    /// Asks how much memory of a card is free, and whether the card can be used.
    pub fn examine(&mut self, index: usize) -> Result<Card, Error> {
        let count = self.cards.len();
        if let Some(problem) = self.problem.clone().filter(|_| count == 0) {
            return Err(problem);
        }
        let card = self.cards.get_mut(index).ok_or(Error::Index { index, count })?;
        let name = card.name.clone();
        if card.compute_capability < OLDEST_CARD {
            return Err(Error::CardOld { index, name, capability: card.compute_capability });
        }
        let functions = self.functions.as_ref().expect("who lists cards has functions");
        let free = functions.free_memory(index);
        let free = free.map_err(|fault| Error::CardFails { index, name: name.clone(), fault: fault.text })?;
        card.free = Some(free);
        if free < ENGINE_MEMORY {
            return Err(Error::Memory { index, name, free, total: card.memory, needed: ENGINE_MEMORY });
        }
        let card = card.clone();
        self.problem.clone().map_or(Ok(card), Err)
    }
}

/// The third word of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  …`: the first with two dots or more.
fn kernel_version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version)
}

fn remedy_of(code: i32) -> &'static str {
    match code {
        code::SYSTEM_NOT_READY => "Start NVIDIA's fabric manager (nvidia-fabricmanager) and wait until it is ready.",
        code::DRIVER_MISMATCH => {
            "The driver's library and its kernel module differ, mostly after an update: restart the machine, or the container with the new driver."
        }
        _ => {
            "Look at nvidia-smi and at the kernel's log; restarting the machine, or loading the driver's modules again, often helps."
        }
    }
}

#[cfg(test)]
mod test {
    use super::kernel_version;

    #[test]
    fn the_kernel_tells_its_version() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (root)  \nGCC version: gcc 12.2.0\n";
        assert_eq!(kernel_version(open), Some("580.159.04"));
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023\n";
        assert_eq!(kernel_version(closed), Some("535.54.03"));
        assert_eq!(kernel_version("GCC version: gcc 12.2.0"), None);
    }
}
