//! From the metadata to `tokenizer.json`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::super::config::Config;
use super::{PRE_TOKENIZERS, PreTokenizer, filler, kind};
use crate::error::{Error, Result};

/// Bytes of a SentencePiece token, whose splits are all looked up: the longest known ones have some fifty.
const LONGEST: usize = 1024;

/// Converts the metadata to the contents of `tokenizer.json` and the entries of `tokenizer_config.json`.
pub(in super::super) fn convert(metadata: &Map<String, Value>) -> Result<(Value, Config)> {
    let tokens =
        texts(metadata, "tokenizer.ggml.tokens")?.ok_or_else(|| broken("has no tokenizer.ggml.tokens".into()))?;
    let kinds: Vec<u64> = match metadata.get("tokenizer.ggml.token_type") {
        Some(Value::Array(list)) => list.iter().map(|v| v.as_u64().unwrap_or(kind::NORMAL)).collect(),
        _ => vec![kind::NORMAL; tokens.len()],
    };
    if kinds.len() != tokens.len() {
        return Err(broken(format!("has {} tokens but {} token types", tokens.len(), kinds.len())));
    }
    let mut vocabulary = Map::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        // An id that no token has stays without one.
        if kinds[id] == kind::UNUSED && *token == filler(id) {
            continue;
        }
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
        .filter(|(_, (_, of))| [kind::UNKNOWN, kind::CONTROL, kind::USER_DEFINED].contains(of))
        .map(|(id, (token, of))| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": *of != kind::USER_DEFINED })
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
    let own = pre_tokenizer(metadata.get("tokenizer.ggml.pre").and_then(Value::as_str))?;
    Ok(json!({
        "normalizer": (own.normalizer)(),
        "pre_tokenizer": (own.pieces)(),
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": own.ignore_merges, "vocab": vocabulary, "merges": merges },
    }))
}

fn pre_tokenizer(name: Option<&str>) -> Result<&'static PreTokenizer> {
    // Files from before the key existed are GPT-2's kind.
    let name = name.unwrap_or("gpt-2");
    PRE_TOKENIZERS.iter().find(|own| own.names.contains(&name)).ok_or_else(|| Error::TokenizerUnsupported {
        place: "the GGUF file's tokenizer.ggml.pre",
        value: name.to_string(),
        supported: "gpt-2, smollm, llama-bpe, qwen2",
    })
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
    for ((token, score), of) in tokens.iter().zip(&scores).zip(kinds) {
        if *of != kind::NORMAL {
            continue;
        }
        if token.len() > LONGEST {
            return Err(broken(format!("has a token of {} bytes in tokenizer.ggml.tokens", token.len())));
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
