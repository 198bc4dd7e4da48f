//! Typed reading of JSON fields, with errors that name file and field.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    place: &'a str,
}

impl<'a> Fields<'a> {
    pub fn new(map: &'a Map<String, Value>, place: &'a str) -> Self {
        Fields { map, place }
    }

    /// The field, where it is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub fn error(&self, field: &str, problem: String, remedy: &str) -> Error {
        Error::ModelConfig {
            place: self.place.to_string(),
            field: field.to_string(),
            problem,
            remedy: remedy.to_string(),
        }
    }

    pub fn unsupported(&self, what: String, remedy: &str) -> Error {
        Error::Unsupported { place: self.place.to_string(), what, remedy: remedy.to_string() }
    }

    /// The value has the wrong type or lies out of range; `expected` says what it should be.
    pub fn wrong(&self, field: &str, expected: &str) -> Error {
        let found = field.split('.').try_fold(None, |at, part| match at {
            None => self.map.get(part).map(Some),
            Some(value) => Value::get(value, part).map(Some),
        });
        let found = found.flatten().map_or("missing".to_string(), |value| {
            // A damaged file may hold anything here, of any length.
            value.to_string().chars().take(80).collect()
        });
        self.error(field, format!("it is {found}"), &format!("It must be {expected}."))
    }

    /// A whole number in 1..=max, which must be there.
    pub fn size(&self, name: &str, max: usize) -> Result<usize> {
        self.get(name)
            .and_then(Value::as_u64)
            .and_then(|value| usize::try_from(value).ok())
            .filter(|value| (1..=max).contains(value))
            .ok_or_else(|| self.wrong(name, &format!("a whole number from 1 to {max}")))
    }

    pub fn number(&self, name: &str, default: f64, valid: impl Fn(f64) -> bool) -> Result<f64> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|value| valid(*value))
                .ok_or_else(|| self.wrong(name, "a number in its usual range")),
        }
    }

    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, "true or false")),
        }
    }

    /// A token id; `default` where the field is absent, `None` where it is null.
    pub fn token(&self, name: &str, default: Option<u32>) -> Result<Option<u32>> {
        match self.map.get(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(value) => match id(value) {
                Some(id) => Ok(Some(id)),
                None => Err(self.wrong(name, "a token id or null")),
            },
        }
    }

    /// One token id, a list of them, or null.
    pub fn tokens(&self, name: &str, default: &[u32]) -> Result<Vec<u32>> {
        if let Some(Value::Array(list)) = self.map.get(name) {
            let ids: Option<Vec<u32>> = list.iter().map(id).collect();
            return ids.ok_or_else(|| self.wrong(name, "a token id, a list of them, or null"));
        }
        let default = default.first().copied();
        Ok(self.token(name, default)?.into_iter().collect())
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
