//! PEFT's format and matching: the golden adapters, the shared case, refusals by name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Adapter, LoraConfig, load, merge, read_config, save};
use crate::config::Config;
use crate::generate::Generator;
use crate::layout::Weights;
use crate::linear::Projection;
use crate::model::Model;
use crate::weights;
use crate::weights::allocation::peak;
use crate::weights::test::shared;

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { panic!("an object") };
    fields
}

fn config(value: Value) -> LoraConfig {
    LoraConfig::from_fields(fields(value), "test").unwrap()
}

fn base() -> Config {
    let json = r#"{"model_type":"mistral","vocab_size":17,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":12,
        "num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"sliding_window":null,"rms_norm_eps":1e-5,
        "hidden_act":"silu","max_position_embeddings":64,"rope_theta":10000.0,"initializer_range":0.3}"#;
    Config::from_json(json, "test").unwrap()
}

/// Adapted projections, `layer.name`.
fn adapted(targets: Value) -> Vec<String> {
    let adapter = Adapter::new(config(json!({"target_modules": targets})), &base(), 1).unwrap();
    adapter.layout.pairs.iter().map(|pair| format!("{}.{}", pair.layer, pair.projection.name())).collect()
}

#[test]
fn targets_are_matched_as_peft_does() {
    assert_eq!(adapted(json!("all-linear")).len(), 12 * 7);
    assert_eq!(adapted(json!(["q_proj", "down_proj"])).len(), 24);
    assert_eq!(adapted(json!(["layers.1.self_attn.q_proj"])), ["1.q_proj"], "not those of layer 11");
    assert_eq!(adapted(json!(["model.layers.1.mlp.up_proj"])), ["1.up_proj"]);
    assert_eq!(
        adapted(json!(r"model\.layers\.(0|11)\.self_attn\.[qv]_proj")),
        ["0.q_proj", "0.v_proj", "11.q_proj", "11.v_proj"]
    );
    assert_eq!(adapted(json!(r".*\.1\..*_proj")).len(), 7, "a pattern must match the whole path");
    let both = config(json!({"target_modules": "all-linear", "exclude_modules": ["o_proj", "layers.3.mlp.up_proj"]}));
    assert_eq!(Adapter::new(both, &base(), 1).unwrap().layout.pairs.len(), 12 * 6 - 1);
}

#[test]
fn ranks_and_scales_follow_the_patterns() {
    let config = config(json!({"target_modules": "all-linear", "r": 4, "lora_alpha": 8, "use_rslora": true,
        "rank_pattern": {"o_proj": 2}, "alpha_pattern": {"self_attn.q_proj": 16, "layers.0.mlp.down_proj": 1}}));
    let scale = |path: &str| config.scale_of(path);
    assert_eq!(scale("model.layers.1.self_attn.q_proj"), 8.0);
    assert_eq!(scale("model.layers.1.self_attn.v_proj"), 4.0);
    assert!((scale("model.layers.1.self_attn.o_proj") - 8.0 / 2f64.sqrt()).abs() < 1e-12);
    assert_eq!(scale("model.layers.0.mlp.down_proj"), 0.5);
    assert_eq!(scale("model.layers.10.mlp.down_proj"), 4.0, "layer 10 does not end in layers.0");
    let adapter = Adapter::new(config, &base(), 1).unwrap();
    assert_eq!(adapter.layout.find(3, Projection::O).unwrap().rank, 2);
    assert_eq!(adapter.layout.find(3, Projection::V).unwrap().rank, 4);
}

#[test]
fn a_new_adapter_is_kaiming_uniform_and_zero() {
    let adapter = Adapter::new(config(json!({"target_modules": "all-linear", "r": 8})), &base(), 7).unwrap();
    let other = Adapter::new(config(json!({"target_modules": "all-linear", "r": 8})), &base(), 8).unwrap();
    assert_ne!(adapter.data, other.data);
    let mut squares = 0.0;
    let mut count = 0.0;
    for pair in &adapter.layout.pairs {
        assert!(adapter.data[pair.b.clone()].iter().all(|&value| value == 0.0));
        let [_, inputs] = pair.projection.shape(&base());
        for &value in &adapter.data[pair.a.clone()] {
            let unit = f64::from(value) * (inputs as f64).sqrt();
            assert!(unit.abs() <= 1.0 + 1e-6);
            squares += unit * unit;
            count += 1.0;
        }
    }
    // The variance of a uniform variable in ±1.
    assert!((squares / count - 1.0 / 3.0).abs() < 0.01, "{}", squares / count);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let refused = |value: Value, names: &str| {
        let made = LoraConfig::from_fields(fields(value), "adapter_config.json");
        let error = made.and_then(|config| Adapter::new(config, &base(), 1)).unwrap_err();
        assert_eq!(error.code(), "ZA_ADAPTER_CONFIG", "{error}");
        assert!(error.to_string().contains(names) && error.to_string().contains("Remedy: "), "{error} names {names}");
    };
    refused(json!({"target_modules": ["q_proj", "query"]}), "query");
    refused(json!({"target_modules": ["query"]}), "gate_proj");
    refused(json!({"target_modules": "q_proj"}), "target_modules");
    refused(json!({"target_modules": []}), "target_modules");
    refused(json!({"target_modules": "(q_proj"}), "(q_proj");
    refused(json!({"target_modules": r".*(?=q_proj)q_proj"}), "cannot be honoured");
    refused(json!({"target_modules": ["q_proj", "lm_head"]}), "lm_head");
    refused(json!({"target_modules": ["q_proj"], "r": 0}), "field `r`");
    refused(json!({"target_modules": ["q_proj"], "r": 2.5}), "2.5");
    refused(json!({"target_modules": ["q_proj"], "r": 1e9}), "65536");
    refused(json!({"target_modules": ["q_proj"], "lora_alpha": 0}), "lora_alpha");
    refused(json!({"target_modules": ["q_proj"], "lora_dropout": 1}), "lora_dropout");
    refused(json!({"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 0}}), "rank_pattern.q_proj");
    refused(json!({"target_modules": ["q_proj"], "rank_pattern": {"v_proj": 2}}), "v_proj");
    refused(json!({"target_modules": ["q_proj"], "alpha_pattern": {"[": 2}}), "alpha_pattern.[");
    for (name, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("lora_bias", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("layers_to_transform", json!([0, 1])),
        ("layer_replication", json!([[0, 4], [2, 5]])),
        ("fan_in_fan_out", json!(true)),
        ("alora_invocation_tokens", json!([3])),
        ("trainable_token_indices", json!([3])),
        ("target_parameters", json!(["x"])),
        ("init_lora_weights", json!("pissa")),
        ("use_qalora", json!(true)),
        ("peft_type", json!("IA3")),
        ("something_of_2027", json!(3)),
    ] {
        refused(json!({"target_modules": ["q_proj"], name: value}), name);
    }
    assert_eq!(LoraConfig::from_json("[]", "x").unwrap_err().code(), "ZA_ADAPTER_CONFIG");
    assert_eq!(LoraConfig::from_json("{", "x").unwrap_err().code(), "ZA_ADAPTER_CONFIG");
}

#[test]
fn a_rank_that_the_file_does_not_have_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let config = LoraConfig::from_fields(fields(json!({"target_modules": ["q_proj"], "r": 2})), "x").unwrap();
    super::save(&Adapter::new(config, &base(), 1).unwrap(), folder.path(), None).unwrap();
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["r"] = json!(60_000);
    std::fs::write(&path, config.to_string()).unwrap();
    let used = peak(|| {
        let error = super::load(folder.path(), &base()).unwrap_err();
        assert_eq!(error.code(), "ZA_ADAPTER_BASE");
        assert!(error.to_string().contains("60000"), "{error}");
    });
    assert!(used < 1 << 20, "{used} bytes");
}

/// The golden adapters of PEFT, or a loud skip.
fn golden(name: &str) -> Option<PathBuf> {
    let folder = shared("ZEPHYR_GOLDEN", "golden")?.join(name);
    folder.is_dir().then_some(folder)
}

fn copied(folder: &Path, place: &Path) {
    fs::copy(folder.join("lora/adapter_config.json"), place.join("adapter_config.json")).unwrap();
    fs::copy(folder.join("lora/final.safetensors"), place.join("adapter_model.safetensors")).unwrap();
}

#[test]
fn golden_adapters_are_saved_as_peft_saves_them() {
    for name in ["window", "headdim"] {
        let Some(folder) = golden(name) else { return };
        let place = tempfile::tempdir().unwrap();
        copied(&folder, place.path());
        let model = weights::load(&folder).unwrap().weights;
        let adapter = load(place.path(), &model.config).unwrap();
        let again = place.path().join("again");
        save(&adapter, &again, None).unwrap();
        let text = |path: PathBuf| -> Value { serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
        let (written, original) =
            (text(again.join("adapter_config.json")), text(folder.join("lora/adapter_config.json")));
        assert_eq!(written, original);
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&written), keys(&original), "in the same order");
        let file = weights::read_safetensors(&again.join("adapter_model.safetensors")).unwrap();
        let theirs = weights::read_safetensors(&folder.join("lora/final.safetensors")).unwrap();
        assert_eq!(file.tensors().len(), theirs.tensors().len());
        for tensor in theirs.tensors() {
            assert_eq!(file.find(&tensor.name).unwrap().shape, tensor.shape);
            assert_eq!(file.floats(&tensor.name).unwrap(), theirs.floats(&tensor.name).unwrap());
        }
        assert_eq!(file.metadata(), [("format".to_owned(), "pt".to_owned())]);
        assert_eq!(load(&again, &model.config).unwrap().data, adapter.data);
    }
}

#[test]
fn an_adapter_of_another_base_is_refused_with_names_and_shapes() {
    let (Some(window), Some(headdim)) = (golden("window"), golden("headdim")) else { return };
    let place = tempfile::tempdir().unwrap();
    copied(&window, place.path());
    let error = load(place.path(), &weights::load(&headdim).unwrap().weights.config).unwrap_err();
    assert_eq!(error.code(), "ZA_ADAPTER_BASE");
    assert!(error.to_string().contains("base_model.model.model.layers."), "{error}");

    let base = weights::load(&window).unwrap().weights.config;
    let write = |change: &dyn Fn(&mut Value)| {
        let mut value: Value =
            serde_json::from_str(&fs::read_to_string(window.join("lora/adapter_config.json")).unwrap()).unwrap();
        change(&mut value);
        fs::write(place.path().join("adapter_config.json"), value.to_string()).unwrap();
        load(place.path(), &base).unwrap_err().to_string()
    };
    let error = write(&|value| value["r"] = json!(8));
    assert!(error.contains("lora_A") && error.contains("[4, ") && error.contains("[8, "), "{error}");
    let error = write(&|value| value["target_modules"] = json!(["q_proj"]));
    assert!(error.contains("no place for"), "{error}");
    let error = write(&|value| value["target_modules"] = json!(["query_key_value"]));
    assert!(error.contains("mean no projection"), "{error}");
    fs::remove_file(place.path().join("adapter_config.json")).unwrap();
    assert_eq!(read_config(place.path()).unwrap_err().code(), "ZA_MODEL_NOT_FOUND");
}

/// Shared case 13: `use_rslora`, `rank_pattern` and `alpha_pattern`.
#[test]
fn case_13_rank_stabilised_adapters() {
    let Some(case) = shared("ZEPHYR_CASES", "cases").map(|cases| cases.join("13-rank-stabilised-adapter")) else {
        return;
    };
    let expected: Value = serde_json::from_str(&fs::read_to_string(case.join("expected.json")).unwrap()).unwrap();
    let model = weights::load(&case.join("base")).unwrap().weights;
    let sum = |model: Model, ids: &[u32]| -> f64 {
        Generator::new(model).score(ids).unwrap().iter().map(|&logp| f64::from(logp)).sum()
    };
    for name in ["adapter-rslora", "adapter-patterns"] {
        let adapter = load(&case.join(name), &model.config).unwrap();
        let expected = &expected[name];
        for (path, scale) in expected["scaling"].as_object().unwrap() {
            let found = adapter.config.scale_of(&format!("model.layers.{path}"));
            assert!((found - scale.as_f64().unwrap()).abs() < 1e-9, "{name} {path}: {found}");
        }
        let ids: Vec<u32> = expected["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let wanted = expected["sum"].as_f64().unwrap();
        let found = sum(Model::adapted(&model, &adapter), &ids);
        assert!((found - wanted).abs() < 1e-3, "{name}: {found} for {wanted}");
        let mut merged: Weights = model.clone();
        merge(&mut merged, &adapter);
        let found = sum((&merged).into(), &ids);
        assert!((found - wanted).abs() < 1e-3, "{name} merged: {found} for {wanted}");
        let place = tempfile::tempdir().unwrap();
        save(&adapter, place.path(), None).unwrap();
        for field in ["use_rslora", "rank_pattern", "alpha_pattern", "r", "lora_alpha"] {
            let read = |folder: &Path| -> Value {
                serde_json::from_str(&fs::read_to_string(folder.join("adapter_config.json")).unwrap()).unwrap()
            };
            assert_eq!(read(place.path())[field], read(&case.join(name))[field], "{field}");
        }
    }
}
