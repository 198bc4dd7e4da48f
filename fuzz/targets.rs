//! What a fuzzer does with an input, for cargo-fuzz (`fuzz_targets/`) and for the driver on stable Rust (`mutate.rs`).
//!
//! A target must come back whatever the bytes: with an error, or with something that keeps its promises. It says whether the
//! input was accepted.

use std::ops::Range;
use std::path::Path;

use zephyr_mistral::weights::gguf::{Gguf, from_gguf};
use zephyr_mistral::weights::safetensors::Header;
use zephyr_mistral::{Config, Storage};
use zephyr_text::{ChatTemplate, Message, SpecialTokens, Specials, Tokenizer};

/// What is done with some bytes; tells whether they were taken for what they claim to be.
pub type Target = fn(&[u8]) -> bool;

/// By name, as the folders of the corpus are called.
pub const ALL: [(&str, Target); 5] = [
    ("safetensors_header", safetensors_header),
    ("gguf", gguf),
    ("tokenizer_json", tokenizer_json),
    ("chat_template", chat_template),
    ("config_json", config_json),
];

/// No byte of a file belongs to two tensors.
fn disjoint(ranges: impl Iterator<Item = Range<u64>>) {
    let mut ranges: Vec<Range<u64>> = ranges.filter(|range| !range.is_empty()).collect();
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
}

/// Every tensor lies in the file, apart from the others, and is as long as its shape says.
pub fn safetensors_header(bytes: &[u8]) -> bool {
    let Ok(header) = Header::read(&bytes.to_vec(), Path::new("fuzz.safetensors")) else { return false };
    for tensor in &header.tensors {
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len() as u64, "{tensor:?}");
        assert!(tensor.elements() as u64 <= 8 * (tensor.range.end - tensor.range.start), "{tensor:?}");
    }
    disjoint(header.tensors.iter().map(|tensor| tensor.range.clone()));
    true
}

/// Every tensor lies in the file, apart from the others; what loads has a vocabulary of its embedding's size, in both ways of keeping weights.
pub fn gguf(bytes: &[u8]) -> bool {
    let Ok(gguf) = Gguf::read(bytes.to_vec(), Path::new("fuzz.gguf")) else { return false };
    for tensor in &gguf.tensors {
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len() as u64, "{tensor:?}");
    }
    disjoint(gguf.tensors.iter().map(|tensor| tensor.range.clone()));
    let metadata = gguf.tokenizer_metadata();
    if let Ok(metadata) = &metadata {
        used(Tokenizer::from_gguf(metadata).ok());
    }
    for storage in [Storage::F32, Storage::Gguf] {
        if let Ok(loaded) = from_gguf(&gguf, storage) {
            let table = &loaded.weights.layout.tensors[0];
            assert_eq!(table.shape, [loaded.weights.config.vocab_size, loaded.weights.config.hidden_size]);
        }
    }
    metadata.is_ok()
}

/// A tokenizer that loads encodes and decodes, and can be written and read again.
pub fn tokenizer_json(bytes: &[u8]) -> bool {
    let tokenizer = Tokenizer::from_json(bytes, None).ok();
    if let Some(tokenizer) = &tokenizer
        && let Ok(text) = tokenizer.to_json()
    {
        Tokenizer::from_json(text.as_bytes(), None).expect("what was written is read");
    }
    used(tokenizer)
}

fn used(tokenizer: Option<Tokenizer>) -> bool {
    let Some(tokenizer) = tokenizer else { return false };
    for text in
        ["", "Hello, world! 12345", "naïve 🦙\n\n  </s><s> \u{0}", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"]
    {
        for specials in [Specials::Text, Specials::Parse] {
            if let Ok(ids) = tokenizer.encode(text, true, specials) {
                assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary()), "{ids:?}");
                let _ = tokenizer.decode(&ids, true);
            }
        }
    }
    let _ = tokenizer.decode(&[0, 1, u32::MAX], false);
    let _ = tokenizer.to_gguf("", tokenizer.vocabulary().min(1 << 16), &[0]);
    true
}

/// A template that parses renders, or fails, in bounded time and space.
pub fn chat_template(bytes: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(bytes) else { return false };
    let tokens = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
    let Ok(template) = ChatTemplate::from_source(source, &tokens) else { return false };
    let messages = [
        Message::new("system", "Be kind."),
        Message::new("user", "Hi {{ there }}"),
        Message::new("assistant", "Hello."),
    ];
    for (count, prompt) in [(3, false), (2, true), (0, true)] {
        if let Ok(text) = template.render_text(&messages[..count], prompt) {
            assert!(text.len() <= (1 << 20) + 16 * 4096, "{} bytes", text.len());
        }
    }
    true
}

/// A configuration that is accepted has an addressable number of parameters, and is the same written and read again.
pub fn config_json(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(config) = Config::from_json(text, "fuzz.json") else { return false };
    assert!(config.parameters().is_some());
    let written = config.to_json().to_string();
    let again = Config::from_json(&written, "again.json").expect("what was written is read");
    assert_eq!(Config { raw: config.raw.clone(), ..again }, config);
    true
}
