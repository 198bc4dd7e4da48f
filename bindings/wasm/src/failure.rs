//! Errors on their way to JavaScript: an `Error` with `code`, `problem` and `remedy`.
//!
//! WebAssembly cannot unwind: a panic would be a bare trap. The hook throws it as an error instead, which leaves the instance
//! in the middle of its work; it is marked `fatal`, and whoever gets it must not call the instance again.

use js_sys::{Error, Reflect};
use wasm_bindgen::{JsValue, throw_val};

/// Any error of the core, as code and message.
pub struct Failure {
    code: &'static str,
    message: String,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
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

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        thrown(failure.code, &failure.message, false)
    }
}

fn thrown(code: &str, message: &str, fatal: bool) -> JsValue {
    let (problem, remedy) = message.split_once("Remedy: ").unwrap_or((message, ""));
    let error = Error::new(message);
    let fields: [(&str, JsValue); 4] = [
        ("code", code.into()),
        ("problem", problem.trim_end().into()),
        ("remedy", remedy.into()),
        ("fatal", fatal.into()),
    ];
    for (name, value) in fields {
        // It cannot fail on an object of our own.
        let _ = Reflect::set(&error, &name.into(), &value);
    }
    error.into()
}

/// Makes panics errors that are thrown.
pub fn throw_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = format!(
            "A fault in zephyr-align: {info}. Remedy: Load the model anew, and report it with the steps that led here."
        );
        throw_val(thrown("ZA_INTERNAL", &text, true));
    }));
}
