//! The session against TRL's numbers, against itself, and against damage.

mod accumulation;
mod flops;
mod golden;
mod golden_preference;
mod lora;
mod modifiers;
mod optimizer;
mod shared;
mod state;
mod step;

use std::path::PathBuf;

use serde_json::Value;
use zephyr_kernels::norm;
use zephyr_mistral::Weights;

use crate::batch::{Packed, Sequence};
use crate::losses::Denominator;
use crate::session::{Session, SessionOptions, Update};

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
    let sums = session(weights).sequence_logps(weights, &packed_pairs(pairs)).unwrap();
    (sums.iter().step_by(2).copied().collect(), sums.iter().skip(1).step_by(2).copied().collect())
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
