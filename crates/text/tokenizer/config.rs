//! `tokenizer_config.json`: what the tokenizer's users must know beside the vocabulary.

use serde_json::Value;

use crate::error::{Error, Result};

/// The entries of `tokenizer_config.json` that matter to us.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
    pub additional: Vec<String>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub chat_template: Option<String>,
    /// Entries of `added_tokens_decoder`, in the form of `added_tokens` of tokenizer.json.
    pub added: Vec<Value>,
}

impl Config {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| refused("", format!("is not complete JSON ({e})")))?;
        if !value.is_object() {
            return Err(refused("", "is not a JSON object"));
        }
        let token = |name: &str| -> Result<Option<String>> { token(name, value.get(name)) };
        let flag = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(refused(name, "must be true, false or null")),
        };
        let additional = match value.get("additional_special_tokens") {
            Some(Value::Array(list)) => list.iter().filter_map(token_text).collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            bos: token("bos_token")?,
            eos: token("eos_token")?,
            unk: token("unk_token")?,
            pad: token("pad_token")?,
            additional,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            chat_template: chat_template(value.get("chat_template"))?,
            added: added(value.get("added_tokens_decoder"))?,
        })
    }
}

fn refused(place: &str, reason: impl Into<String>) -> Error {
    Error::TokenizerConfig { place: place.to_string(), reason: reason.into() }
}

/// A token is written as its text or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_string)
}

fn token(name: &str, value: Option<&Value>) -> Result<Option<String>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => token_text(value)
            .map(Some)
            .ok_or_else(|| refused(name, "must be a text, or an object with the text `content`")),
    }
}

/// A template is one text, or a list of named ones, of which the one named `default` is for chats.
fn chat_template(value: Option<&Value>) -> Result<Option<String>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(list)) => list
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|t| t.get("template")?.as_str())
            .map(|t| Some(t.to_string()))
            .ok_or_else(|| {
                refused("chat_template", "is a list without a template named `default`; give the template as an option")
            }),
        Some(_) => Err(refused("chat_template", "must be a text, or a list of objects with `name` and `template`")),
    }
}

fn added(value: Option<&Value>) -> Result<Vec<Value>> {
    let Some(Value::Object(map)) = value else { return Ok(Vec::new()) };
    map.iter()
        .map(|(id, entry)| {
            let place = || format!("added_tokens_decoder[{id:?}]");
            let number: u32 = id.parse().map_err(|_| refused(&place(), "is not named by a token id"))?;
            let Value::Object(fields) = entry else { return Err(refused(&place(), "must be an object")) };
            let mut fields = fields.clone();
            fields.insert("id".into(), number.into());
            if !fields.get("content").is_some_and(Value::is_string) {
                return Err(refused(&place(), "needs the text `content`"));
            }
            Ok(Value::Object(fields))
        })
        .collect()
}
