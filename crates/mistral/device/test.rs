//! The decoder on the emulation against its CPU twin, and against itself.

use std::sync::Arc;

use zephyr_emulator::{Emulated, Watch};
use zephyr_kernels::cuda::{Arena, Bf16, Device, Element};
use zephyr_kernels::head;

use super::{Decoder, Drawn, Gradients, Workspace, download};
use crate::layout::Weights;
use crate::lora::{Adapter, LoraConfig};
use crate::model::Model;
use crate::storage::Storage;
use crate::train::Recompute;
use crate::train::test::{Packed, documents, gradient, pairs, predictions, relative, small};

/// What a step makes: log-probs of the targets and gradients.
pub(super) struct Made {
    pub logps: Vec<f32>,
    pub gradients: Vec<f32>,
}

/// Forward and backward as [`gradient`], on a device.
pub(super) fn on_device<T: Element>(
    device: Arc<dyn Device>,
    model: Model,
    packed: &Packed,
    (rows, targets): (&[usize], &[u32]),
    coefficient: f32,
    recompute: Recompute,
) -> Made {
    let decoder = Decoder::<T>::new(device.clone(), model, 64).unwrap();
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    // The key that the twin takes.
    let drawn = Drawn { dropout: Some(11), noise: None };
    let planned = decoder.planned(packed.batch()).unwrap();
    let sizes = planned.sizes(rows.len(), 7, true, recompute);
    let adapter = decoder.adapter.as_ref();
    let (_memory, workspace) =
        Arena::reserve(&device, "workspace", |arena| Workspace::lay(arena, &decoder.config, adapter, &sizes)).unwrap();
    let trainable = model.adapter.map_or(model.weights.layout.len, |adapter| adapter.layout.len);
    let (_memory, (of_weights, of_adapter)) = Arena::reserve(&device, "gradients", |arena| {
        let len = |wanted: bool| if wanted { trainable } else { 0 };
        let adapted = model.adapter.is_some();
        (arena.part::<T>("gradients", len(!adapted)), arena.part::<f32>("gradients", len(adapted)))
    })
    .unwrap();
    let gradients = match model.adapter {
        None => Gradients::Weights(of_weights),
        Some(_) => Gradients::Adapter(of_adapter),
    };
    if model.adapter.is_some() {
        device.zero(of_adapter, trainable).unwrap();
    } else {
        device.zero(of_weights, trainable).unwrap();
    }
    let loaded = decoder.load(&workspace, planned, &rows, targets, drawn).unwrap();
    decoder.forward(&loaded, &workspace, true, true).unwrap();
    let mut stats = head::Stats::default();
    decoder.statistics(&loaded, &workspace).unwrap().wait(&mut stats).unwrap();
    let coefficients = vec![coefficient; rows.len()];
    decoder.head_backward(&loaded, &workspace, &coefficients, gradients).unwrap();
    decoder.backward(&loaded, &workspace, gradients).unwrap();
    let mut found = vec![0.0; trainable];
    match gradients {
        Gradients::Weights(from) => download(&*device, from, &mut found).unwrap(),
        Gradients::Adapter(from) => download::<f32>(&*device, from, &mut found).unwrap(),
    }
    Made { logps: stats.logp, gradients: found }
}

/// Every tensor of the gradient within `within` of the twin's.
fn compare(what: &str, model: Model, made: &Made, logps: &[f32], gradients: &[f32], within: f64) {
    let error = relative(&made.logps, logps);
    assert!(error < within, "{what}: log-probs are off by {error:e}");
    let tensors = model.adapter.map_or(&model.weights.layout.tensors, |adapter| &adapter.layout.tensors);
    for tensor in tensors {
        let range = tensor.range.clone();
        let error = relative(&made.gradients[range.clone()], &gradients[range]);
        assert!(error < within, "{what}: the gradient of {} is off by {error:e}", tensor.name);
    }
}

pub(super) const POLICIES: [Recompute; 3] = [Recompute::None, Recompute::NormsAndSwiglu, Recompute::Layer];

/// Under the watch: no access out of bounds or of what nobody has written, no race, in a whole step of every policy.
#[test]
fn a_step_in_f32_equals_the_cpu_under_the_watch() {
    for (tied, window, recompute) in [(true, None, POLICIES[0]), (false, Some(4), POLICIES[1])] {
        let Some(device) = Emulated::new(Watch::On, 1) else { return };
        let weights = small(tied, window);
        let documents = documents();
        let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
        let made = on_device::<f32>(device, (&weights).into(), &packed, (&rows, &targets), -0.3, recompute);
        let (logps, gradients) = gradient(&weights, &packed, &rows, &targets, -0.3, recompute);
        compare(&format!("tied {tied}, window {window:?}"), (&weights).into(), &made, &logps, &gradients, 1e-5);
    }
}

#[test]
fn a_step_in_bf16_is_near_the_cpu_under_the_watch() {
    // Of the head dimension 64 the emulated device has the kernels for Hopper alone, so that it takes them or fails.
    for (head_dim, device) in [(16, Emulated::new(Watch::On, 0)), (64, Emulated::hopper(Watch::On, 1))] {
        let Some(device) = device else { return };
        let weights = wide(head_dim);
        let documents = documents();
        let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
        let made =
            on_device::<Bf16>(device, (&weights).into(), &packed, (&rows, &targets), -0.3, Recompute::NormsAndSwiglu);
        // The twin computes with the same rounded weights, and rounds no activation.
        let rounded = weights.converted(Storage::Bf16).unwrap().converted(Storage::F32).unwrap();
        let (logps, gradients) = gradient(&rounded, &packed, &rows, &targets, -0.3, Recompute::default());
        compare(&format!("bf16, {head_dim}"), (&weights).into(), &made, &logps, &gradients, 0.03);
    }
}

#[test]
fn every_recompute_policy_gives_the_same_bits() {
    fn check<T: Element>(weights: &Weights) -> Option<()> {
        let documents = documents();
        let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
        let run = |recompute| -> Option<(Vec<u32>, Vec<u32>)> {
            let device = Emulated::new(Watch::Off, 0)?;
            let made = on_device::<T>(device, weights.into(), &packed, (&rows, &targets), -0.5, recompute);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            Some((bits(&made.logps), bits(&made.gradients)))
        };
        let expected = run(Recompute::None)?;
        for recompute in [Recompute::None, Recompute::NormsAndSwiglu, Recompute::Layer] {
            assert!(run(recompute)? == expected, "{recompute:?}");
        }
        Some(())
    }
    check::<f32>(&small(false, Some(5)));
    check::<Bf16>(&wide(16));
}

#[test]
fn pairs_over_one_prompt_equal_separate_sequences() {
    for window in [None, Some(12)] {
        let weights = small(false, window);
        let [(apart, apart_rows, targets), (shared, shared_rows, _)] =
            pairs(&[(11, 7, 20), (1, 1, 2), (0, 5, 3), (30, 3, 9), (6, 25, 1)]);
        let run = |packed: &Packed, rows: &[usize]| {
            let device = Emulated::new(Watch::Off, 0)?;
            Some(on_device::<f32>(device, (&weights).into(), packed, (rows, &targets), -0.1, Recompute::default()))
        };
        let Some(expected) = run(&apart, &apart_rows) else { return };
        let found = run(&shared, &shared_rows).unwrap();
        let what = format!("window {window:?}");
        compare(&what, (&weights).into(), &found, &expected.logps, &expected.gradients, 1e-5);
        let (logps, gradients) = gradient(&weights, &shared, &shared_rows, &targets, -0.1, Recompute::default());
        compare(&what, (&weights).into(), &found, &logps, &gradients, 1e-5);
    }
}

#[test]
fn an_adapter_has_the_gradient_of_its_twin() {
    let logps = [0.0, 0.3].map(adapter_beside_its_twin);
    assert!(logps[0] != logps[1], "dropout makes a difference");
}

fn adapter_beside_its_twin(dropout: f64) -> Vec<f32> {
    let weights = small(true, Some(4));
    let fields = serde_json::json!({"target_modules": "all-linear", "r": 3, "lora_alpha": 5, "lora_dropout": dropout,
        "rank_pattern": {"o_proj": 2, "layers.1.mlp.down_proj": 5}, "alpha_pattern": {"q_proj": 9}});
    let serde_json::Value::Object(fields) = fields else { panic!() };
    let config = LoraConfig::from_fields(fields, "test").unwrap();
    let mut adapter = Adapter::new(config, &weights.config, 5).unwrap();
    for pair in adapter.layout.pairs.clone() {
        for (at, value) in adapter.data[pair.b].iter_mut().enumerate() {
            *value = ((at * 7919 % 23) as f32 - 11.0) / 60.0;
        }
    }
    let documents = documents();
    let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
    let mut seen = Vec::new();
    for (storage, within) in [(Storage::F32, 1e-5), (Storage::Bf16, 1e-5), (Storage::Nf4, 1e-5)] {
        let weights = weights.converted(storage).unwrap();
        let model = Model::adapted(&weights, &adapter);
        let (logps, gradients) = gradient(model, &packed, &rows, &targets, -0.3, Recompute::default());
        for recompute in [Recompute::NormsAndSwiglu, Recompute::Layer] {
            let Some(device) = Emulated::new(Watch::Off, 0) else { return vec![dropout as f32] };
            let made = on_device::<f32>(device, model, &packed, (&rows, &targets), -0.3, recompute);
            compare(&format!("{storage:?}"), model, &made, &logps, &gradients, within);
            seen.extend(made.logps);
        }
    }
    seen
}

/// As [`small`] with a head dimension for which there is a bf16 kernel.
fn wide(head_dim: usize) -> Weights {
    let json = r#"{"model_type":"mistral","vocab_size":40,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"sliding_window":6,"rms_norm_eps":1e-5,
        "hidden_act":"silu","max_position_embeddings":64,"rope_theta":10000.0,"tie_word_embeddings":false,
        "initializer_range":0.2,"bos_token_id":1,"eos_token_id":2}"#;
    let json = json.replace("\"head_dim\":16", &format!("\"head_dim\":{head_dim}"));
    Weights::random(crate::config::Config::from_json(&json, "test").unwrap(), 3)
}

#[test]
fn sizes_that_no_kernel_exists_for_are_refused() {
    let Some(device) = Emulated::new(Watch::Off, 0) else { return };
    let error = Decoder::<Bf16>::new(device.clone(), (&small(true, None)).into(), 64).unwrap_err();
    assert_eq!(error.code(), "ZA_DEVICE_UNSUPPORTED");
    assert!(error.to_string().contains("head_dim 8") && error.to_string().contains("Remedy: "), "{error}");
    assert_eq!(device.used(), 0);
}

#[test]
fn memory_that_is_not_there_is_an_error_and_the_device_goes_on() {
    let weights = small(true, None);
    let model = Model::from(&weights);
    let bytes = Decoder::<f32>::plan(model, 64);
    let Some(device) = Emulated::with_memory(Watch::Off, 0, bytes + 100) else { return };
    let first = Decoder::<f32>::new(device.clone(), model, 64).unwrap();
    assert_eq!((first.bytes(), device.used()), (bytes, bytes));
    let error = Decoder::<f32>::new(device.clone(), model, 64).unwrap_err();
    assert_eq!(error.code(), "ZA_OUT_OF_MEMORY");
    assert!(error.to_string().contains(&format!("needs {bytes} bytes")), "{error}");
    drop(first);
    assert_eq!(device.used(), 0);
    Decoder::<f32>::new(device, model, 64).unwrap();
}
