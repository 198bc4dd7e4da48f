//! Errors on their way to JavaScript: `[ZA_CODE] message`, taken apart again by `ts/native`.

use std::any::Any;

/// Any error of the core, as code and message.
pub struct Failure {
    code: &'static str,
    message: String,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// One error of a journal for everybody whose work was in its transaction.
    pub fn of_journal(error: &zephyr_journal::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }

    /// A caught panic: a fault of ours, but not a dead process.
    pub fn panic(payload: Box<dyn Any + Send>) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Self::new(
            "ZA_INTERNAL",
            format!("A fault in zephyr-align: {text}. Remedy: report it with the steps that led here"),
        )
    }
}

impl From<zephyr_align::Error> for Failure {
    fn from(error: zephyr_align::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<zephyr_devices::Error> for Failure {
    fn from(error: zephyr_devices::Error) -> Self {
        Self::new(error.code(), format!("{error}. Remedy: {}", error.remedy()))
    }
}

impl From<zephyr_devices::Refusal> for Failure {
    fn from(refusal: zephyr_devices::Refusal) -> Self {
        Self::new(refusal.error.code(), refusal.to_string())
    }
}

impl From<zephyr_kernels::cuda::DeviceError> for Failure {
    fn from(error: zephyr_kernels::cuda::DeviceError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<zephyr_journal::Error> for Failure {
    fn from(error: zephyr_journal::Error) -> Self {
        Self::of_journal(&error)
    }
}

impl From<zephyr_mistral::Error> for Failure {
    fn from(error: zephyr_mistral::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<zephyr_text::Error> for Failure {
    fn from(error: zephyr_text::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new("ZA_ARGUMENT", format!("options: {error}"))
    }
}

impl From<Failure> for napi::Error {
    fn from(failure: Failure) -> Self {
        napi::Error::from_reason(format!("[{}] {}", failure.code, failure.message))
    }
}

/// Runs a synchronous entry; a panic becomes an error, never the end of the process.
pub fn guard<T>(work: impl FnOnce() -> Result<T, Failure>) -> napi::Result<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(payload) => Err(Failure::panic(payload).into()),
    }
}
