//! Frozen weights: converted as they are read, equal to the f32 model of the same values, and never trained.

use serde_json::json;

use super::Storage;
use crate::generate::Generator;
use crate::layout::Weights;
use crate::lora::{Adapter, LoraConfig};
use crate::model::Model;
use crate::weights::test::{shared, small_config};
use crate::weights::{self, save};

fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (difference / expected.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).sqrt()
}

fn logits<'a>(model: impl Into<Model<'a>>) -> Vec<f32> {
    Generator::new(model).logits(&[1, 5, 7, 2, 30, 4, 4, 19]).unwrap()
}

/// A small model whose projections have NF4 blocks across rows and at their ends.
fn model() -> Weights {
    Weights::random(small_config(), 3)
}

#[test]
fn a_frozen_model_computes_what_the_f32_model_of_its_values_does() {
    let weights = model();
    for storage in [Storage::Bf16, Storage::Nf4] {
        let frozen = weights.converted(storage).unwrap();
        assert_eq!(frozen.storage(), storage);
        let back = frozen.converted(Storage::F32).unwrap();
        assert!(relative(&logits(&frozen), &logits(&back)) < 1e-5, "{storage:?}");
        let error = relative(&logits(&frozen), &logits(&weights));
        let bound = if storage == Storage::Bf16 { 0.05 } else { 0.8 };
        assert!(error > 1e-5 && error < bound, "{storage:?} is {error} from f32");
        // Freezing again changes nothing: bf16 exactly, NF4 because every block keeps its largest value's code.
        if storage == Storage::Bf16 {
            assert_eq!(logits(&back.converted(storage).unwrap()), logits(&frozen));
        }
    }
}

#[test]
fn sizes_are_those_promised() {
    let weights = model();
    let bytes = |storage| weights.converted(storage).unwrap().bytes();
    assert_eq!(bytes(Storage::F32), weights.layout.len * 4);
    let norms: usize =
        weights.layout.tensors.iter().filter(|spec| spec.shape.len() == 1).map(|spec| spec.range.len()).sum();
    assert_eq!(bytes(Storage::Bf16), (weights.layout.len - norms) * 2 + norms * 4);
    let tables = 2 * weights.layout.embed.len();
    let nf4 = bytes(Storage::Nf4) - tables * 2 - norms * 4;
    let projections = weights.layout.len - tables - norms;
    let bits = nf4 as f64 * 8.0 / projections as f64;
    // 4.127 bits, and for each small tensor an offset and a nested scale.
    assert!((4.1..4.5).contains(&bits), "{bits} bits a value");
}

#[test]
fn loading_frozen_equals_converting_what_was_loaded() {
    let Some(golden) = shared("ZEPHYR_GOLDEN", "golden") else { return };
    for name in ["window", "headdim"] {
        let folder = golden.join(name);
        let whole = weights::load(&folder).unwrap().weights;
        for storage in [Storage::Bf16, Storage::Nf4] {
            let loaded = weights::load_as(&folder, storage).unwrap().weights;
            assert_eq!(loaded.storage(), storage);
            let converted = whole.converted(storage).unwrap();
            for spec in &whole.layout.tensors {
                let read = |weights: &Weights| {
                    let mut values = vec![f32::NAN; spec.range.len()];
                    weights.read(spec, 0, &mut values);
                    values
                };
                assert_eq!(read(&loaded), read(&converted), "{name}: {}", spec.name);
            }
            // Saved, it is a model of the values that it has.
            let place = tempfile::tempdir().unwrap();
            let dtype = weights::safetensors::FloatType::F32;
            save::save_safetensors(&loaded, place.path(), dtype, u64::MAX).unwrap();
            let again = weights::load(place.path()).unwrap().weights;
            assert_eq!(again.data, loaded.converted(Storage::F32).unwrap().data);
        }
    }
}

#[test]
fn frozen_weights_are_trained_only_through_an_adapter() {
    let frozen = model().converted(Storage::Nf4).unwrap();
    let error = Model::from(&frozen).check_trainable().unwrap_err();
    assert_eq!(error.code(), "ZA_MODEL_FROZEN");
    assert!(error.to_string().contains("nf4") && error.to_string().contains("LoRA"), "{error}");
    let serde_json::Value::Object(fields) = json!({"target_modules": "all-linear", "r": 2}) else { panic!() };
    let config = LoraConfig::from_fields(fields, "test").unwrap();
    let adapter = Adapter::new(config, &frozen.config, 1).unwrap();
    let model = Model::adapted(&frozen, &adapter);
    model.check_trainable().unwrap();
    assert_eq!(logits(model), logits(&frozen));
}
