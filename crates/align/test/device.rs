//! Sessions on a device (the emulation): TRL's runs ([`golden`]), the host's numbers, memory, and what is refused.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use zephyr_emulator::{Emulated, Watch};
use zephyr_kernels::cuda::{Device, Free};
use zephyr_mistral::train::Recompute;
use zephyr_mistral::{Config, Layout, Model, Storage, Weights};

use super::lora::{adapter, moved};
use super::{
    Row, bits, denominator, documents, golden_pairs, json, logps, models, packed, packed_pairs, relative, update,
    weights,
};
use crate::batch::Packed;
use crate::checkpoint::{self, Disk, Snapshot, Trained, on_disk};
use crate::losses::LossConfig;
use crate::session::{
    EmbeddingNoise, MemoryPlan, OptimizerKind, Precision, ReferenceLogps, Session, SessionOptions, Work,
};

mod answers;
mod golden;
mod heads;
mod nf4;
mod waits;

fn emulated() -> Option<Arc<Emulated>> {
    Emulated::new(Watch::Off, 0)
}

/// Where tests named `on_a_device` run: on the emulation, or with the feature `card` (bench/gpu) on the first card that can be
/// used.
#[cfg(not(feature = "card"))]
fn device() -> Option<Arc<dyn Device>> {
    Some(emulated()?)
}

#[cfg(feature = "card")]
fn device() -> Option<Arc<dyn Device>> {
    static CARD: std::sync::LazyLock<Arc<dyn Device>> = std::sync::LazyLock::new(|| {
        let card = zephyr_devices::first_card().unwrap_or_else(|refusal| panic!("{refusal}"));
        zephyr_kernels::cuda::open(card.index).unwrap_or_else(|error| panic!("{error}"))
    });
    Some(CARD.clone())
}

/// A session with room for small chunks of logits, so that there are several.
fn on(device: Arc<dyn Device>, precision: Precision, options: SessionOptions) -> Session {
    Session::on(device, precision, SessionOptions { head_chunk: 100, max_length: 256, ..options })
}

fn in_f32(device: Arc<dyn Device>) -> Session {
    on(device, Precision::F32, SessionOptions::default())
}

/// Loss, gradient, and weights after some steps, beside the host's.
fn beside_the_host(folder: &Path, precision: Precision, kind: OptimizerKind, steps: usize) -> Option<[f64; 3]> {
    let device = device()?;
    let start = weights(folder.join("model.safetensors"));
    let rows = documents(folder);
    let options = SessionOptions { optimizer: kind, ..SessionOptions::default() };
    let run = |mut session: Session| {
        let mut model = start.clone();
        let (mut loss, mut gradients) = (0.0, Vec::new());
        for step in 0..steps {
            loss = session.accumulate_sft(&model, &packed(&rows[step % 4..][..2]), 100.0).unwrap().loss;
            gradients = session.gradients().unwrap().to_vec();
            session.apply(&mut model, &update(1e-3)).unwrap();
        }
        session.fetch(&mut model).unwrap();
        (
            loss,
            gradients,
            model.data.iter().zip(&start.data).map(|(after, before)| after - before).collect::<Vec<f32>>(),
        )
    };
    let expected = run(Session::new(&start, options.clone()));
    let found = run(on(device.clone(), precision, options));
    Some([(found.0 - expected.0).abs() / expected.0, relative(&found.1, &expected.1), relative(&found.2, &expected.2)])
}

#[test]
fn every_optimizer_in_f32_on_a_device_is_the_hosts() {
    for folder in models() {
        for kind in [OptimizerKind::AdamW, OptimizerKind::AdamW8bit] {
            let Some([loss, gradient, moved]) = beside_the_host(&folder, Precision::F32, kind, 3) else { return };
            assert!(loss < 1e-5 && gradient < 1e-3, "{kind:?}: {loss} {gradient}");
            // AdamW divides by the root of a gradient's square: where that is 0 but for rounding, its sign is too.
            assert!(moved < 2e-2, "{kind:?}: {moved}");
        }
    }
}

/// bf16 keeps eight bits: the loss to 1 %, the gradient to 5 %, the way of the weights to a third.
#[test]
fn every_optimizer_in_bf16_on_a_device_learns_what_the_host_learns() {
    for folder in models() {
        for kind in [OptimizerKind::AdamW, OptimizerKind::AdamW8bit, OptimizerKind::AdamWBf16] {
            let Some([loss, gradient, moved]) = beside_the_host(&folder, Precision::Bf16, kind, 3) else { return };
            assert!(loss < 1e-2 && gradient < 5e-2 && moved < 0.35, "{kind:?}: {loss} {gradient} {moved}");
        }
    }
}

#[test]
fn an_adapter_over_frozen_bf16_weights_on_a_device_learns_in_bf16() {
    for folder in models() {
        let Some(device) = device() else { return };
        let base = weights(folder.join("model.safetensors")).converted(Storage::Bf16).unwrap();
        let rows = packed_pairs(&golden_pairs(&json(folder.join("dpo.json"))));
        let run = |mut session: Session| {
            let mut adapter = adapter(&base, 0.0);
            let losses: Vec<f64> = (0..4)
                .map(|_| {
                    let loss = session.accumulate_sft(Model::adapted(&base, &adapter), &rows, 100.0).unwrap().loss;
                    session.apply(&mut adapter, &update(1e-2)).unwrap();
                    loss
                })
                .collect();
            session.fetch(&mut adapter).unwrap();
            assert!(adapter.data.iter().all(|value| value.is_finite()));
            losses
        };
        let expected = run(Session::new(&base, SessionOptions::default()));
        let found = run(on(device.clone(), Precision::Bf16, SessionOptions::default()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 2e-2 * expected, "{found} for {expected}");
        }
        assert!(found[3] < found[0], "{found:?}");
    }
}

/// What is drawn at random on the host is drawn on a device: an adapter's masks, and the noise on embeddings.
#[test]
fn dropout_and_noise_on_a_device_are_the_hosts() {
    let Some(folder) = models().into_iter().next() else { return };
    let Some(device) = device() else { return };
    let base = weights(folder.join("model.safetensors"));
    let rows = packed(&documents(&folder)[..2]);
    let run = |mut session: Session, dropout: Option<f64>| {
        let mut model = base.clone();
        let mut adapter = moved(&base, dropout.unwrap_or(0.0));
        let losses: Vec<f64> = (0..3)
            .map(|_| {
                let trained = if dropout.is_some() { Model::adapted(&base, &adapter) } else { (&model).into() };
                let loss = session.accumulate_sft(trained, &rows, 100.0).unwrap().loss;
                match dropout {
                    Some(_) => session.apply(&mut adapter, &update(1e-3)).unwrap(),
                    None => session.apply(&mut model, &update(1e-3)).unwrap(),
                };
                loss
            })
            .collect();
        // Without a backward pass nothing is drawn.
        let trained = if dropout.is_some() { Model::adapted(&base, &adapter) } else { (&model).into() };
        (losses, session.sequence_logps(trained, &rows).unwrap())
    };
    let noisy = |alpha| SessionOptions { embedding_noise: Some(EmbeddingNoise { alpha }), ..SessionOptions::default() };
    let mut seen = Vec::new();
    for (options, dropout) in [
        (SessionOptions::default(), Some(0.0)),
        (SessionOptions::default(), Some(0.3)),
        (SessionOptions::default(), None),
        (noisy(15.0), None),
    ] {
        let (expected, expected_logps) = run(Session::new(&base, options.clone()), dropout);
        let (found, found_logps) = run(on(device.clone(), Precision::F32, options), dropout);
        for (found, expected) in found.iter().zip(&expected).chain(found_logps.iter().zip(&expected_logps)) {
            assert!((found - expected).abs() < 1e-5 * expected.abs(), "{dropout:?}: {found} for {expected}");
        }
        seen.push(expected[0]);
    }
    let apart = |a: f64, b: f64| (a - b).abs() > 1e-4 * a.abs();
    assert!(apart(seen[0], seen[1]) && apart(seen[2], seen[3]), "{seen:?}");
}

/// Saved, and resumed by another session: the same bits as the undisturbed run, whatever the form of the state.
#[test]
fn a_saved_run_on_a_device_goes_on_with_every_form_of_the_state() {
    let Some(folder) = models().into_iter().next() else { return };
    let place = tempfile::tempdir().unwrap();
    let rows = documents(&folder);
    let forms = [
        (Precision::F32, OptimizerKind::AdamW),
        (Precision::Bf16, OptimizerKind::AdamW8bit),
        (Precision::Bf16, OptimizerKind::AdamWBf16),
    ];
    for (index, (precision, kind)) in forms.into_iter().enumerate() {
        let Some(device) = device() else { return };
        let new = || on(device.clone(), precision, SessionOptions { optimizer: kind, ..SessionOptions::default() });
        let steps = |session: &mut Session, model: &mut Weights| {
            for step in 0..2 {
                session.accumulate_sft(&*model, &packed(&rows[step..][..2]), 100.0).unwrap();
                session.apply(&mut *model, &update(1e-3)).unwrap();
            }
            session.fetch(&mut *model).unwrap();
        };
        let start = weights(folder.join("model.safetensors"));
        let (mut model, mut session) = (start.clone(), new());
        steps(&mut session, &mut model);
        let path = place.path().join(index.to_string());
        let snapshot = Snapshot::of(&session, Trained::Weights(Arc::new(model.clone())), 2, String::new());
        on_disk(path.clone(), 2).save(&snapshot.record, &snapshot.sections()).unwrap();
        steps(&mut session, &mut model);

        let saved = checkpoint::newest(&Disk, &path).unwrap().newest.unwrap();
        let (mut again, mut resumed) = (start.clone(), new());
        // A session that was used before forgets what it knew.
        steps(&mut resumed, &mut again);
        checkpoint::restore(&mut resumed, &mut again, None, &saved, &Disk).unwrap();
        steps(&mut resumed, &mut again);
        assert!(bits(&again.data) == bits(&model.data), "{precision:?} {kind:?}");
        assert!(resumed.optimizer() == session.optimizer());
    }
}

#[test]
fn nothing_is_allocated_in_a_step_and_the_host_waits_for_loss_and_norm_alone() {
    let Some(folder) = models().into_iter().next() else { return };
    let Some(device) = emulated() else { return };
    let mut model = weights(folder.join("model.safetensors"));
    let rows = documents(&folder);
    let mut session = in_f32(device.clone());
    let mut step = |rows: &[Row]| {
        let before = (device.allocations(), device.waits());
        session.accumulate_sft(&model, &packed(rows), 100.0).unwrap();
        session.apply(&mut model, &update(1e-3)).unwrap();
        (device.allocations() - before.0, device.waits() - before.1)
    };
    // Model, workspace, training; then nothing. The statistics, and the norm.
    assert_eq!(step(&rows[..2]), (3, 2));
    assert_eq!(step(&rows[2..4]), (0, 2));
    // A batch that is larger than all before makes room once.
    assert_eq!(step(&rows).0, 1);
    assert_eq!(step(&rows), (0, 2));
    let used = device.used();
    assert_eq!(session.bytes(), used);
    session.release();
    assert_eq!(device.used(), 0);
}

#[test]
fn the_plan_is_what_is_allocated() {
    let Some(folder) = models().into_iter().next() else { return };
    let base = weights(folder.join("model.safetensors"));
    let lora = adapter(&base, 0.0);
    let in_four_bits = base.converted(Storage::Nf4).unwrap();
    for model in [Model::from(&base), Model::adapted(&base, &lora), Model::adapted(&in_four_bits, &lora)] {
        for kind in [OptimizerKind::AdamW, OptimizerKind::AdamW8bit, OptimizerKind::AdamWBf16] {
            for recompute in [Recompute::None, Recompute::NormsAndSwiglu, Recompute::Layer] {
                let Some(device) = emulated() else { return };
                let options = SessionOptions {
                    optimizer: kind,
                    recompute,
                    head_chunk: 100,
                    max_length: 256,
                    ..SessionOptions::default()
                };
                let work = Work { tokens: 512, predictions: 256, train: true };
                let plan = MemoryPlan::new(model, Precision::Bf16, &options, work);
                let mut session = Session::on(device.clone(), Precision::Bf16, options);
                session.reserve(model, work).unwrap();
                assert_eq!(device.used(), plan.total(), "{kind:?} {recompute:?}: {plan}");
                let before = device.allocations();
                session.accumulate_sft(model, &packed(&documents(&folder)[..2]), 100.0).unwrap();
                assert_eq!(device.allocations(), before, "the first step finds everything there");
            }
        }
    }
}

#[test]
fn the_policy_that_fits_is_taken_or_the_numbers_are_told() {
    let Some(folder) = models().into_iter().next() else { return };
    let base = weights(folder.join("model.safetensors"));
    let options = SessionOptions::default();
    let work = Work { tokens: 4096, predictions: 2048, train: true };
    let of = |recompute| {
        let options = SessionOptions { recompute, ..options.clone() };
        MemoryPlan::new((&base).into(), Precision::Bf16, &options, work)
    };
    let plans = [Recompute::None, Recompute::NormsAndSwiglu, Recompute::Layer].map(of);
    assert!(plans.is_sorted_by(|a, b| a.total() > b.total()), "{plans:?}");
    let fitting = |free| {
        let memory = Free { free, total: free, reserve: 0 };
        MemoryPlan::fitting((&base).into(), Precision::Bf16, &options, work, memory, None)
    };
    for plan in plans {
        assert_eq!(fitting(plan.total()).unwrap(), plan);
    }
    let error = fitting(plans[2].total() - 1).unwrap_err();
    assert_eq!(error.code(), "ZA_DEVICE_MEMORY");
    assert!(error.to_string().contains(&plans[2].to_string()) && error.to_string().contains("batchSize"), "{error}");
    let error = fitting(plans[2].weights + 1).unwrap_err();
    assert!(error.to_string().contains("LoRA"), "{error}");
    let error = fitting(1).unwrap_err().to_string();
    assert!(error.contains("quantization \"nf4\"") && error.contains("a card with more memory"), "{error}");
    let packed = base.converted(Storage::Nf4).unwrap();
    let memory = Free { free: 1, total: 1, reserve: 0 };
    let error = MemoryPlan::fitting((&packed).into(), Precision::Bf16, &options, work, memory, None).unwrap_err();
    assert!(error.to_string().contains("Remedy: take a card with more memory"), "{error}");

    let memory = Free { free: plans[2].total(), total: plans[2].total(), reserve: 0 };
    let given =
        |recompute| MemoryPlan::fitting((&base).into(), Precision::Bf16, &options, work, memory, Some(recompute));
    assert_eq!(given(Recompute::Layer).unwrap(), plans[2]);
    let error = given(Recompute::None).unwrap_err().to_string();
    assert!(error.contains("recompute \"none\"") && error.contains("leave recompute out"), "{error}");
}

/// A card's driver takes memory by itself, so that what fits to the byte does not fit a card.
#[test]
fn a_plan_leaves_a_card_its_reserve() {
    let Some(folder) = models().into_iter().next() else { return };
    let base = weights(folder.join("model.safetensors"));
    let options = SessionOptions::default();
    let work = Work { tokens: 4096, predictions: 2048, train: true };
    let layer = SessionOptions { recompute: Recompute::Layer, ..options.clone() };
    let least = MemoryPlan::new((&base).into(), Precision::Bf16, &layer, work);
    for (total, reserve) in [(8_000_000_000, 512 << 20), (80_000_000_000, 800_000_000)] {
        let fitting = |free| {
            let memory = Free::of_card(free, total);
            MemoryPlan::fitting((&base).into(), Precision::Bf16, &options, work, memory, None)
        };
        assert_eq!(fitting(least.total() + reserve).unwrap(), least);
        let error = fitting(least.total() + reserve - 1).unwrap_err().to_string();
        let told = format!("of which {:.2} GB are left to the driver", reserve as f64 / 1e9);
        assert!(error.contains(&told) && error.contains("batchSize"), "{error}");
        assert!(fitting(reserve - 1).unwrap_err().to_string().contains("a card with more memory"));
    }
}

/// A model of Mistral-7B's shape for plans: there are no values.
fn mistral_7b(storage: Storage) -> Weights {
    let config = json!({
        "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5, "hidden_act": "silu"
    });
    let config = Config::from_json(&config.to_string(), "test").unwrap();
    let tiny = Config { hidden_size: 8, intermediate_size: 8, layers: 1, vocab_size: 8, ..config.clone() };
    let mut model = Weights::zeros(tiny).converted(storage).unwrap();
    model.layout = Layout::new(&config);
    model.config = config;
    model
}

/// By the plan alone, which takes no device: weights, gradients, rests and bf16 moments are ten bytes a parameter.
#[test]
fn all_of_mistral_7b_is_trained_in_80_gigabytes() {
    let model = mistral_7b(Storage::F32);
    let options = SessionOptions { optimizer: OptimizerKind::AdamWBf16, head_chunk: 1024, ..SessionOptions::default() };
    let work = Work { tokens: 8192, predictions: 4096, train: true };
    let memory = Free::of_card(80_000_000_000, 80_000_000_000);
    let plan = MemoryPlan::fitting((&model).into(), Precision::Bf16, &options, work, memory, None).unwrap();
    let parameters = 7_241_732_096;
    let held = plan.weights + plan.gradients + plan.states;
    assert!(held > 10 * parameters && held < 10 * parameters + (50 << 20), "{plan}");
    eprintln!("recompute {}: {plan}", plan.recompute.name());
}

#[test]
fn memory_that_runs_out_in_a_run_is_an_error_and_the_run_goes_on() {
    let Some(folder) = models().into_iter().next() else { return };
    let mut model = weights(folder.join("model.safetensors"));
    let rows = documents(&folder);
    let options = SessionOptions { max_length: 256, ..SessionOptions::default() };
    let work = Work { tokens: 512, predictions: 512, train: true };
    let total = MemoryPlan::new((&model).into(), Precision::F32, &options, work).total();
    let Some(device) = Emulated::with_memory(Watch::Off, 0, total) else { return };
    let mut session = Session::on(device.clone(), Precision::F32, options);
    session.accumulate_sft(&model, &packed(&rows[..2]), 100.0).unwrap();
    session.apply(&mut model, &update(1e-3)).unwrap();
    let long = Row { ids: vec![5; 250], supervised: vec![true; 250] };
    let error = session.accumulate_sft(&model, &packed(&vec![long; 8]), 100.0).unwrap_err();
    assert_eq!(error.code(), "ZA_OUT_OF_MEMORY");
    session.accumulate_sft(&model, &packed(&rows[..2]), 100.0).unwrap();
    assert_eq!(session.apply(&mut model, &update(1e-3)).unwrap().step, 2);
}

#[test]
fn a_loss_or_gradient_that_is_no_number_changes_nothing() {
    let Some(folder) = models().into_iter().next() else { return };
    let Some(device) = emulated() else { return };
    let start = weights(folder.join("model.safetensors"));
    let rows = packed(&documents(&folder));
    let mut broken = start.clone();
    broken.data[start.layout.final_norm.clone()].fill(f32::NAN);
    let error = in_f32(device.clone()).accumulate_sft(&broken, &rows, 100.0).unwrap_err();
    assert_eq!(error.code(), "ZA_TRAIN_NOT_FINITE");

    let mut model = start.clone();
    let mut session = in_f32(device.clone());
    session.accumulate_sft(&model, &rows, 100.0).unwrap();
    session.apply(&mut model, &update(1e-3)).unwrap();
    let before = session.sequence_logps(&model, &rows).unwrap();
    // The loss is an f64 and finite; the gradient is beyond f32.
    session.accumulate_sft(&model, &rows, 3e-39).unwrap();
    assert_eq!(session.apply(&mut model, &update(1e-3)).unwrap_err().code(), "ZA_TRAIN_NOT_FINITE");
    assert_eq!(session.step(), 1);
    assert_eq!(session.sequence_logps(&model, &rows).unwrap(), before);
    session.accumulate_sft(&model, &rows, 100.0).unwrap();
    assert_eq!(session.apply(&mut model, &update(1e-3)).unwrap().step, 2);
}

#[test]
fn what_a_device_cannot_do_is_refused_by_name() {
    let Some(folder) = models().into_iter().next() else { return };
    let Some(device) = emulated() else { return };
    let model = weights(folder.join("model.safetensors"));
    let rows = packed(&documents(&folder)[..2]);
    let refused = |session: &mut Session, model: Model, words: &str| {
        let error = session.accumulate_sft(model, &rows, 100.0).unwrap_err();
        assert_eq!(error.code(), "ZA_DEVICE_UNSUPPORTED");
        assert!(error.to_string().contains(words) && error.to_string().contains("Remedy: "), "{error}");
    };
    let halves = SessionOptions { optimizer: OptimizerKind::AdamWBf16, ..SessionOptions::default() };
    refused(&mut on(device.clone(), Precision::F32, halves), (&model).into(), "adamw-bf16");
    let frozen = model.converted(Storage::Nf4).unwrap();
    let error = in_f32(device.clone()).accumulate_sft(&frozen, &rows, 100.0).unwrap_err();
    assert_eq!(error.code(), "ZA_MODEL_FROZEN");
    assert_eq!(device.used(), 0, "what was refused holds nothing");

    let mut session = in_f32(device.clone());
    session.sequence_logps(&model, &rows).unwrap();
    let error = session.sequence_logps(&model.clone(), &rows).unwrap_err();
    assert!(error.to_string().contains("one model"), "{error}");
}

/// Pairs, weights of rows, prompts among the rows, single answers: the losses are the host's, and so are the numbers.
#[test]
fn sums_and_gradients_of_shared_prompts_on_a_device_are_the_hosts() {
    for folder in models() {
        let Some(device) = device() else { return };
        let policy = weights(folder.join("model.safetensors"));
        let pairs = golden_pairs(&json(folder.join("dpo.json")));
        let (chosen, rejected) = logps(&weights(folder.join("ref.safetensors")), &pairs);
        let config = LossConfig { use_weighting: true, ..LossConfig::default() };
        let step = |session: &mut Session, packed: &Packed| {
            let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
            let sums = session.accumulate_dpo(&policy, packed, reference, &config, denominator(&pairs)).unwrap();
            (sums, session.gradients().unwrap().to_vec())
        };
        let shared =
            Packed::pairs(pairs.iter().map(|sides| super::shared::pair(super::shared::prompt(sides), sides)), true);
        let shared = shared.unwrap().with_discounted_tails(0.5);
        assert!(shared.computed_tokens() < packed_pairs(&pairs).computed_tokens());
        let (expected, gradients) = step(&mut super::session(&policy), &shared);
        let (found, found_gradients) = step(&mut in_f32(device.clone()), &shared);
        assert!((found.loss - expected.loss).abs() < 1e-5 * expected.loss.max(1.0));
        assert_eq!(
            (found.pairs, found.wins, found.chosen.correct),
            (expected.pairs, expected.wins, expected.chosen.correct)
        );
        let error = relative(&found_gradients, &gradients);
        assert!(error < 1e-4, "the gradient is off by {error:e}");
    }
}
