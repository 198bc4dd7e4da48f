//! How PEFT matches module names (`check_target_module_exists`, `get_pattern_key`).

use regex::Regex;
use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::linear::Projection;

/// `target_modules` or `exclude_modules`.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Every projection of every layer, the head not: PEFT's `all-linear`.
    AllLinear,
    /// A regular expression that the whole name must match.
    Pattern(Regex),
    /// Names, or ends of names after a dot.
    Names(Vec<String>),
}

impl Targets {
    /// From its JSON: text (`all-linear` or a pattern) or a list of names. `place` and `field` are for messages.
    ///
    /// # Errors
    /// `ZA_ADAPTER_CONFIG` for another type, an empty list, a pattern that cannot be read.
    pub fn parse(value: &Value, place: &str, field: &str) -> Result<Self> {
        let wrong = |problem: String| Error::adapter(place, field, problem, WANTED);
        match value {
            Value::String(text) if text == "all-linear" => Ok(Self::AllLinear),
            Value::String(text) => Ok(Self::Pattern(whole(text).map_err(|error| wrong(unreadable(text, &error)))?)),
            Value::Array(list) if !list.is_empty() => {
                let name = |value: &Value| value.as_str().map(str::to_owned);
                let names: Option<Vec<String>> = list.iter().map(name).collect();
                names.map(Self::Names).ok_or_else(|| wrong(format!("{value} is not a list of names")))
            }
            other => Err(wrong(format!("{other} names no projection"))),
        }
    }

    /// Whether the module of that path is meant.
    pub fn contain(&self, path: &str) -> bool {
        match self {
            Self::AllLinear => Projection::ALL.iter().any(|projection| names(projection.name(), path)),
            Self::Pattern(pattern) => pattern.is_match(path),
            Self::Names(list) => list.iter().any(|name| names(name, path)),
        }
    }

    /// Names of a list that no projection of the model has.
    pub fn unknown(&self, config: &Config) -> Vec<&str> {
        let known = |name: &str| paths(config).any(|(_, _, path)| names(name, &path));
        match self {
            Self::Names(list) => list.iter().map(String::as_str).filter(|name| !known(name)).collect(),
            _ => Vec::new(),
        }
    }
}

const WANTED: &str = "Give names such as q_proj, a pattern that the whole name must match, or all-linear.";

/// Every projection of the model with its path.
pub fn paths(config: &Config) -> impl Iterator<Item = (usize, Projection, String)> + use<> {
    (0..config.layers).flat_map(|layer| Projection::ALL.map(|projection| (layer, projection, projection.path(layer))))
}

/// The whole path, or its end after a dot.
fn names(name: &str, path: &str) -> bool {
    path == name || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

fn whole(pattern: &str) -> std::result::Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{pattern})$"))
}

fn unreadable(pattern: &str, error: &regex::Error) -> String {
    let reason = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    format!("the pattern {pattern:?} cannot be honoured ({reason})")
}

/// `rank_pattern` and `alpha_pattern`: the first key that matches the path, or its end after a dot, gives the value.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<(String, Regex, f64)>);

impl Patterns {
    /// From its JSON object; null is empty.
    ///
    /// # Errors
    /// `ZA_ADAPTER_CONFIG` for keys that cannot be honoured and values that are no positive numbers.
    pub fn parse(value: &Value, place: &str, field: &str) -> Result<Self> {
        let fail = |field: String, problem: String| {
            Error::adapter(place, &field, problem, "Map names or patterns of projections to positive numbers.")
        };
        let map = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(map) => map,
            other => return Err(fail(field.to_owned(), format!("{other} is not an object"))),
        };
        let entry = |(key, value): (&String, &Value)| {
            let at = format!("{field}.{key}");
            let number = value.as_f64().filter(|number| *number > 0.0 && number.is_finite());
            let number = number.ok_or_else(|| fail(at.clone(), format!("{value} is not a positive number")))?;
            let pattern =
                Regex::new(&format!(r"^(?:.*\.)?(?:{key})$")).map_err(|error| fail(at, unreadable(key, &error)))?;
            Ok((key.clone(), pattern, number))
        };
        Ok(Self(map.iter().map(entry).collect::<Result<_>>()?))
    }

    /// The value for the module of that path.
    pub fn get(&self, path: &str) -> Option<f64> {
        self.0.iter().find(|(_, pattern, _)| pattern.is_match(path)).map(|(_, _, value)| *value)
    }

    /// Keys that match none of these paths.
    pub fn unused(&self, paths: &[String]) -> Option<&str> {
        let used = |pattern: &Regex| paths.iter().any(|path| pattern.is_match(path));
        self.0.iter().find(|(_, pattern, _)| !used(pattern)).map(|(key, _, _)| key.as_str())
    }

    /// All values, with their keys.
    pub fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(key, _, value)| (key.as_str(), *value))
    }
}
