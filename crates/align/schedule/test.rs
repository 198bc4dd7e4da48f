use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;

fn schedule(kind: ScheduleKind, warmup: u64, total: u64) -> Schedule {
    Schedule::new(kind, 2.0, Warmup::Steps(warmup), total).unwrap()
}

fn rates(schedule: &Schedule, steps: std::ops::Range<u64>) -> Vec<f64> {
    steps.map(|step| schedule.lr(step)).collect()
}

#[test]
fn shapes_by_hand() {
    assert_eq!(rates(&schedule(ScheduleKind::Constant, 0, 3), 0..4), [2.0; 4]);
    assert_eq!(rates(&schedule(ScheduleKind::ConstantWithWarmup, 2, 3), 0..4), [0.0, 1.0, 2.0, 2.0]);
    assert_eq!(rates(&schedule(ScheduleKind::Linear, 2, 6), 0..7), [0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0]);
    let cosine = rates(&schedule(ScheduleKind::Cosine, 1, 5), 0..7);
    let root = std::f64::consts::FRAC_1_SQRT_2;
    for (got, want) in cosine.iter().zip([0.0, 2.0, 1.0 + root, 1.0, 1.0 - root, 0.0, 0.0]) {
        assert!((got - want).abs() < 1e-15, "{cosine:?}");
    }
}

#[test]
fn warmup_of_the_whole_run_and_one_step_runs() {
    assert_eq!(rates(&schedule(ScheduleKind::Linear, 2, 2), 0..3), [0.0, 1.0, 0.0]);
    assert_eq!(schedule(ScheduleKind::Cosine, 0, 1).lr(0), 2.0);
    assert_eq!(schedule(ScheduleKind::Linear, 0, 1).lr(0), 2.0);
}

#[test]
fn ratio_rounds_up() {
    let warmup = |ratio, total| Schedule::new(ScheduleKind::Cosine, 1.0, Warmup::Ratio(ratio), total);
    assert_eq!(warmup(0.1, 12).unwrap().warmup_steps(), 2);
    assert_eq!(warmup(0.1, 10).unwrap().warmup_steps(), 1);
    assert_eq!(warmup(0.0, 10).unwrap().warmup_steps(), 0);
    assert_eq!(warmup(1.0, 10).unwrap().warmup_steps(), 10);
}

#[test]
fn bad_values_are_named() {
    let build = |rate, warmup, total| Schedule::new(ScheduleKind::Linear, rate, warmup, total).unwrap_err();
    assert_eq!(build(-1.0, Warmup::Steps(0), 4), ScheduleError::LearningRate(-1.0));
    assert!(matches!(build(f64::NAN, Warmup::Steps(0), 4), ScheduleError::LearningRate(rate) if rate.is_nan()));
    assert!(matches!(build(f64::INFINITY, Warmup::Steps(0), 4), ScheduleError::LearningRate(_)));
    assert_eq!(build(1.0, Warmup::Ratio(1.5), 4), ScheduleError::WarmupRatio(1.5));
    assert!(matches!(build(1.0, Warmup::Ratio(f64::NAN), 4), ScheduleError::WarmupRatio(_)));
    assert_eq!(build(1.0, Warmup::Steps(0), 0), ScheduleError::NoSteps);
    let long = build(1.0, Warmup::Steps(5), 4);
    assert_eq!(long, ScheduleError::WarmupLongerThanRun { warmup: 5, total: 4 });
    assert!(long.to_string().contains("5 steps") && long.to_string().contains("run of 4"));
    let constant = Schedule::new(ScheduleKind::Constant, 1.0, Warmup::Steps(1), 4);
    assert_eq!(constant.unwrap_err(), ScheduleError::WarmupOfConstant(1));
}

fn golden(file: &str) -> Option<serde_json::Value> {
    let folder = std::env::var_os("ZEPHYR_GOLDEN")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden")), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
        eprintln!("SKIPPED: {} is missing; set ZEPHYR_GOLDEN", folder.join(file).display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn golden_runs_log_these_rates() {
    let files = ["sft_run.json", "dpo_run.json", "lora_dpo_run.json"];
    for file in ["window", "headdim"].iter().flat_map(|folder| files.map(|file| format!("{folder}/{file}"))) {
        let Some(run) = golden(&file) else { continue };
        let args = &run["args"];
        let kind: ScheduleKind = serde_json::from_value(args["scheduler"].clone()).unwrap();
        let total = args["steps"].as_u64().unwrap();
        let warmup = Warmup::Steps(args["warmup_steps"].as_u64().unwrap());
        let schedule = Schedule::new(kind, args["lr"].as_f64().unwrap(), warmup, total).unwrap();
        let log = run["log"].as_array().unwrap();
        assert_eq!(log.len() as u64, total);
        for entry in log {
            let want = entry["learning_rate"].as_f64().unwrap();
            let got = schedule.lr(entry["step"].as_u64().unwrap() - 1);
            assert!((got - want).abs() <= 1e-12 * want, "{file}: {got} for {want}");
        }
    }
}

/// The rates of every kind by transformers itself: `(kind, warm-up, total, options)` in, one row of rates out.
const TRANSFORMERS: &str = r#"
import json, sys, torch
from transformers.optimization import get_scheduler
out = []
for kind, warmup, total, kwargs in json.load(sys.stdin):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=total,
                             scheduler_specific_kwargs=kwargs)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    out.append(rates)
print(json.dumps(out))
"#;

/// A case: the kind by name, warm-up, total, transformers' options, ours.
type Case = (&'static str, u64, u64, serde_json::Value, ScheduleOptions);

fn cases() -> Vec<Case> {
    use serde_json::json;
    let none = ScheduleOptions::default();
    let wsd = |decay_steps| ScheduleOptions { decay_steps: Some(decay_steps), ..none };
    vec![
        ("constant_with_warmup", 3, 11, json!({}), none),
        ("linear", 3, 11, json!({}), none),
        ("cosine", 3, 11, json!({}), none),
        ("cosine_with_min_lr", 3, 11, json!({"min_lr": 0.004}), ScheduleOptions { min_lr: Some(0.004), ..none }),
        ("cosine_with_min_lr", 0, 7, json!({"min_lr_rate": 0.1}), ScheduleOptions { min_lr_rate: Some(0.1), ..none }),
        ("inverse_sqrt", 4, 30, json!({}), none),
        ("inverse_sqrt", 0, 5, json!({}), none),
        ("warmup_stable_decay", 3, 12, json!({"num_decay_steps": 4}), wsd(4)),
        (
            "warmup_stable_decay",
            4,
            13,
            json!({"num_decay_steps": 5, "warmup_type": "cosine", "decay_type": "1-sqrt", "min_lr_ratio": 0.2}),
            ScheduleOptions {
                warmup_type: Some(Ramp::Cosine),
                decay_type: Some(Ramp::OneMinusSqrt),
                min_lr_rate: Some(0.2),
                ..wsd(5)
            },
        ),
        (
            "warmup_stable_decay",
            4,
            9,
            json!({"num_decay_steps": 5, "warmup_type": "1-sqrt", "decay_type": "linear"}),
            ScheduleOptions { warmup_type: Some(Ramp::OneMinusSqrt), decay_type: Some(Ramp::Linear), ..wsd(5) },
        ),
        ("polynomial", 2, 9, json!({}), none),
        (
            "polynomial",
            2,
            9,
            json!({"lr_end": 0.001, "power": 2.0}),
            ScheduleOptions { min_lr: Some(0.001), power: Some(2.0), ..none },
        ),
    ]
}

fn of_case((kind, warmup, total, _, options): &Case) -> Schedule {
    let kind: ScheduleKind = serde_json::from_value(serde_json::Value::String((*kind).to_owned())).unwrap();
    Schedule::with_options(kind, 0.02, Warmup::Steps(*warmup), *total, *options).unwrap()
}

#[test]
fn every_kind_is_that_of_transformers() {
    let python = std::env::var_os("ZEPHYR_PEER_PYTHON").unwrap_or_else(|| "/tmp/peer/bin/python".into());
    let there = Command::new(&python).args(["-c", "import transformers"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {python:?} has no transformers; set ZEPHYR_PEER_PYTHON");
        return;
    }
    let asked: Vec<_> = cases()
        .into_iter()
        .map(|(kind, warmup, total, theirs, _)| serde_json::json!([kind, warmup, total, theirs]))
        .collect();
    let mut child =
        Command::new(&python).args(["-c", TRANSFORMERS]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(serde_json::to_string(&asked).unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: Vec<Vec<f64>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(expected.len(), cases().len());
    for (case, expected) in cases().iter().zip(expected) {
        let found = rates(&of_case(case), 0..case.2);
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() <= 1e-12, "{case:?} step {step}: {found} for {expected}");
        }
    }
}

/// A few of those numbers by hand, for a machine without Python.
#[test]
fn new_kinds_by_hand() {
    let at = |index: usize, step| of_case(&cases()[index]).lr(step) / 0.02;
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    // A fifth of the rate at the end, 0.6 in the middle of the half cosine (warm-up 3 + 8 / 2 = 7).
    near(at(3, 7), 0.6);
    near(at(3, 11), 0.2);
    // T = 4: 1/√(8/4) at step 8; T = 10 000 without a warm-up.
    near(at(5, 8), std::f64::consts::FRAC_1_SQRT_2);
    near(at(6, 4), 1.0 / (1.0004f64).sqrt());
    // Warm-up of 3, stable up to step 8 of 12, then a half cosine to 0.
    assert_eq!([0, 3, 7, 8].map(|step| at(7, step)), [0.0, 1.0, 1.0, 1.0]);
    near(at(7, 10), 0.5);
    assert_eq!(at(7, 12), 0.0);
    // From a fifth, and down again: 1 − √(1/5) of the four fifths after one of five steps.
    near(at(8, 0), 0.2);
    near(at(8, 9), 0.8 * (1.0 - 0.2f64.sqrt()) + 0.2);
    assert_eq!(at(8, 13), 0.2);
    // A parabola from 0.02 to 0.001.
    near(at(11, 2 + 7 / 2), (1.0 - 3.0 / 7.0f64).powi(2) * 0.95 + 0.05);
}

#[test]
fn options_that_do_not_fit_are_named() {
    let build =
        |kind, options| Schedule::with_options(kind, 0.02, Warmup::Steps(2), 10, options).unwrap_err().to_string();
    let none = ScheduleOptions::default();
    let refused = build(ScheduleKind::Cosine, ScheduleOptions { min_lr: Some(0.0), ..none });
    assert!(refused.contains("cosine") && refused.contains("minLr"), "{refused}");
    assert!(build(ScheduleKind::CosineWithMinLr, none).contains("needs minLr"));
    let both = ScheduleOptions { min_lr: Some(0.0), min_lr_rate: Some(0.1), ..none };
    assert!(build(ScheduleKind::CosineWithMinLr, both).contains("either"));
    assert!(
        build(ScheduleKind::CosineWithMinLr, ScheduleOptions { min_lr: Some(0.5), ..none }).contains("minLr is 0.5")
    );
    assert!(build(ScheduleKind::WarmupStableDecay, none).contains("needs decaySteps"));
    let long = build(ScheduleKind::WarmupStableDecay, ScheduleOptions { decay_steps: Some(9), ..none });
    assert!(long.contains("warm-up of 2") && long.contains("decay of 9"), "{long}");
    assert!(build(ScheduleKind::Polynomial, ScheduleOptions { power: Some(0.0), ..none }).contains("power"));
}
