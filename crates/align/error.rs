//! Everything that can go wrong below the binding, with stable codes.

use std::path::PathBuf;

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
    #[error("{path}: {reason}. Remedy: {remedy}")]
    State { path: PathBuf, reason: String, remedy: &'static str },
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
            Self::State { .. } => "ZA_TRAIN_STATE",
        }
    }
}
