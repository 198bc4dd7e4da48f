//! The tokenizer in a GGUF file's metadata: read as `tokenizer.json`, so that both roads have the same guards, and written.

mod read;
mod write;

use serde_json::{Value, json};

pub(super) use read::convert;
pub use write::GgufTokenizer;

/// Token kinds (`tokenizer.ggml.token_type`).
mod kind {
    pub const NORMAL: u64 = 1;
    pub const UNKNOWN: u64 = 2;
    pub const CONTROL: u64 = 3;
    pub const USER_DEFINED: u64 = 4;
    pub const UNUSED: u64 = 5;
    pub const BYTE: u64 = 6;
}

/// What llama.cpp's converter calls the ids that no token has.
fn filler(id: usize) -> String {
    format!("[PAD{id}]")
}

/// Pieces of Llama 3 and Qwen 2; GPT-2's pattern is built into the ByteLevel pre-tokenizer.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a byte-level tokenizer cuts texts into words.
struct PreTokenizer {
    /// llama.cpp's name (`tokenizer.ggml.pre`), then others that mean the same.
    names: &'static [&'static str],
    /// As in the model's own tokenizer.json.
    pieces: fn() -> Value,
    normalizer: fn() -> Value,
    ignore_merges: bool,
}

const PRE_TOKENIZERS: [PreTokenizer; 4] = [
    PreTokenizer { names: &["gpt-2"], pieces: || bytes(true), normalizer: || Value::Null, ignore_merges: false },
    PreTokenizer {
        names: &["smollm"],
        pieces: || sequence(&[json!({ "type": "Digits", "individual_digits": true }), bytes(true)]),
        normalizer: || Value::Null,
        ignore_merges: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        pieces: || sequence(&[split(LLAMA3), bytes(false)]),
        normalizer: || Value::Null,
        ignore_merges: true,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        pieces: || sequence(&[split(QWEN2), bytes(false)]),
        normalizer: || json!({ "type": "NFC" }),
        ignore_merges: false,
    },
];

fn bytes(regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex })
}

fn split(pattern: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}

fn sequence(list: &[Value]) -> Value {
    json!({ "type": "Sequence", "pretokenizers": list })
}

#[cfg(test)]
mod test;
