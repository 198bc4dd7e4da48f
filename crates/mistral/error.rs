//! What can go wrong with a model: one enum, one stable code per variant.

use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// Each message names the place (file, field, tensor, position), then the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{}: {problem}. Remedy: Give the folder of a whole model (config.json and safetensors), or a .gguf file.", path.display()
    )]
    ModelNotFound { path: PathBuf, problem: String },

    #[error(
        "{place}: {problem}. The file is damaged or was written by a faulty program. Remedy: Download or convert it again."
    )]
    ModelFormat { place: String, problem: String },

    #[error("{place}, field `{field}`: {problem}. Remedy: {remedy}")]
    ModelConfig { place: String, field: String, problem: String, remedy: String },

    #[error("{place}{}: {problem}. Remedy: {remedy}", in_field(field))]
    AdapterConfig { place: String, field: String, problem: String, remedy: String },

    #[error(
        "{place}: the adapter was not made for this model: {problem}. Remedy: Load the base model that it was trained on."
    )]
    AdapterBase { place: String, problem: String },

    #[error(
        "The model's weights are kept as {storage}, which cannot be trained. Remedy: Train a LoRA adapter over them, or load the model as float32."
    )]
    Frozen { storage: &'static str },

    #[error("{place}: {what} is not supported. Remedy: {remedy}")]
    Unsupported { place: String, what: String, remedy: String },

    #[error("{place} does not hold the tensor `{tensor}`. Remedy: {remedy}")]
    TensorMissing { place: String, tensor: String, remedy: String },

    #[error(
        "{place}, tensor `{tensor}`: the shape is {found:?}, the config asks for {expected:?}. Remedy: Take the config.json and the weights from the same model."
    )]
    TensorShape { place: String, tensor: String, expected: Vec<usize>, found: Vec<usize> },

    #[error(
        "{place}, tensor `{tensor}`: the type {found} cannot be read as weights. Remedy: Convert the model to one of {accepted}."
    )]
    TensorDtype { place: String, tensor: String, found: String, accepted: &'static str },

    #[error(
        "{}: the file is missing, but {wanted}. Remedy: {remedy}", shard.display()
    )]
    ShardMissing { shard: PathBuf, wanted: String, remedy: &'static str },

    #[error(
        "Token id {id} at position {position} is outside the vocabulary of {vocabulary}. Remedy: Encode the text with the tokenizer of this model."
    )]
    TokenRange { position: usize, id: u32, vocabulary: usize },

    #[error("{length} tokens do not fit: the model's max_position_embeddings is {limit}. Remedy: Shorten the text.")]
    ContextLength { length: usize, limit: usize },

    #[error(
        "A packed batch is malformed: {0}. Remedy: This is a fault of the caller, not of the data; report it with the steps that led here."
    )]
    Batch(String),

    #[error(
        "The prompt holds no tokens: there is nothing to continue. Remedy: Give at least one token (the bos token will do)."
    )]
    EmptyPrompt,

    #[error("Generation option `{field}` is {value}. Remedy: {remedy}")]
    GenerateOption { field: &'static str, value: String, remedy: &'static str },

    #[error(
        "The model's logits after {position} tokens are not finite, so nothing can be sampled. Remedy: The weights are damaged, or training has diverged; load the model again, or train at a lower learning rate."
    )]
    NotFinite { position: usize },

    #[error("Stopped, because the abort flag was set. Remedy: Start it again without setting the flag.")]
    Aborted,

    #[error(
        "{what} needs {bytes} bytes, which this machine does not give. Remedy: Take a smaller model or batch, or a machine with more memory."
    )]
    OutOfMemory { what: String, bytes: usize },

    #[error(
        "Keys and values of {tokens} tokens in {sequences} sequences need {bytes} more bytes of device memory, {free} are free. Remedy: Take fewer prompts at a time (batchSize) or shorter ones, fewer maxTokens, or end what else uses the card."
    )]
    CacheMemory { sequences: usize, tokens: usize, bytes: usize, free: usize },

    /// Its message has the remedy.
    #[error(transparent)]
    Device(#[from] zephyr_kernels::cuda::DeviceError),

    #[error("A device cannot compute with {what} yet. Remedy: {remedy}")]
    DeviceUnsupported { what: String, remedy: &'static str },

    #[error(
        "{place}: the model needs {needed} bytes of memory, and {limit} can be had. Remedy: Take a file of fewer bits or a smaller model, or load it where there is more memory (WebAssembly has 4 GiB, the native package all of the machine)."
    )]
    ModelTooLarge { place: String, needed: u64, limit: u64 },

    #[error(
        "{}: the disk is full. Remedy: Free some space and save again; what was there under this name before is untouched.", path.display()
    )]
    DiskFull { path: PathBuf },

    #[error("{}: could not {action}: {source}. Remedy: Check the path, its permissions and the disk.", path.display())]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },
}

impl Error {
    /// A stable name for programs; the same one that the TypeScript errors and the docs use.
    pub fn code(&self) -> &'static str {
        match self {
            Error::ModelNotFound { .. } => "ZA_MODEL_NOT_FOUND",
            Error::ModelFormat { .. } => "ZA_MODEL_FORMAT",
            Error::ModelConfig { .. } => "ZA_MODEL_CONFIG",
            Error::AdapterConfig { .. } => "ZA_ADAPTER_CONFIG",
            Error::AdapterBase { .. } => "ZA_ADAPTER_BASE",
            Error::Frozen { .. } => "ZA_MODEL_FROZEN",
            Error::Unsupported { .. } => "ZA_MODEL_UNSUPPORTED",
            Error::TensorMissing { .. } => "ZA_TENSOR_MISSING",
            Error::TensorShape { .. } => "ZA_TENSOR_SHAPE",
            Error::TensorDtype { .. } => "ZA_TENSOR_DTYPE",
            Error::ShardMissing { .. } => "ZA_SHARD_MISSING",
            Error::TokenRange { .. } => "ZA_TOKEN_RANGE",
            Error::ContextLength { .. } => "ZA_CONTEXT_LENGTH",
            Error::Batch(_) => "ZA_BATCH",
            Error::EmptyPrompt => "ZA_EMPTY_PROMPT",
            Error::GenerateOption { .. } => "ZA_GENERATE_OPTION",
            Error::NotFinite { .. } => "ZA_NOT_FINITE",
            Error::Aborted => "ZA_ABORTED",
            Error::OutOfMemory { .. } | Error::CacheMemory { .. } => "ZA_OUT_OF_MEMORY",
            Error::Device(error) => error.code(),
            Error::DeviceUnsupported { .. } => "ZA_DEVICE_UNSUPPORTED",
            Error::ModelTooLarge { .. } => "ZA_MODEL_TOO_LARGE",
            Error::DiskFull { .. } => "ZA_DISK_FULL",
            Error::Io { .. } => "ZA_IO",
        }
    }

    /// An error of the operating system at `path`; a full disk gets its own variant, as the user can act on it.
    pub fn io(path: &Path, action: &'static str, source: std::io::Error) -> Error {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            return Error::DiskFull { path: path.to_path_buf() };
        }
        Error::Io { path: path.to_path_buf(), action, source }
    }

    pub(crate) fn adapter(place: &str, field: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        let (place, field) = (place.to_owned(), field.to_owned());
        Error::AdapterConfig { place, field, problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn format(place: &str, problem: impl Into<String>) -> Error {
        Error::ModelFormat { place: place.to_string(), problem: problem.into() }
    }
}

fn in_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(", field `{field}`") }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let path = Path::new("out/model.safetensors");
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let full = Error::io(path, "write", full);
        assert_eq!(full.code(), "ZA_DISK_FULL");
        assert!(full.to_string().contains("out/model.safetensors"));
        let denied = Error::io(path, "write", denied);
        assert_eq!(denied.code(), "ZA_IO");
        assert!(denied.to_string().contains("could not write"));
    }

    #[test]
    fn every_message_ends_with_a_remedy() {
        let source = include_str!("error.rs");
        let (variants, _) = source.split_once("impl Error {").unwrap();
        let messages: Vec<&str> = variants.split("#[error(").skip(1).collect();
        assert!(messages.len() > 10);
        for message in messages {
            let (message, _) = message.split_once(")]").unwrap();
            assert!(message == "transparent" || message.contains(". Remedy: "), "{message}");
        }
    }
}
