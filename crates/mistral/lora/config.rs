//! `adapter_config.json` of PEFT's LoRA.

use serde_json::{Map, Value, json};

use super::target::{Patterns, Targets};
use crate::error::{Error, Result};

/// A checked configuration. All fields of the file are kept, and written again when the adapter is saved.
#[derive(Clone, Debug)]
pub struct LoraConfig {
    /// `r`, where no pattern says otherwise.
    pub rank: usize,
    /// `lora_alpha`, where no pattern says otherwise.
    pub alpha: f64,
    /// `lora_dropout`: probability that a value of an adapter's input is dropped in training.
    pub dropout: f64,
    /// `use_rslora`: scale by alpha/√r (Kalajdzievski 2023) instead of alpha/r.
    pub rank_stabilised: bool,
    pub(super) targets: Targets,
    pub(super) exclude: Option<Targets>,
    pub(super) ranks: Patterns,
    pub(super) alphas: Patterns,
    /// As they stand in the file.
    fields: Map<String, Value>,
}

/// Above the width of any model, where a pair of factors saves nothing.
const MAX_RANK: usize = 1 << 16;

/// What PEFT 0.21 writes for a plain LoRA of a causal model.
const PEFT: &str = include_str!("adapter_config.json");

/// Fields that are read above, or that change nothing of what is computed here.
const KNOWN: [&str; 23] = [
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "peft_version",
    "task_type",
    "megatron_core",
    "qalora_group_size",
    "ensure_weight_tying",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "loftq_config",
    "runtime_config",
    // The dictionary of a configuration that PEFT has in memory carries it; files do not.
    "peft_config",
];

/// Ways to initialise after which the base weights are those of the checkpoint; others (pissa, olora, …) change them.
const INITIAL: [&str; 4] = ["gaussian", "orthogonal", "eva", "default"];

impl LoraConfig {
    /// A configuration from some of PEFT's fields; the rest are PEFT's defaults.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_fields(fields: Map<String, Value>, place: &str) -> Result<Self> {
        let Value::Object(mut all) = serde_json::from_str(PEFT).unwrap_or_default() else { unreachable!("an object") };
        all.extend(fields);
        Self::from_map(all, place)
    }

    /// Reads the text of an `adapter_config.json`; `place` names it in messages.
    ///
    /// # Errors
    /// `ZA_ADAPTER_CONFIG`: not JSON, a field of wrong type or value, a field that asks for what is not implemented.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Self::from_map(fields, place),
            Ok(_) => Err(Error::adapter(place, "", "this is not a JSON object", "Give the config of a LoRA adapter.")),
            Err(error) => {
                let problem = format!("this is not JSON ({error})");
                Err(Error::adapter(place, "", problem, "Download or save the adapter again."))
            }
        }
    }

    fn from_map(fields: Map<String, Value>, place: &str) -> Result<Self> {
        refuse_unsupported(&fields, place)?;
        let fail = |field: &str, problem: String, remedy: &str| Error::adapter(place, field, problem, remedy);
        let get = |name: &str| fields.get(name).unwrap_or(&Value::Null);
        let number = |name: &str, initial: f64| match get(name) {
            Value::Null => Ok(initial),
            value => value
                .as_f64()
                .filter(|number| number.is_finite())
                .ok_or_else(|| fail(name, format!("{value} is not a number"), "Give a number.")),
        };
        let rank = number("r", 8.0)?;
        let alpha = number("lora_alpha", 8.0)?;
        let dropout = number("lora_dropout", 0.0)?;
        if alpha <= 0.0 {
            return Err(fail("lora_alpha", format!("it is {alpha}"), "Give a number above 0, for example 2·r."));
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(fail("lora_dropout", format!("it is {dropout}"), "Give a number from 0 to below 1."));
        }
        let exclude = match get("exclude_modules") {
            Value::Null => None,
            Value::Array(list) if list.is_empty() => None,
            value => Some(Targets::parse(value, place, "exclude_modules")?),
        };
        let config = Self {
            rank: whole_rank(rank, place, "r")?,
            alpha,
            dropout,
            rank_stabilised: flag(get("use_rslora"), place, "use_rslora")?,
            targets: Targets::parse(get("target_modules"), place, "target_modules")?,
            exclude,
            ranks: Patterns::parse(get("rank_pattern"), place, "rank_pattern")?,
            alphas: Patterns::parse(get("alpha_pattern"), place, "alpha_pattern")?,
            fields,
        };
        for (key, rank) in config.ranks.values() {
            whole_rank(rank, place, &format!("rank_pattern.{key}"))?;
        }
        Ok(config)
    }

    /// The rank of the projection of that path.
    pub fn rank_of(&self, path: &str) -> usize {
        self.ranks.get(path).map_or(self.rank, |rank| rank as usize)
    }

    /// What `B·A` is multiplied by in the projection of that path: alpha/r, or alpha/√r when rank-stabilised.
    pub fn scale_of(&self, path: &str) -> f64 {
        let (rank, alpha) = (self.rank_of(path) as f64, self.alphas.get(path).unwrap_or(self.alpha));
        alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// Whether the projection of that path is adapted.
    pub fn adapts(&self, path: &str) -> bool {
        self.targets.contain(path) && !self.exclude.as_ref().is_some_and(|exclude| exclude.contain(path))
    }

    /// `base_model_name_or_path`.
    pub fn base(&self) -> Option<&str> {
        self.fields.get("base_model_name_or_path").and_then(Value::as_str)
    }

    /// All fields for `adapter_config.json`, sorted as PEFT does; with `base` the name of the base model.
    pub fn to_json(&self, base: Option<&str>) -> Value {
        let mut fields = self.fields.clone();
        if let Some(base) = base {
            fields.insert("base_model_name_or_path".to_owned(), json!(base));
        }
        // PEFT sets it when it saves.
        fields.insert("inference_mode".to_owned(), json!(true));
        fields.sort_keys();
        Value::Object(fields)
    }
}

/// A whole number from 1 to [`MAX_RANK`].
fn whole_rank(rank: f64, place: &str, field: &str) -> Result<usize> {
    if rank >= 1.0 && rank.fract() == 0.0 && rank <= MAX_RANK as f64 {
        return Ok(rank as usize);
    }
    let remedy = format!("Give a whole number from 1 to {MAX_RANK}, for example 16.");
    Err(Error::adapter(place, field, format!("the rank is {rank}"), remedy))
}

fn flag(value: &Value, place: &str, field: &str) -> Result<bool> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        other => Err(Error::adapter(place, field, format!("{other} is neither true nor false"), "Give true or false.")),
    }
}

/// Refuses what changes the arithmetic and is not implemented, known today or not.
fn refuse_unsupported(fields: &Map<String, Value>, place: &str) -> Result<()> {
    const TRAIN: &str = "Use an adapter of plain LoRA, or merge this one into its base with PEFT.";
    for (name, value) in fields {
        let neutral = match (name.as_str(), value) {
            ("peft_type", value) => value == "LORA",
            ("bias", value) => value == "none",
            ("init_lora_weights", Value::String(kind)) => INITIAL.contains(&kind.as_str()),
            ("init_lora_weights", Value::Bool(_)) => true,
            (known, _) if KNOWN.contains(&known) => true,
            (_, Value::Null | Value::Bool(false)) => true,
            (_, Value::Array(list)) => list.is_empty(),
            (_, Value::Object(map)) => map.is_empty(),
            _ => false,
        };
        if !neutral {
            return Err(Error::adapter(place, name, format!("{value} is not supported"), TRAIN));
        }
    }
    match fields.get("peft_type") {
        Some(_) => Ok(()),
        None => Err(Error::adapter(place, "peft_type", "it is missing", "Give the config of a LoRA adapter.")),
    }
}
