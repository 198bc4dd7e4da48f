//! Everything that can go wrong below the binding, with stable codes.

use std::path::PathBuf;

use zephyr_kernels::cuda::Free;

use crate::session::MemoryPlan;

pub type Result<T> = std::result::Result<T, Error>;

/// The one error type that the bindings see. `code()` is stable; messages name the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Model(#[from] zephyr_mistral::Error),
    #[error(transparent)]
    Text(#[from] zephyr_text::Error),
    #[error(transparent)]
    Loss(#[from] crate::losses::LossError),
    #[error("{0}")]
    Config(String),
    #[error("sequence {index} of the batch has no supervised token. Remedy: leave the row out, or raise maxLength")]
    NothingToLearn { index: usize },
    #[error(
        "{what} is {value} at step {step}. Remedy: lower learningRate or check the rows of this step; the weights are those of the last finished step"
    )]
    NonFinite { what: &'static str, value: f64, step: u64 },
    #[error(
        "step 0 of DPO must have loss ln 2 and rewards 0 when the reference is the policy's own start, found {what}. \
         Remedy: the reference log-probs belong to another model or other rows; compute them again"
    )]
    ReferenceMismatch { what: String },
    #[error("the training does not fit on the device: {plan} with recompute {:?}, {:.2} GB are free, of which {:.2} GB are left to the driver. Remedy: {remedy}", plan.recompute.name(), memory.free as f64 / 1e9, memory.reserve as f64 / 1e9)]
    DeviceMemory { plan: MemoryPlan, memory: Free, remedy: &'static str },
    #[error("{}: {reason}. Remedy: {remedy}", path.display())]
    State { path: PathBuf, reason: String, remedy: &'static str },
    #[error(
        "{}: no checkpoint can be used:{list}\nRemedy: restore one from a copy, or resume with resumeForce to start at step 1; \
         the broken ones stay where they are",
        path.display()
    )]
    CheckpointsBroken { path: PathBuf, list: String },
    #[error("{}: the folder is in use by {holder}. Remedy: wait for that run, stop it, or choose another outputDir", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error(
        "{}: {need} bytes will be needed ({checkpoints} checkpoints of {size} bytes, and {more} for the model), {free} are free. \
         Remedy: free space, choose another outputDir, or raise saveSteps above the steps of the run to save only the model",
        path.display()
    )]
    DiskSpace { path: PathBuf, need: u64, free: u64, checkpoints: u64, size: u64, more: u64 },
}

impl From<zephyr_kernels::cuda::DeviceError> for Error {
    fn from(error: zephyr_kernels::cuda::DeviceError) -> Self {
        Self::Model(error.into())
    }
}

impl Error {
    /// The stable code, `ZA_…`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Model(error) => error.code(),
            Self::Text(error) => error.code(),
            Self::Loss(error) => error.code(),
            Self::Config(_) => "ZA_CONFIG_INVALID",
            Self::NothingToLearn { .. } => "ZA_TRAIN_NO_SUPERVISED_TOKEN",
            Self::NonFinite { .. } => "ZA_TRAIN_NOT_FINITE",
            Self::ReferenceMismatch { .. } => "ZA_TRAIN_STEP_ZERO",
            Self::DeviceMemory { .. } => "ZA_DEVICE_MEMORY",
            Self::State { .. } => "ZA_TRAIN_STATE",
            Self::CheckpointsBroken { .. } => "ZA_CHECKPOINT_BROKEN",
            Self::Locked { .. } => "ZA_FOLDER_LOCKED",
            Self::DiskSpace { .. } => "ZA_DISK_SPACE",
        }
    }
}
