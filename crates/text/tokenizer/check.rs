//! Guards over `tokenizer.json`: what the tokenizers crate accepts silently, or refuses without saying where.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::{broken, config::Config};
use crate::error::{Error, Result};

/// Checks the file and completes it with what the configuration says; true when the file was changed.
pub(super) fn prepare(file: &mut Value, config: &Config) -> Result<bool> {
    let root = file.as_object_mut().ok_or_else(|| broken("is not a JSON object".into()))?;
    let model = match root.get("model") {
        Some(Value::Object(model)) => model,
        _ => return Err(broken("has no object `model`".into())),
    };
    if model.get("dropout").and_then(Value::as_f64).is_some_and(|d| d > 0.0) {
        return Err(broken(
            "sets model.dropout, which encodes the same text differently every time; set it to null".into(),
        ));
    }
    let vocabulary = model.get("vocab").and_then(Value::as_object);
    if let Some(vocabulary) = vocabulary {
        ids(vocabulary)?;
        if let Some(list) = model.get("merges") {
            merges(list, vocabulary, model)?;
        }
    }
    let mut changed = false;
    for name in ["truncation", "padding"] {
        // Lengths are the trainer's business: a file must not cut or fill behind its back.
        if root.get(name).is_some_and(|v| !v.is_null()) {
            root.insert(name.into(), Value::Null);
            changed = true;
        }
    }
    Ok(complete_added(root, config)? || changed)
}

fn ids(vocabulary: &Map<String, Value>) -> Result<()> {
    let wrong = |reason: String| Error::TokenizerVocabulary { file: "tokenizer.json", reason };
    let mut seen: HashMap<u64, &str> = HashMap::with_capacity(vocabulary.len());
    for (token, id) in vocabulary {
        let Some(id) = id.as_u64().filter(|id| *id < u64::from(u32::MAX)) else {
            return Err(wrong(format!("model.vocab[{token:?}] is {id}")));
        };
        if let Some(other) = seen.insert(id, token) {
            return Err(wrong(format!("model.vocab gives id {id} to {other:?} and to {token:?}")));
        }
    }
    Ok(())
}

fn merges(list: &Value, vocabulary: &Map<String, Value>, model: &Map<String, Value>) -> Result<()> {
    let Value::Array(list) = list else {
        return match list {
            Value::Null => Ok(()),
            _ => Err(broken("has model.merges that are not a list".into())),
        };
    };
    // With a prefix on inner pieces the join is not a plain one: the crate checks those itself.
    let prefixed = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or("");
    for (index, merge) in list.iter().enumerate() {
        let wrong =
            |reason: &str| Error::TokenizerMerge { index, merge: merge.to_string(), reason: reason.to_string() };
        let (left, right) = match merge {
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => (left.as_str(), right.as_str()),
                _ => return Err(wrong("not a pair of texts")),
            },
            Value::String(line) if line.starts_with("#version") => continue,
            Value::String(line) => match line.split(' ').collect::<Vec<_>>().as_slice() {
                [left, right] => (*left, *right),
                _ => return Err(wrong("not two tokens with one space between them")),
            },
            _ => return Err(wrong("neither a pair nor a text")),
        };
        let joined = if prefixed.is_empty() {
            format!("{left}{right}")
        } else {
            let rest = right
                .strip_prefix(prefixed)
                .ok_or_else(|| wrong("its second token lacks continuing_subword_prefix"))?;
            format!("{left}{rest}")
        };
        for token in [left, right, joined.as_str()] {
            if !vocabulary.contains_key(token) {
                return Err(wrong(&format!("token {token:?} is out of vocabulary")));
            }
        }
    }
    Ok(())
}

/// Adds the tokens that only tokenizer_config.json declares, as transformers does when it loads the two files.
fn complete_added(root: &mut Map<String, Value>, config: &Config) -> Result<bool> {
    let mut list = match root.get("added_tokens") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list.clone(),
        Some(_) => return Err(broken("has added_tokens that are not a list".into())),
    };
    let mut known = HashSet::new();
    for (index, entry) in list.iter().enumerate() {
        match (entry.get("content").and_then(Value::as_str), entry.get("id").and_then(Value::as_u64)) {
            (Some(content), Some(_)) => known.insert(content.to_string()),
            _ => {
                return Err(broken(format!("has added_tokens[{index}] without the text `content` or the number `id`")));
            }
        };
    }
    let before = list.len();
    for entry in &config.added {
        let content = entry["content"].as_str().unwrap_or_default();
        if known.insert(content.to_string()) {
            let flag = |name: &str, default: bool| entry.get(name).and_then(Value::as_bool).unwrap_or(default);
            let special = flag("special", false);
            list.push(json!({ "id": entry["id"], "content": content, "single_word": flag("single_word", false), "lstrip": flag("lstrip", false),
                "rstrip": flag("rstrip", false), "normalized": flag("normalized", !special), "special": special }));
        }
    }
    let id_in_model = |token: &str| -> Option<u64> {
        match root.get("model")?.get("vocab")? {
            Value::Object(map) => map.get(token)?.as_u64(),
            Value::Array(pieces) => {
                pieces.iter().position(|p| p.get(0).and_then(Value::as_str) == Some(token)).map(|i| i as u64)
            }
            _ => None,
        }
    };
    let named = [&config.bos, &config.eos, &config.unk, &config.pad].into_iter().flatten().chain(&config.additional);
    for token in named {
        if !known.contains(token.as_str())
            && let Some(id) = id_in_model(token)
        {
            known.insert(token.clone());
            list.push(json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }));
        }
    }
    let changed = list.len() > before;
    if changed {
        root.insert("added_tokens".into(), Value::Array(list));
    }
    Ok(changed)
}

/// Makes the ids that `added_tokens` declares hold: the crate numbers a token that the model lacks by counting, which is wrong
/// when ids have holes. Such tokens are entered into the model's vocabulary under their declared id; true when that was needed.
pub(super) fn declare_added(file: &mut Value, inner: &tokenizers::Tokenizer) -> Result<bool> {
    let wrong = |reason: String| Error::TokenizerVocabulary { file: "tokenizer.json", reason };
    let mut missing = Vec::new();
    let mut given: HashMap<u64, String> = HashMap::new();
    for entry in file.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let (Some(content), Some(id)) = (entry["content"].as_str(), entry["id"].as_u64()) else { continue };
        if id >= u64::from(u32::MAX) {
            return Err(wrong(format!("added token {content:?} has id {id}")));
        }
        if let Some(other) = given.insert(id, content.to_string())
            && other != content
        {
            return Err(wrong(format!("id {id} is given to the added tokens {other:?} and {content:?}")));
        }
        if !content.is_empty() && inner.token_to_id(content).map(u64::from) != Some(id) {
            missing.push((content.to_string(), id));
        }
    }
    if missing.is_empty() {
        return Ok(false);
    }
    let Some(Value::Object(vocabulary)) = file.get_mut("model").and_then(|m| m.get_mut("vocab")) else {
        let (content, id) = &missing[0];
        return Err(wrong(format!(
            "added token {content:?} says id {id}, which does not follow the model's vocabulary"
        )));
    };
    let mut by_id: HashMap<u64, String> =
        vocabulary.iter().filter_map(|(t, id)| Some((id.as_u64()?, t.clone()))).collect();
    for (content, id) in missing {
        if let Some(other) = vocabulary.get(&content) {
            return Err(wrong(format!("added token {content:?} says id {id}, but model.vocab says {other}")));
        }
        if let Some(other) = by_id.insert(id, content.clone()) {
            return Err(wrong(format!(
                "id {id} is given to {other:?} in model.vocab and to the added token {content:?}"
            )));
        }
        vocabulary.insert(content, id.into());
    }
    Ok(true)
}
