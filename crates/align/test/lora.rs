//! LoRA by DPO: TRL's and PEFT's run step by step, resume with dropout, and what a session of an adapter holds.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use zephyr_mistral::train::Recompute;
use zephyr_mistral::{Adapter, LoraConfig, Model, Storage, Weights, lora};
use zephyr_text::{AnswerEnd, ChatTemplate, EncodeOptions, Message, Tokenizer, encode_pair};

use super::shared::{pair, prompt};
use super::{
    GoldenRun, Row, bits, denominator, golden, golden_pairs, json, models, packed_pairs, relative, session, weights,
};
use crate::batch::Packed;
use crate::checkpoint::{self, Disk, Snapshot, Trained, on_disk};
use crate::losses::LossConfig;
use crate::session::{ReferenceLogps, Session, SessionOptions};

/// The adapter of a golden folder with the values of `file`.
pub(super) fn golden_adapter(folder: &Path, base: &Weights, file: &str) -> Adapter {
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("lora/adapter_config.json"), place.path().join("adapter_config.json")).unwrap();
    std::fs::copy(folder.join("lora").join(file), place.path().join("adapter_model.safetensors")).unwrap();
    lora::load(place.path(), &base.config).unwrap()
}

fn messages(value: &Value) -> Vec<Message> {
    value.as_array().unwrap().iter().map(|message| serde_json::from_value(message.clone()).unwrap()).collect()
}

pub(super) fn tokenizer() -> Option<Tokenizer> {
    let file = std::fs::read(golden("tokenizer")?.join("tokenizer.json")).unwrap();
    Some(Tokenizer::from_json(&file, None).unwrap())
}

/// The pairs of data.json as TRL encodes them.
pub(super) fn run_pairs(folder: &Path, tokenizer: &Tokenizer) -> Vec<[Row; 2]> {
    let options = EncodeOptions { end: AnswerEnd::Turn, ..EncodeOptions::default() };
    let template = ChatTemplate::zephyr();
    let encode = |row: &Value| {
        let [prompt, chosen, rejected] = ["prompt", "chosen", "rejected"].map(|key| messages(&row[key]));
        let pair = encode_pair(tokenizer, &template, &prompt, &chosen, &rejected, &options).unwrap();
        [&pair.chosen_ids, &pair.rejected_ids].map(|answer| {
            let ids = [&pair.prompt_ids[..], answer].concat();
            let supervised = (0..ids.len()).map(|at| at >= pair.prompt_ids.len()).collect();
            Row { ids, supervised }
        })
    };
    json(folder.join("data.json"))["dpo"].as_array().unwrap().iter().map(encode).collect()
}

/// Whatever is computed again, and with one copy of each prompt.
#[test]
fn golden_lora_dpo_follows_trl_step_by_step() {
    for (share, recompute) in [
        (false, Recompute::NormsAndSwiglu),
        (true, Recompute::None),
        (true, Recompute::NormsAndSwiglu),
        (true, Recompute::Layer),
    ] {
        golden_lora_dpo(share, recompute);
    }
}

fn golden_lora_dpo(share: bool, recompute: Recompute) {
    let Some(tokenizer) = tokenizer() else { return };
    for folder in models() {
        let run = GoldenRun::open(&folder, "lora_dpo_run.json");
        let base = weights(folder.join("model.safetensors"));
        let mut adapter = golden_adapter(&folder, &base, "initial.safetensors");
        let before = bits(&base.data);
        let pairs = run_pairs(&folder, &tokenizer);
        let (steps, batch) = (run.count("steps"), run.count("batch"));
        let config = LossConfig { beta: run.number("beta"), ..LossConfig::default() };
        let options = SessionOptions { reference_is_start: true, recompute, ..SessionOptions::default() };
        let mut session = Session::new(&base, options);
        for step in 0..steps {
            let rows: Vec<[Row; 2]> = (0..batch).map(|at| pairs[(step * batch + at) % pairs.len()].clone()).collect();
            let packed = match share {
                true => Packed::pairs(rows.iter().map(|sides| pair(prompt(sides), sides)), true).unwrap(),
                false => packed_pairs(&rows),
            };
            // The reference is the model with its adapter off, over the same layout: rewards of the first step are exactly 0.
            let logps = super::session(&base).sequence_logps(&base, &packed).unwrap();
            let [chosen, rejected] = [0, 1].map(|side| logps.iter().skip(side).step_by(2).copied().collect::<Vec<_>>());
            let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
            let model = Model::adapted(&base, &adapter);
            session.accumulate_dpo(model, &packed, reference, &config, denominator(&rows)).unwrap();
            assert_eq!(session.gradients().unwrap().len(), adapter.layout.len);
            let result = session.apply(&mut adapter, &run.update(step)).unwrap();
            run.check(step, &result);
        }
        assert_eq!(session.step(), steps as u64);
        assert_eq!(bits(&base.data), before, "the base is frozen");
        let last = golden_adapter(&folder, &base, "final.safetensors");
        for tensor in &adapter.layout.tensors {
            let range = tensor.range.clone();
            let error = relative(&adapter.data[range.clone()], &last.data[range]);
            assert!(error <= 1e-3, "{}: {} is off by {error:e}", folder.display(), tensor.name);
        }
    }
}

/// As [`adapter`], away from B = 0, where it changes nothing.
pub(super) fn moved(base: &Weights, dropout: f64) -> Adapter {
    let mut adapter = adapter(base, dropout);
    adapter.data.iter_mut().enumerate().for_each(|(at, value)| *value += ((at * 7919 % 23) as f32 - 11.0) / 200.0);
    adapter
}

pub(super) fn adapter(base: &Weights, dropout: f64) -> Adapter {
    Adapter::new(LoraConfig::from_fields(fields(dropout), "test").unwrap(), &base.config, 3).unwrap()
}

fn fields(dropout: f64) -> Map<String, Value> {
    let Value::Object(fields) = json!({"target_modules": "all-linear", "r": 4, "lora_dropout": dropout}) else {
        panic!()
    };
    fields
}

/// Accumulation with dropout draws another mask in every micro-batch, and the same in a resumed run.
#[test]
fn a_resumed_run_with_dropout_is_the_same_run_bit_for_bit() {
    for folder in models() {
        let base = weights(folder.join("model.safetensors"));
        let pairs = golden_pairs(&json(folder.join("dpo.json")));
        let reference = super::logps(&base, &pairs[..1]);
        let start = Adapter::new(LoraConfig::from_fields(fields(0.3), "test").unwrap(), &base.config, 3).unwrap();
        let new_session = || Session::new(&base, SessionOptions { seed: 9, ..SessionOptions::default() });
        let steps = |session: &mut Session, adapter: &mut Adapter, count: usize| {
            for _ in 0..count {
                let mut losses = Vec::new();
                for _ in 0..2 {
                    let reference = ReferenceLogps { chosen: &reference.0, rejected: &reference.1 };
                    let model = Model::adapted(&base, adapter);
                    let (rows, counts) = (packed_pairs(&pairs[..1]), denominator(&pairs[..1]));
                    losses.push(
                        session.accumulate_dpo(model, &rows, reference, &LossConfig::default(), counts).unwrap().loss,
                    );
                }
                session.apply(&mut *adapter, &super::update(1e-2)).unwrap();
                // The first step's B is zero, so that nothing can be dropped from what it adds.
                assert!(session.step() == 1 || losses[0] != losses[1], "masks differ from micro-batch to micro-batch");
            }
        };
        let place = tempfile::tempdir().unwrap();
        let (mut whole, mut session) = (start.clone(), new_session());
        steps(&mut session, &mut whole, 2);
        let snapshot = Snapshot::of(&session, Trained::Adapter(Arc::new(whole.clone())), 2, String::new());
        on_disk(place.path().to_path_buf(), 2).save(&snapshot.record, &snapshot.sections()).unwrap();
        steps(&mut session, &mut whole, 2);
        let (mut resumed, mut session) = (start.clone(), new_session());
        let saved = checkpoint::newest(&Disk, place.path()).unwrap().newest.unwrap();
        checkpoint::restore(&mut session, &mut resumed, None, &saved, &Disk).unwrap();
        steps(&mut session, &mut resumed, 2);
        assert!(bits(&whole.data) == bits(&resumed.data));
        assert!(bits(&whole.data) != bits(&start.data));
    }
}

#[test]
fn scoring_ignores_dropout_and_a_session_of_an_adapter_is_small() {
    for folder in models() {
        let base = weights(folder.join("model.safetensors"));
        let pairs = golden_pairs(&json(folder.join("dpo.json")));
        let with = |dropout| {
            let config = LoraConfig::from_fields(fields(dropout), "test").unwrap();
            let mut adapter = Adapter::new(config, &base.config, 3).unwrap();
            for pair in adapter.layout.pairs.clone() {
                adapter.data[pair.b].fill(0.02);
            }
            adapter
        };
        let score = |adapter: &Adapter| {
            session(&base).sequence_logps(Model::adapted(&base, adapter), &packed_pairs(&pairs)).unwrap()
        };
        assert_eq!(score(&with(0.0)), score(&with(0.5)));
        assert_ne!(score(&with(0.0)), session(&base).sequence_logps(&base, &packed_pairs(&pairs)).unwrap());

        let mut adapter = with(0.0);
        let mut session = session(&base);
        let rows = packed_pairs(&pairs[..1]);
        session.accumulate_sft(Model::adapted(&base, &adapter), &rows, 10.0).unwrap();
        session.apply(&mut adapter, &super::update(1e-3)).unwrap();
        assert_eq!(session.moments().0.len(), adapter.layout.len);
        assert!(adapter.layout.len < base.layout.len / 4);
    }
}

#[test]
fn frozen_weights_are_refused_without_an_adapter_and_trained_with_one() {
    for folder in models() {
        for storage in [Storage::Bf16, Storage::Nf4] {
            let base = weights(folder.join("model.safetensors")).converted(storage).unwrap();
            let pairs = golden_pairs(&json(folder.join("dpo.json")));
            let rows = packed_pairs(&pairs);
            let mut session = session(&base);
            assert_eq!(session.accumulate_sft(&base, &rows, 10.0).unwrap_err().code(), "ZA_MODEL_FROZEN");
            session.sequence_logps(&base, &rows).unwrap();
            let config = LoraConfig::from_fields(fields(0.0), "test").unwrap();
            let mut adapter = Adapter::new(config, &base.config, 3).unwrap();
            let losses: Vec<f64> = (0..6)
                .map(|_| {
                    let loss = session.accumulate_sft(Model::adapted(&base, &adapter), &rows, 100.0).unwrap().loss;
                    session.apply(&mut adapter, &super::update(1e-2)).unwrap();
                    loss
                })
                .collect();
            assert!(losses[5] < losses[0], "{losses:?}");
        }
    }
}
