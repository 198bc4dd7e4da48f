//! Why a device cannot be used: one enum, one stable code a variant.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::Attempt;

/// What stands between a wish and a card; the message is the problem alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{given:?} is no device")]
    Unknown { given: String },

    #[error("this build of zephyr-align has no CUDA")]
    NoBuild,

    #[error("NVIDIA's driver ({soname}) was not found")]
    NoDriver { soname: &'static str },

    #[error("NVIDIA's driver {} can do CUDA {}, and CUDA {} is needed", path.display(), version(*has), version(*needs))]
    DriverOld { path: PathBuf, has: i32, needs: i32 },

    #[error("NVIDIA's driver {} does not work: {fault}", path.display())]
    DriverFails { path: PathBuf, fault: String, remedy: &'static str },

    #[error("NVIDIA's driver shows no card{}", hidden(visible.as_deref()))]
    NoCard { visible: Option<String> },

    #[error("the library {soname} was not found, or cannot be used")]
    Library { soname: &'static str },

    #[error("there is no card {index}: the driver shows {}", cards(*count))]
    Index { index: usize, count: usize },

    #[error("card {index} ({name}) is sm_{}{}, and the kernels need sm_80 (Ampere) or newer", capability[0], capability[1])]
    CardOld { index: usize, name: String, capability: [u32; 2] },

    #[error("card {index} ({name}) has {} of {} free, and the engine alone needs {}", gib(*free), gib(*total), gib(*needed))]
    Memory { index: usize, name: String, free: u64, total: u64, needed: u64 },

    #[error("card {index} ({name}) cannot be opened: {fault}")]
    CardFails { index: usize, name: String, fault: String },
}

impl Error {
    /// A stable name for programs; the same one that the TypeScript errors and the docs use.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unknown { .. } => "ZA_DEVICE_UNKNOWN",
            Error::NoBuild => "ZA_DEVICE_NO_BUILD",
            Error::NoDriver { .. } => "ZA_DEVICE_NO_DRIVER",
            Error::DriverOld { .. } => "ZA_DEVICE_DRIVER_OLD",
            Error::DriverFails { .. } | Error::CardFails { .. } => "ZA_DEVICE_FAILS",
            Error::NoCard { .. } => "ZA_DEVICE_NO_CARD",
            Error::Library { .. } => "ZA_DEVICE_LIBRARY",
            Error::Index { .. } => "ZA_DEVICE_INDEX",
            Error::CardOld { .. } => "ZA_DEVICE_CARD_OLD",
            Error::Memory { .. } => "ZA_DEVICE_MEMORY",
        }
    }

    /// What the user can do.
    pub fn remedy(&self) -> String {
        match self {
            Error::Unknown { .. } => "Take auto, cpu, cuda, or cuda:1 for the second card.".into(),
            Error::NoBuild => {
                "Take device \"cpu\", or build the addon with CUDA: npm run build:cuda in a clone of the repository.".into()
            }
            Error::NoDriver { soname } => {
                format!("Install NVIDIA's driver, or put the folder of {soname} into LD_LIBRARY_PATH; in a container, start it with the GPU (--gpus all).")
            }
            Error::DriverOld { .. } => "Install driver 580 or newer (CUDA 13), or take device \"cpu\".".into(),
            Error::DriverFails { remedy, .. } => (*remedy).into(),
            Error::NoCard { visible: Some(_) } => "Name a card of this machine in CUDA_VISIBLE_DEVICES, or unset it.".into(),
            Error::NoCard { visible: None } => "Check that nvidia-smi lists a card; in a container, start it with the GPU (--gpus all).".into(),
            Error::Library { .. } => {
                "Install CUDA 13 (its libraries are enough: pip install nvidia-cublas), or set CUDA_HOME or LD_LIBRARY_PATH to where it is.".into()
            }
            Error::Index { count: 1, .. } => "Take cuda or cuda:0.".into(),
            Error::Index { count, .. } => format!("Take one of cuda:0 to cuda:{}.", count.saturating_sub(1)),
            Error::CardOld { .. } => "Take a newer card, or device \"cpu\".".into(),
            Error::Memory { .. } => "End what else uses the card (nvidia-smi lists it), or take another one.".into(),
            Error::CardFails { .. } => {
                "Another program may have the card for itself, or it is faulty: look at nvidia-smi and at the kernel's log.".into()
            }
        }
    }
}

/// An error with every place that was looked at on the way to it.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub error: Error,
    pub attempts: Vec<Attempt>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}\nRemedy: {}", self.error, list(&self.attempts), self.error.remedy())
    }
}

impl std::error::Error for Refusal {}

/// What became of each place, by library: a line for what lies there and is of no use or is in use, and one for all the
/// folders that have nothing.
fn list(attempts: &[Attempt]) -> String {
    let mut text = String::new();
    let mut say = |line: fmt::Arguments| writeln!(text, "  {line}").expect("a String takes everything");
    for group in attempts.chunk_by(|a, b| a.library == b.library) {
        for Attempt { path, problem, .. } in group.iter().filter(|attempt| !attempt.is_missing()) {
            say(format_args!("{}: {}", path.display(), problem.as_deref().unwrap_or("taken")));
        }
        let empty = group.iter().filter(|attempt| attempt.is_missing()).map(|attempt| match attempt.path.parent() {
            Some(folder) if folder != Path::new("") => folder.display().to_string(),
            _ => "the loader's own search".to_owned(),
        });
        let empty: Vec<String> = empty.collect();
        if !empty.is_empty() {
            say(format_args!("{}: not in {}", group[0].library, empty.join(", ")));
        }
    }
    if text.is_empty() { text } else { format!(". Looked at:\n{}", text.trim_end()) }
}

pub(crate) fn version(cuda: i32) -> String {
    format!("{}.{}", cuda / 1000, cuda % 1000 / 10)
}

fn hidden(visible: Option<&str>) -> String {
    visible.map(|value| format!(" (CUDA_VISIBLE_DEVICES is {value:?})")).unwrap_or_default()
}

fn cards(count: usize) -> String {
    match count {
        1 => "one, which is card 0".into(),
        count => format!("{count}, from 0 to {}", count.saturating_sub(1)),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::powi(2.0, 30))
}
