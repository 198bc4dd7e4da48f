//! transformers' numbers of one batch, and TRL's runs, on a device.

use std::path::Path;

use serde_json::{Map, json};
use zephyr_mistral::weights::read_safetensors;

use super::super::lora::{golden_adapter, run_pairs, tokenizer};
use super::super::{GoldenRun, numbers};
use super::*;
use crate::batch::sides;

/// The rows of a step.
fn batch<R: Clone>(rows: &[R], step: usize, count: usize) -> Vec<R> {
    (0..count).map(|at| rows[(step * count + at) % rows.len()].clone()).collect()
}

/// TRL's DPO run on a device with a reference of its own, and on after its last step with no rate left; the losses, and the
/// weights at the end. In f32 every step that TRL made is TRL's.
fn dpo_run(folder: &Path, pairs: &[[Row; 2]], precision: Precision, steps: usize) -> Option<(Vec<f64>, Vec<f32>)> {
    let run = GoldenRun::open(folder, "dpo_run.json");
    let device = device()?;
    let mut policy = weights(folder.join("model.safetensors"));
    let reference = weights(folder.join("ref.safetensors"));
    let new = || on(device.clone(), precision, SessionOptions::default());
    let (mut session, mut of_reference) = (new(), new());
    let config = LossConfig { beta: run.number("beta"), ..LossConfig::default() };
    let mut losses = Vec::new();
    for step in 0..steps {
        let rows = batch(pairs, step, run.count("batch"));
        let packed = packed_pairs(&rows);
        let (chosen, rejected) = sides(&of_reference.sequence_logps(&reference, &packed).unwrap());
        let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
        losses.push(session.accumulate_dpo(&policy, &packed, reference, &config, denominator(&rows)).unwrap().loss);
        // TRL's rates end at 0: what comes after is as fast as its middle.
        let recorded = step < run.count("steps");
        let rates = if recorded { run.update(step) } else { run.update(run.count("steps") / 2) };
        let result = session.apply(&mut policy, &rates).unwrap();
        if recorded && precision == Precision::F32 {
            run.check(step, &result);
        }
    }
    session.fetch(&mut policy).unwrap();
    Some((losses, policy.data))
}

#[test]
fn golden_dpo_on_a_device_follows_trl_and_is_the_same_twice() {
    let Some(tokenizer) = tokenizer() else { return };
    for folder in models() {
        let pairs = run_pairs(&folder, &tokenizer);
        let steps = GoldenRun::open(&folder, "dpo_run.json").count("steps");
        let run = || dpo_run(&folder, &pairs, Precision::F32, steps);
        let Some((_, first)) = run() else { return };
        if folder.ends_with("window") {
            assert!(bits(&first) == bits(&run().unwrap().1), "two runs differ");
        }
    }
}

/// Fifty steps on a card; a few on the emulation, which takes seconds for one. What a card did is written to the file that
/// ZEPHYR_REPORT names.
#[test]
#[ignore = "npm run test:cuda-emulated"]
fn a_long_dpo_run_on_a_device_is_the_same_bits_twice() {
    let steps = if cfg!(feature = "card") { 50 } else { 3 };
    let Some(tokenizer) = tokenizer() else { return };
    let mut report = Map::new();
    for folder in models() {
        let pairs = run_pairs(&folder, &tokenizer);
        for precision in [Precision::F32, Precision::Bf16] {
            let run = || dpo_run(&folder, &pairs, precision, steps);
            let Some((losses, first)) = run() else { return };
            let (again, second) = run().unwrap();
            assert!(bits(&first) == bits(&second) && losses == again, "two runs differ");
            assert!(steps < 50 || losses[49] < 0.5 * losses[0], "{losses:?}");
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            report.insert(format!("{name}, {}", precision.name()), json!(losses));
        }
    }
    if let Some(file) = std::env::var_os("ZEPHYR_REPORT") {
        let device = device().unwrap().name();
        let text = json!({ "device": device, "steps": steps, "identical_twice": true, "losses": report });
        std::fs::write(file, text.to_string()).unwrap();
    }
}

#[test]
#[ignore = "npm run test:cuda-emulated"]
fn golden_sft_on_a_device_follows_trl() {
    for folder in models() {
        let run = GoldenRun::open(&folder, "sft_run.json");
        let Some(device) = device() else { return };
        let mut model = weights(folder.join("model.safetensors"));
        let rows: Vec<Row> = run.record["input_ids"].as_array().unwrap().iter().map(numbers).map(whole).collect();
        let (size, accumulation) = (run.count("batch"), run.count("grad_accum"));
        let mut session = in_f32(device.clone());
        for step in 0..run.count("steps") {
            let rows = batch(&rows, step, size * accumulation);
            let tokens = f64::from(packed(&rows).predicted.iter().sum::<u32>());
            for rows in rows.chunks(size) {
                session.accumulate_sft(&model, &packed(rows), tokens).unwrap();
            }
            run.check(step, &session.apply(&mut model, &run.update(step)).unwrap());
        }
        let mut found = model.clone();
        assert!(session.is_ahead() && bits(&found.data) == bits(&model.data));
        session.fetch(&mut found).unwrap();
        assert!(!session.is_ahead() && relative(&found.data, &model.data) > 1e-3);
    }
}

/// transformers' batch: log-probabilities, loss and every gradient. In f32 they are its own, in bf16 as near as eight bits are.
#[test]
fn golden_forward_and_backward_on_a_device_are_those_of_transformers() {
    for folder in models() {
        let golden = read_safetensors(&folder.join("forward.safetensors")).unwrap();
        let columns = golden.find("input_ids").unwrap().shape[1];
        let integers = |name: &str| -> Vec<i64> {
            let bytes = golden.bytes(name).unwrap();
            bytes.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect()
        };
        let (ids, kept, supervised) = (integers("input_ids"), integers("attention_mask"), integers("completion_mask"));
        let rows: Vec<Row> = (0..ids.len() / columns)
            .map(|row| {
                let places = (row * columns..(row + 1) * columns).filter(|&at| kept[at] == 1);
                let (ids, supervised) = places.map(|at| (ids[at] as u32, supervised[at] == 1)).unzip();
                Row { ids, supervised }
            })
            .collect();
        let sums = golden.floats("per_token_logps").unwrap();
        let sums: Vec<f64> =
            sums.chunks(columns - 1).map(|row| row.iter().map(|&logp| f64::from(logp)).sum()).collect();
        let loss = f64::from(golden.floats("loss").unwrap()[0]);
        let model = weights(folder.join("model.safetensors"));
        let packed = packed(&rows);
        let tokens = f64::from(packed.predicted.iter().sum::<u32>());
        for (precision, within, gradients_within) in [(Precision::F32, 1e-5, 1e-4), (Precision::Bf16, 1e-2, 5e-2)] {
            let Some(device) = device() else { return };
            let mut session = on(device, precision, SessionOptions::default());
            for (found, expected) in session.sequence_logps(&model, &packed).unwrap().iter().zip(&sums) {
                assert!((found - expected).abs() < within * expected.abs(), "{precision:?}: {found} for {expected}");
            }
            let found = session.accumulate_sft(&model, &packed, tokens).unwrap().loss;
            assert!((found - loss).abs() < within * loss, "{precision:?}: a loss of {found} for {loss}");
            let gradients = session.gradients().unwrap();
            for tensor in &model.layout.tensors {
                let expected = golden.floats(&format!("grad.{}", tensor.name)).unwrap();
                let error = relative(&gradients[tensor.range.clone()], &expected);
                assert!(error < gradients_within, "{precision:?}: the gradient of {} is off by {error}", tensor.name);
            }
        }
    }
}

/// A document of which every token is learnt.
fn whole(ids: Vec<u32>) -> Row {
    Row { supervised: vec![true; ids.len()], ids }
}

/// The reference is the same session's model with its adapter off: there is no second copy of the base.
#[test]
fn golden_lora_dpo_on_a_device_follows_trl() {
    let Some(tokenizer) = tokenizer() else { return };
    for folder in models() {
        let run = GoldenRun::open(&folder, "lora_dpo_run.json");
        let Some(device) = device() else { return };
        let base = weights(folder.join("model.safetensors"));
        let mut adapter = golden_adapter(&folder, &base, "initial.safetensors");
        let pairs = run_pairs(&folder, &tokenizer);
        let config = LossConfig { beta: run.number("beta"), ..LossConfig::default() };
        let options = SessionOptions { reference_is_start: true, ..SessionOptions::default() };
        let mut session = on(device.clone(), Precision::F32, options);
        for step in 0..run.count("steps") {
            let rows = batch(&pairs, step, run.count("batch"));
            let packed = packed_pairs(&rows);
            let (chosen, rejected) = sides(&session.sequence_logps(&base, &packed).unwrap());
            let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
            let model = Model::adapted(&base, &adapter);
            session.accumulate_dpo(model, &packed, reference, &config, denominator(&rows)).unwrap();
            run.check(step, &session.apply(&mut adapter, &run.update(step)).unwrap());
        }
        session.fetch(&mut adapter).unwrap();
        let last = golden_adapter(&folder, &base, "final.safetensors");
        for tensor in &adapter.layout.tensors {
            let range = tensor.range.clone();
            let error = relative(&adapter.data[range.clone()], &last.data[range]);
            assert!(error <= 1e-3, "{}: {} is off by {error:e}", folder.display(), tensor.name);
        }
    }
}
