//! One message of a conversation: a role, a content, and whatever else a template may read.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A message. Keys keep their order, because templates print messages with `tojson`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message of role and content alone.
    pub fn new(role: &str, content: &str) -> Self {
        Self(Map::from_iter([("role".to_string(), role.into()), ("content".to_string(), content.into())]))
    }

    /// Reads the messages of a JSON list; `place` names it in errors (`messages`, `prompt`, `chosen`).
    ///
    /// # Errors
    /// `ZA_MESSAGE` naming `place[i]`.
    pub fn list(value: &Value, place: &str) -> Result<Vec<Self>> {
        let Value::Array(list) = value else {
            return Err(Error::Message { place: place.to_string(), reason: "is not a list".to_string() });
        };
        list.iter()
            .enumerate()
            .map(|(i, entry)| match entry {
                Value::Object(map) if map.get("role").is_some_and(Value::is_string) => Ok(Self(map.clone())),
                Value::Object(_) => Err(Error::Message {
                    place: format!("{place}[{i}].role"),
                    reason: "is missing or not a text".to_string(),
                }),
                _ => Err(Error::Message { place: format!("{place}[{i}]"), reason: "is not an object".to_string() }),
            })
            .collect()
    }

    /// Sets a further key, such as `name` or `tool_calls`.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.0.insert(key.to_string(), value);
        self
    }

    /// The role; empty if the message has none.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or("")
    }

    /// The content, if it is text.
    pub fn content(&self) -> Option<&str> {
        self.0.get("content").and_then(Value::as_str)
    }

    /// The content, or an error that names `place[index].content` and what stands there instead.
    pub(crate) fn text(&self, place: &str, index: usize) -> Result<&str> {
        let found = match self.0.get("content") {
            Some(Value::String(text)) => return Ok(text),
            None => "missing",
            Some(Value::Null) => "null",
            Some(Value::Array(_)) => "a list",
            Some(Value::Object(_)) => "an object",
            Some(Value::Number(_)) => "a number",
            Some(Value::Bool(_)) => "true or false",
        };
        Err(Error::MessageContent { place: format!("{place}[{index}].content"), found })
    }

    pub(super) fn with_content(&self, content: String) -> Self {
        self.clone().with("content", content.into())
    }

    /// All keys, in order.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}
