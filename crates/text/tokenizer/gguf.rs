//! The tokenizer in a GGUF file's metadata, rewritten as `tokenizer.json`, so that both roads have the same guards.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::config::Config;
use crate::error::{Error, Result};

/// Pieces of Llama 3 and Qwen 2; GPT-2's pattern is built into the ByteLevel pre-tokenizer.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Token kinds of GGUF (`tokenizer.ggml.token_type`).
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// Converts the metadata to the contents of `tokenizer.json` and the entries of `tokenizer_config.json`.
pub(super) fn convert(metadata: &Map<String, Value>) -> Result<(Value, Config)> {
    let tokens =
        texts(metadata, "tokenizer.ggml.tokens")?.ok_or_else(|| broken("has no tokenizer.ggml.tokens".into()))?;
    let kinds: Vec<u64> = match metadata.get("tokenizer.ggml.token_type") {
        Some(Value::Array(list)) => list.iter().map(|v| v.as_u64().unwrap_or(1)).collect(),
        _ => vec![1; tokens.len()],
    };
    if kinds.len() != tokens.len() {
        return Err(broken(format!("has {} tokens but {} token types", tokens.len(), kinds.len())));
    }
    let mut vocabulary = Map::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if let Some(other) = vocabulary.insert((*token).to_string(), id.into()) {
            let reason = format!("tokenizer.ggml.tokens gives {token:?} the ids {other} and {id}");
            return Err(Error::TokenizerVocabulary { file: "the GGUF file", reason });
        }
    }
    let name = |key: &str| -> Result<Option<String>> {
        let Some(value) = metadata.get(key) else { return Ok(None) };
        let id = value.as_u64().and_then(|id| usize::try_from(id).ok());
        let token = id
            .and_then(|id| tokens.get(id))
            .ok_or_else(|| broken(format!("has {key} = {value}, outside its tokens")))?;
        Ok(Some((*token).to_string()))
    };
    let flag = |key: &str| metadata.get(key).and_then(Value::as_bool);
    let config = Config {
        bos: name("tokenizer.ggml.bos_token_id")?,
        eos: name("tokenizer.ggml.eos_token_id")?,
        unk: name("tokenizer.ggml.unknown_token_id")?,
        pad: name("tokenizer.ggml.padding_token_id")?,
        add_bos: flag("tokenizer.ggml.add_bos_token"),
        add_eos: flag("tokenizer.ggml.add_eos_token"),
        chat_template: metadata.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_string),
        ..Config::default()
    };
    let added: Vec<Value> = tokens
        .iter()
        .zip(&kinds)
        .enumerate()
        .filter(|(_, (_, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind))
        .map(|(id, (token, kind))| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": *kind != USER_DEFINED })
        })
        .collect();
    let mut file = match metadata.get("tokenizer.ggml.model").and_then(Value::as_str) {
        Some("gpt2") => byte_level(metadata, vocabulary)?,
        Some("llama") => sentence_piece(metadata, &tokens, vocabulary, &kinds, config.unk.as_deref())?,
        other => {
            return Err(Error::TokenizerUnsupported {
                place: "the GGUF file's tokenizer.ggml.model",
                value: other.unwrap_or("missing").to_string(),
                supported: "gpt2, llama",
            });
        }
    };
    file["version"] = "1.0".into();
    file["added_tokens"] = added.into();
    Ok((file, config))
}

fn broken(reason: String) -> Error {
    Error::TokenizerFile { file: "the GGUF file", reason }
}

fn texts<'a>(metadata: &'a Map<String, Value>, key: &str) -> Result<Option<Vec<&'a str>>> {
    match metadata.get(key) {
        None => Ok(None),
        Some(Value::Array(list)) => list
            .iter()
            .map(|v| v.as_str().ok_or_else(|| broken(format!("has {key} that are not all texts"))))
            .collect::<Result<_>>()
            .map(Some),
        Some(_) => Err(broken(format!("has {key} that are not a list"))),
    }
}

fn byte_level(metadata: &Map<String, Value>, vocabulary: Map<String, Value>) -> Result<Value> {
    let merges =
        texts(metadata, "tokenizer.ggml.merges")?.ok_or_else(|| broken("has no tokenizer.ggml.merges".into()))?;
    let (pre_tokenizer, normalizer, ignore_merges) =
        pre_tokenizer(metadata.get("tokenizer.ggml.pre").and_then(Value::as_str))?;
    Ok(json!({
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges, "vocab": vocabulary, "merges": merges },
    }))
}

/// The pre-tokenizer, normalizer and `ignore_merges` that the model's own tokenizer.json has, by llama.cpp's name for it.
fn pre_tokenizer(name: Option<&str>) -> Result<(Value, Value, bool)> {
    let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
    let split = |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let sequence = |list: Vec<Value>| json!({ "type": "Sequence", "pretokenizers": list });
    match name {
        // Files from before the key existed are GPT-2's kind.
        None | Some("gpt-2") => Ok((bytes(true), Value::Null, false)),
        Some("smollm") => Ok((
            sequence(vec![json!({ "type": "Digits", "individual_digits": true }), bytes(true)]),
            Value::Null,
            false,
        )),
        Some("llama-bpe" | "llama3" | "llama-v3") => {
            Ok((sequence(vec![split(LLAMA3), bytes(false)]), Value::Null, true))
        }
        Some("qwen2" | "deepseek-r1-qwen") => {
            Ok((sequence(vec![split(QWEN2), bytes(false)]), json!({ "type": "NFC" }), false))
        }
        Some(other) => Err(Error::TokenizerUnsupported {
            place: "the GGUF file's tokenizer.ggml.pre",
            value: other.to_string(),
            supported: "gpt-2, smollm, llama-bpe, qwen2",
        }),
    }
}

/// SentencePiece BPE keeps scores in place of merges: each split of a token into two tokens is a merge, the best score first.
fn sentence_piece(
    metadata: &Map<String, Value>,
    tokens: &[&str],
    vocabulary: Map<String, Value>,
    kinds: &[u64],
    unknown: Option<&str>,
) -> Result<Value> {
    let scores: Vec<f64> = match metadata.get("tokenizer.ggml.scores") {
        Some(Value::Array(list)) if list.len() == tokens.len() => {
            list.iter().map(|v| v.as_f64().unwrap_or(0.0)).collect()
        }
        _ => return Err(broken(format!("needs one of tokenizer.ggml.scores for each of its {} tokens", tokens.len()))),
    };
    let known: HashSet<&str> = tokens.iter().copied().collect();
    let mut merges: Vec<(f64, &str, &str)> = Vec::new();
    for ((token, score), kind) in tokens.iter().zip(&scores).zip(kinds) {
        if *kind != 1 {
            continue;
        }
        let mut local: Vec<(&str, &str)> = token
            .char_indices()
            .skip(1)
            .map(|(at, _)| token.split_at(at))
            .filter(|(left, right)| known.contains(left) && known.contains(right))
            .collect();
        local.sort_by_key(|(left, right)| (vocabulary[*left].as_u64(), vocabulary[*right].as_u64()));
        merges.extend(local.into_iter().map(|(left, right)| (*score, left, right)));
    }
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then(b.1.chars().count().cmp(&a.1.chars().count()))
            .then(b.2.chars().count().cmp(&a.2.chars().count()))
    });
    let pairs: Vec<Value> = merges.into_iter().map(|(_, left, right)| json!([left, right])).collect();
    let prefix = metadata.get("tokenizer.ggml.add_space_prefix").and_then(Value::as_bool).unwrap_or(true);
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" });
    let mut normalizers = vec![replace];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "\u{2581}" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    Ok(json!({
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": { "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary, "merges": pairs },
    }))
}
