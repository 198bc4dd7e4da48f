//! The session against TRL's numbers, against itself, and against damage.

mod accumulation;
mod device;
mod flops;
mod golden;
mod golden_preference;
mod lora;
mod modifiers;
mod optimizer;
mod padded;
mod shared;
mod state;
mod step;

use std::path::PathBuf;

use serde_json::Value;
use zephyr_kernels::norm;
use zephyr_mistral::Weights;

use crate::batch::{Packed, Sequence, sides};
use crate::losses::Denominator;
use crate::schedule::{Schedule, Warmup};
use crate::session::{Session, SessionOptions, StepResult, Sums, Update};

/// A document with its mask, owned.
#[derive(Clone)]
pub struct Row {
    pub ids: Vec<u32>,
    pub supervised: Vec<bool>,
}

impl Row {
    fn sequence(&self) -> Sequence<'_> {
        Sequence { ids: &self.ids, supervised: &self.supervised }
    }
}

/// A folder of golden vectors, or a loud skip.
fn golden(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ZEPHYR_GOLDEN")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden")), PathBuf::from);
    let folder = root.join(name);
    if folder.exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: {} is missing; set ZEPHYR_GOLDEN", folder.display());
    None
}

/// The golden folders that hold a model.
pub(crate) fn models() -> Vec<PathBuf> {
    ["window", "headdim"].into_iter().filter_map(golden).collect()
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn weights(path: PathBuf) -> Weights {
    zephyr_mistral::weights::load(&path).unwrap().weights
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as u32).collect()
}

/// The pairs of `dpo.json` without their padding: `[chosen, rejected]` each.
fn golden_pairs(dpo: &Value) -> Vec<[Row; 2]> {
    let column = |name: &str| -> Vec<Vec<u32>> { dpo["batch"][name].as_array().unwrap().iter().map(numbers).collect() };
    let (ids, attention, completion) = (column("input_ids"), column("attention_mask"), column("completion_mask"));
    let rows: Vec<Row> = (0..ids.len())
        .map(|row| {
            let length = attention[row].iter().filter(|&&seen| seen == 1).count();
            assert!(attention[row][..length].iter().all(|&seen| seen == 1), "row {row} is padded on the right");
            Row {
                ids: ids[row][..length].to_vec(),
                supervised: completion[row][..length].iter().map(|&learnt| learnt == 1).collect(),
            }
        })
        .collect();
    let (chosen, rejected) = rows.split_at(rows.len() / 2);
    chosen.iter().cloned().zip(rejected.iter().cloned()).map(|(chosen, rejected)| [chosen, rejected]).collect()
}

/// Eight pairs of different lengths, made of the golden four: each chosen answer against its own and the next rejected.
fn eight_pairs(dpo: &Value) -> Vec<[Row; 2]> {
    let pairs = golden_pairs(dpo);
    let other = |at: usize| pairs[(at + 1) % pairs.len()][1].clone();
    let crossed: Vec<[Row; 2]> = pairs.iter().enumerate().map(|(at, pair)| [pair[0].clone(), other(at)]).collect();
    let all: Vec<[Row; 2]> = pairs.iter().cloned().chain(crossed).collect();
    assert!(all.len() >= 8);
    all[..8].to_vec()
}

/// Eight documents of the SFT run, each supervised from another place on.
fn documents(folder: &std::path::Path) -> Vec<Row> {
    let run = json(folder.join("sft_run.json"));
    let rows: Vec<Row> = run["input_ids"].as_array().unwrap()[..8]
        .iter()
        .enumerate()
        .map(|(index, ids)| {
            let ids = numbers(ids);
            let supervised = (0..ids.len()).map(|at| at > (index * 5) % (ids.len() / 2)).collect();
            Row { ids, supervised }
        })
        .collect();
    assert_eq!(rows.len(), 8);
    rows
}

fn packed(rows: &[Row]) -> Packed {
    Packed::new(rows.iter().map(Row::sequence)).unwrap()
}

fn packed_pairs(pairs: &[[Row; 2]]) -> Packed {
    Packed::new(pairs.iter().flatten().map(Row::sequence)).unwrap()
}

/// Counts of a whole step of these pairs.
fn denominator(pairs: &[[Row; 2]]) -> Denominator {
    let chosen = packed_pairs(pairs).predicted.iter().step_by(2).map(|&count| f64::from(count)).sum();
    Denominator { pairs: pairs.len() as f64, chosen_tokens: chosen }
}

/// Log-prob sums, `(chosen, rejected)`.
fn logps(weights: &Weights, pairs: &[[Row; 2]]) -> (Vec<f64>, Vec<f64>) {
    sides(&session(weights).sequence_logps(weights, &packed_pairs(pairs)).unwrap())
}

fn session(weights: &Weights) -> Session {
    Session::new(weights, SessionOptions::default())
}

fn update(learning_rate: f64) -> Update {
    Update { learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: Some(1.0) }
}

fn norm_of(values: &[f32]) -> f64 {
    norm::sum_of_squares(values).sqrt()
}

/// `‖found − expected‖ / ‖expected‖`.
fn relative(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let difference: Vec<f32> = found.iter().zip(expected).map(|(found, expected)| found - expected).collect();
    norm_of(&difference) / norm_of(expected)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A run of TRL: its arguments and the log of every step.
struct GoldenRun {
    record: Value,
    what: String,
}

impl GoldenRun {
    fn open(folder: &std::path::Path, file: &str) -> Self {
        let path = folder.join(file);
        Self { what: path.display().to_string(), record: json(path) }
    }

    fn number(&self, name: &str) -> f64 {
        self.record["args"][name].as_f64().unwrap_or_else(|| panic!("{}: no argument {name}", self.what))
    }

    fn count(&self, name: &str) -> usize {
        self.number(name) as usize
    }

    /// Of the step with this 0-based index.
    fn update(&self, step: usize) -> Update {
        let kind = serde_json::from_value(self.record["args"]["scheduler"].clone()).unwrap();
        let warmup = Warmup::Steps(self.number("warmup_steps") as u64);
        let schedule = Schedule::new(kind, self.number("lr"), warmup, self.number("steps") as u64).unwrap();
        Update { weight_decay: self.number("weight_decay"), ..update(schedule.lr(step as u64)) }
    }

    /// What a step did is what TRL logs: 1e-4 in the first step, 1e-3 in the last.
    fn check(&self, step: usize, result: &StepResult) {
        let (mut found, loss) = match result.sums {
            Sums::Sft(sums) => (serde_json::to_value(sums.means()).unwrap(), sums.loss),
            Sums::Dpo(sums) => (serde_json::to_value(sums.means()).unwrap(), sums.loss),
            _ => panic!("SFT or DPO was accumulated"),
        };
        found["loss"] = loss.into();
        found["grad_norm"] = result.grad_norm.into();
        found["num_tokens"] = result.tokens_seen.into();
        found["learning_rate"] = self.update(step).learning_rate.into();
        let within = 1e-4 + 9e-4 * step as f64 / (self.number("steps") - 1.0);
        // Over several micro-batches TRL takes the mean of their means, and here each token counts the same.
        let accumulated = self.record["args"]["grad_accum"].as_f64().is_some_and(|count| count > 1.0);
        let apart = |key: &str| key == "step" || (accumulated && ["entropy", "mean_token_accuracy"].contains(&key));
        for (key, expected) in self.record["log"][step].as_object().unwrap().iter().filter(|(key, _)| !apart(key)) {
            let (found, expected) = (found[key].as_f64().unwrap(), expected.as_f64().unwrap());
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error <= within, "{}: step {} {key}: {found} for {expected}", self.what, step + 1);
        }
    }
}
