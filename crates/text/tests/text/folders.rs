//! Where the reference data lies; tests without it say loudly that they skip.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;
use zephyr_text::{ChatTemplate, Message, Tokenizer};

fn folder(variable: &str, default: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    // A relative path in the variable counts from the repository's root.
    let path = root.join(std::env::var(variable).unwrap_or_else(|_| default.to_string()));
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} does not exist; set {variable} to the folder", path.display());
    None
}

pub fn golden() -> Option<PathBuf> {
    folder("ZEPHYR_GOLDEN", "../shared/golden")
}

pub fn data() -> Option<PathBuf> {
    folder("ZEPHYR_DATA", "../shared/data")
}

pub fn case(name: &str) -> Option<PathBuf> {
    Some(folder("ZEPHYR_CASES", "../shared/cases")?.join(name))
}

pub fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&read(path)).expect("valid JSON")
}

pub fn tokenizer(folder: PathBuf) -> Tokenizer {
    let config = String::from_utf8(read(folder.join("tokenizer_config.json"))).expect("UTF-8");
    Tokenizer::from_json(&read(folder.join("tokenizer.json")), Some(&config)).expect("a tokenizer")
}

pub fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

pub fn messages(value: &Value) -> Vec<Message> {
    Message::list(value, "messages").expect("messages")
}

/// Tokenizers of different kinds, with a template each (the Zephyr template where the files have none).
pub fn kinds() -> &'static [(&'static str, Tokenizer, ChatTemplate)] {
    static KINDS: OnceLock<Vec<(&'static str, Tokenizer, ChatTemplate)>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let mut all = Vec::new();
        if let Some(golden) = golden() {
            all.push(("byte-level BPE", tokenizer(golden.join("tokenizer"))));
        }
        if let Some(data) = data() {
            all.push(("Mistral", tokenizer(data.join("tokenizer"))));
        }
        if let Some(case) = case("02-answer-repeats-the-question") {
            all.push(("bytes", tokenizer(case.join("tokenizer"))));
        }
        if let Some(case) = case("03-byte-fallback-streaming") {
            let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>"}"#;
            all.push((
                "byte fallback",
                Tokenizer::from_json(&read(case.join("tokenizer.json")), Some(config)).expect("a tokenizer"),
            ));
        }
        all.into_iter()
            .map(|(name, tokenizer)| {
                let template =
                    ChatTemplate::from_tokenizer(&tokenizer).expect("a template").unwrap_or_else(ChatTemplate::zephyr);
                (name, tokenizer, template)
            })
            .collect()
    })
}
