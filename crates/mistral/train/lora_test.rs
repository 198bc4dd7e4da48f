//! Training an adapter: only its gradient, the right one, the same under every policy and every way to pack.

use serde_json::{Value, json};

use super::Recompute;
use super::test::{Packed, documents, gradient, pairs, predictions, relative, small};
use crate::layout::Weights;
use crate::lora::{Adapter, LoraConfig, merge};
use crate::model::Model;
use crate::storage::Storage;

/// An adapter with fields of PEFT, whose B is not zero.
fn adapter(weights: &Weights, fields: Value) -> Adapter {
    let Value::Object(fields) = fields else { panic!("an object") };
    let config = LoraConfig::from_fields(fields, "test").unwrap();
    let mut adapter = Adapter::new(config, &weights.config, 5).unwrap();
    for pair in adapter.layout.pairs.clone() {
        for (at, value) in adapter.data[pair.b].iter_mut().enumerate() {
            *value = ((at * 7919 % 23) as f32 - 11.0) / 60.0;
        }
    }
    adapter
}

fn everywhere(dropout: f64) -> Value {
    json!({"target_modules": "all-linear", "r": 3, "lora_alpha": 5, "lora_dropout": dropout,
           "rank_pattern": {"o_proj": 2, "layers.1.mlp.down_proj": 5}, "alpha_pattern": {"q_proj": 9}})
}

#[test]
fn gradients_of_an_adapter_equal_finite_differences() {
    for (tied, window, dropout) in [(true, None, 0.0), (false, Some(4), 0.0), (false, Some(4), 0.3)] {
        let weights = small(tied, window);
        let mut adapter = adapter(&weights, everywhere(dropout));
        let documents = documents();
        let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
        let run = |adapter: &Adapter| {
            gradient(Model::adapted(&weights, adapter), &packed, &rows, &targets, -1.0, Recompute::default())
        };
        let (_, gradients) = run(&adapter);
        assert_eq!(gradients.len(), adapter.layout.len, "no gradient but the adapter's");
        for tensor in adapter.layout.tensors.clone() {
            let direction = gradients[tensor.range.clone()].to_vec();
            let norm = direction.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 0.0, "{} has a gradient", tensor.name);
            let original = adapter.data[tensor.range.clone()].to_vec();
            let step = 4e-3;
            let mut shifted = |sign: f64| {
                for (offset, value) in adapter.data[tensor.range.clone()].iter_mut().enumerate() {
                    *value = (f64::from(original[offset]) + sign * step * f64::from(direction[offset]) / norm) as f32;
                }
                -run(&adapter).0.iter().map(|&value| f64::from(value)).sum::<f64>()
            };
            let slope = (shifted(1.0) - shifted(-1.0)) / (2.0 * step);
            adapter.data[tensor.range.clone()].copy_from_slice(&original);
            assert!((slope / norm - 1.0).abs() < 5e-3, "{}: slope {slope}, norm {norm}", tensor.name);
        }
    }
}

/// `dL/dA = s·Bᵀ·dL/dW` and `dL/dB = s·dL/dW·Aᵀ`, with the gradient of the merged model's weights.
#[test]
fn gradients_are_those_of_the_merged_weights_projected() {
    let weights = small(false, Some(4));
    let adapter = adapter(&weights, everywhere(0.0));
    let documents = documents();
    let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
    let model = Model::adapted(&weights, &adapter);
    let (logps, gradients) = gradient(model, &packed, &rows, &targets, -1.0, Recompute::None);
    let mut merged = weights.clone();
    merge(&mut merged, &adapter);
    let (merged_logps, full) = gradient(&merged, &packed, &rows, &targets, -1.0, Recompute::None);
    assert!(relative(&logps, &merged_logps) < 1e-5);
    for pair in &adapter.layout.pairs {
        let [outputs, inputs] = pair.projection.shape(&weights.config);
        let spec = weights.layout.find(&format!("{}.weight", pair.projection.path(pair.layer))).unwrap();
        let d_w = &full[spec.range.clone()];
        let (a, b) = (&adapter.data[pair.a.clone()], &adapter.data[pair.b.clone()]);
        let (mut d_a, mut d_b) = (vec![0.0f32; a.len()], vec![0.0f32; b.len()]);
        for rank in 0..pair.rank {
            for output in 0..outputs {
                for input in 0..inputs {
                    let gradient = pair.scale * d_w[output * inputs + input];
                    d_a[rank * inputs + input] += b[output * pair.rank + rank] * gradient;
                    d_b[output * pair.rank + rank] += gradient * a[rank * inputs + input];
                }
            }
        }
        for (expected, range) in [(d_a, &pair.a), (d_b, &pair.b)] {
            let error = relative(&gradients[range.clone()], &expected);
            assert!(error < 1e-4, "{:?} of layer {}: off by {error:e}", pair.projection, pair.layer);
        }
    }
}

#[test]
fn a_new_adapter_changes_no_bit() {
    let weights = small(true, Some(4));
    let Value::Object(fields) = everywhere(0.5) else { panic!() };
    let fresh = Adapter::new(LoraConfig::from_fields(fields, "test").unwrap(), &weights.config, 1).unwrap();
    let documents = documents();
    let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
    let (base, _) = gradient(&weights, &packed, &rows, &targets, -1.0, Recompute::None);
    let (adapted, gradients) =
        gradient(Model::adapted(&weights, &fresh), &packed, &rows, &targets, -1.0, Recompute::None);
    assert_eq!(base, adapted);
    for pair in &fresh.layout.pairs {
        assert!(gradients[pair.a.clone()].iter().all(|&value| value == 0.0), "A waits for B");
        assert!(gradients[pair.b.clone()].iter().any(|&value| value != 0.0));
    }
}

#[test]
fn every_policy_gives_the_same_bits_with_dropout() {
    let weights = small(false, Some(4));
    let documents = documents();
    let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let mut seen = Vec::new();
    for dropout in [0.0, 0.4] {
        let adapter = adapter(&weights, everywhere(dropout));
        let run = |recompute| {
            let model = Model::adapted(&weights, &adapter);
            let (logps, gradients) = gradient(model, &packed, &rows, &targets, -1.0, recompute);
            (bits(&logps), bits(&gradients))
        };
        let expected = run(Recompute::None);
        assert!(run(Recompute::NormsAndSwiglu) == expected && run(Recompute::Layer) == expected);
        seen.push(expected);
    }
    assert!(seen[0] != seen[1], "dropout makes a difference");
}

#[test]
fn packing_and_shared_prompts_do_not_change_an_adapters_gradient() {
    let weights = small(false, Some(4));
    let adapter = adapter(&weights, everywhere(0.0));
    let model = Model::adapted(&weights, &adapter);
    let documents = documents();
    let (rows, targets) = predictions(&documents);
    let (_, together) = gradient(model, &Packed::new(&documents), &rows, &targets, -1.0, Recompute::default());
    let mut apart = vec![0.0; adapter.layout.len];
    for document in &documents {
        let one = std::slice::from_ref(document);
        let (rows, targets) = predictions(one);
        let (_, part) = gradient(model, &Packed::new(one), &rows, &targets, -1.0, Recompute::default());
        apart.iter_mut().zip(&part).for_each(|(sum, value)| *sum += value);
    }
    assert!(relative(&together, &apart) < 1e-5);

    let [(separate, rows, targets), (shared, shared_rows, _)] = pairs(&[(6, 5, 3), (1, 4, 7), (9, 2, 2)]);
    let (_, expected) = gradient(model, &separate, &rows, &targets, -1.0, Recompute::default());
    let (_, found) = gradient(model, &shared, &shared_rows, &targets, -1.0, Recompute::default());
    assert!(shared.ids.len() < separate.ids.len());
    assert!(relative(&found, &expected) < 1e-5);
}

/// Frozen in fewer bits, the base gives an adapter the gradient that the f32 model of the same values gives it.
#[test]
fn an_adapter_over_frozen_weights_has_the_gradient_of_their_values() {
    let weights = small(true, Some(4));
    let adapter = adapter(&weights, everywhere(0.2));
    let documents = documents();
    let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
    for storage in [Storage::Bf16, Storage::Nf4] {
        let frozen = weights.converted(storage).unwrap();
        let values = frozen.converted(Storage::F32).unwrap();
        let run = |weights: &Weights, recompute| {
            gradient(Model::adapted(weights, &adapter), &packed, &rows, &targets, -1.0, recompute)
        };
        let (logps, gradients) = run(&frozen, Recompute::None);
        let (expected_logps, expected) = run(&values, Recompute::None);
        assert!(relative(&logps, &expected_logps) < 1e-5, "{storage:?}");
        assert!(relative(&gradients, &expected) < 1e-4, "{storage:?}");
        assert!(run(&frozen, Recompute::Layer) == (logps, gradients), "{storage:?}: the same bits under every policy");
    }
}
