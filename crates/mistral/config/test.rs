use super::*;
use proptest::prelude::*;

fn base() -> Value {
    json!({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": 100, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "sliding_window": null, "max_position_embeddings": 512
    })
}

fn with(changes: Value) -> Result<Config> {
    let mut value = base();
    for (name, change) in changes.as_object().unwrap() {
        value[name] = change.clone();
    }
    Config::from_json(&value.to_string(), "some/config.json")
}

fn without(name: &str) -> Result<Config> {
    let mut value = base();
    value.as_object_mut().unwrap().remove(name);
    Config::from_json(&value.to_string(), "some/config.json")
}

#[test]
fn both_ways_to_write_the_rope_base() {
    for (fields, theta) in [
        (json!({}), 10_000.0),
        (json!({ "rope_theta": 1e6 }), 1e6),
        (json!({ "rope_theta": 1e5, "rope_scaling": null }), 1e5),
        (json!({ "rope_parameters": { "rope_theta": 5e5, "rope_type": "default" } }), 5e5),
        (json!({ "rope_scaling": { "type": "default" } }), 10_000.0),
    ] {
        assert_eq!(with(fields).unwrap().rope_theta, theta);
    }
}

#[test]
fn absent_and_null_fields() {
    let config = with(json!({})).unwrap();
    assert_eq!((config.head_dim, config.kv_heads, config.sliding_window), (8, 2, None));
    assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (Some(1), &[2][..]));
    assert!(!config.tie_word_embeddings);
    assert_eq!(with(json!({ "head_dim": null })).unwrap().head_dim, 8);
    assert_eq!(with(json!({ "head_dim": 16 })).unwrap().head_dim, 16);
    assert_eq!(with(json!({ "sliding_window": 4 })).unwrap().sliding_window, Some(4));
    assert_eq!(with(json!({ "num_key_value_heads": null })).unwrap().kv_heads, 8);
    assert_eq!(with(json!({ "bos_token_id": null, "eos_token_id": null })).unwrap().eos_token_ids, [0u32; 0]);
    assert_eq!(with(json!({ "eos_token_id": [5, 6] })).unwrap().eos_token_ids, [5, 6]);
    // The defaults of MistralConfig and LlamaConfig differ.
    assert_eq!(without("sliding_window").unwrap().sliding_window, Some(4096));
    assert_eq!(without("max_position_embeddings").unwrap().max_position_embeddings, 131_072);
    let llama = with(json!({ "model_type": "llama", "architectures": ["LlamaForCausalLM"], "sliding_window": 7,
        "num_key_value_heads": null, "max_position_embeddings": null }))
    .unwrap();
    assert_eq!((llama.sliding_window, llama.kv_heads, llama.max_position_embeddings), (None, 8, 2048));
    assert_eq!(without("model_type").unwrap().model_type, "mistral");
    assert_eq!(without("architectures").unwrap().model_type, "mistral");
}

#[test]
fn what_is_not_implemented_is_named() {
    for (change, word) in [
        (json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8.0 } }), "llama3"),
        (json!({ "rope_scaling": { "type": "linear", "factor": 2.0 } }), "linear"),
        (json!({ "rope_scaling": { "factor": 2.0 } }), "rope_scaling"),
        (json!({ "rope_parameters": { "rope_theta": 1e4, "rope_type": "yarn" } }), "yarn"),
        (json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }), "partial_rotary_factor"),
        (json!({ "attention_bias": true }), "attention_bias"),
        (json!({ "mlp_bias": true }), "mlp_bias"),
        (json!({ "num_local_experts": 8 }), "num_local_experts"),
        (json!({ "hidden_act": "gelu" }), "gelu"),
        (json!({ "architectures": ["Qwen2ForCausalLM"] }), "Qwen2ForCausalLM"),
        (json!({ "architectures": null, "model_type": "gemma" }), "gemma"),
        (json!({ "quantization_config": { "bits": 4 } }), "quantization_config"),
        (json!({ "layer_types": ["full_attention", "sliding_attention"] }), "layer_types"),
    ] {
        let error = with(change).expect_err(word);
        assert_eq!(error.code(), "ZA_MODEL_UNSUPPORTED", "{error}");
        let message = error.to_string();
        assert!(message.contains(word) && message.contains("some/config.json"), "{message}");
    }
}

#[test]
fn wrong_fields_are_named() {
    for (change, field) in [
        (json!({ "vocab_size": 0 }), "vocab_size"),
        (json!({ "vocab_size": null }), "vocab_size"),
        (json!({ "hidden_size": -4 }), "hidden_size"),
        (json!({ "hidden_size": 65 }), "head_dim"),
        (json!({ "hidden_size": 1u64 << 40 }), "hidden_size"),
        (json!({ "num_hidden_layers": 1.5 }), "num_hidden_layers"),
        (json!({ "num_attention_heads": "8" }), "num_attention_heads"),
        (json!({ "num_key_value_heads": 3 }), "num_key_value_heads"),
        (json!({ "head_dim": 7 }), "head_dim"),
        (json!({ "head_dim": 0 }), "head_dim"),
        (json!({ "sliding_window": 0 }), "sliding_window"),
        (json!({ "rope_theta": 0 }), "rope_theta"),
        (json!({ "rope_parameters": { "rope_theta": "x" } }), "rope_parameters.rope_theta"),
        (json!({ "rms_norm_eps": "small" }), "rms_norm_eps"),
        (json!({ "tie_word_embeddings": 1 }), "tie_word_embeddings"),
        (json!({ "eos_token_id": "</s>" }), "eos_token_id"),
        (json!({ "eos_token_id": [1, -1] }), "eos_token_id"),
        (json!({ "model_type": null, "architectures": null }), "model_type"),
    ] {
        let error = with(change).expect_err(field);
        assert_eq!(error.code(), "ZA_MODEL_CONFIG", "{error}");
        let message = error.to_string();
        assert!(message.contains(&format!("`{field}`")) && message.contains("some/config.json"), "{message}");
    }
    for text in ["", "[]", "{", "nonsense"] {
        assert_eq!(Config::from_json(text, "c").unwrap_err().code(), "ZA_MODEL_FORMAT");
    }
}

#[test]
fn what_is_written_reads_as_the_same() {
    for change in [
        json!({ "some_field": [1, 2] }),
        json!({ "sliding_window": 9, "eos_token_id": [3, 4], "tie_word_embeddings": true, "rope_theta": 1e6 }),
        json!({ "model_type": "llama", "architectures": null, "bos_token_id": null, "rms_norm_eps": 3e-6 }),
    ] {
        let config = with(change).unwrap();
        let again = Config::from_json(&config.to_json().to_string(), "again").unwrap();
        assert_eq!(again.raw.get("some_field"), config.raw.get("some_field"));
        assert_eq!(Config { raw: config.raw.clone(), ..again }, config);
    }
    assert_eq!(with(json!({})).unwrap().to_json()["rms_norm_eps"], json!(1e-5));
}

#[test]
fn counts_parameters() {
    let config = with(json!({})).unwrap();
    let layer = 64 * 64 * 2 + 64 * 16 * 2 + 3 * 64 * 128 + 2 * 64;
    assert_eq!(config.parameters(), Some(2 * layer + 2 * 100 * 64 + 64));
    assert_eq!(config.parameters(), Some(crate::layout::Layout::new(&config).len));
}

const FIELDS: [&str; 26] = [
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "sliding_window",
    "layer_types",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "hidden_act",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "torch_dtype",
    "quantization_config",
];

/// What stands in damaged files, and in those of other programs and models.
fn odd() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0u64), 1..300u64, Just(1 << 24), Just(1 << 31), Just(1 << 32), any::<u64>()]
            .prop_map(Value::from),
        prop_oneof![-3..0i64, any::<i64>()].prop_map(Value::from),
        prop_oneof![Just(0.5), Just(-0.0), Just(1e-300), Just(1e308), any::<f64>()].prop_map(Value::from),
        prop_oneof![
            Just(String::new()),
            Just("mistral".to_string()),
            Just("llama".to_string()),
            Just("default".to_string()),
            Just("silu".to_string()),
            Just("8".to_string()),
            "[a-z_]{1,8}",
            any::<String>(),
        ]
        .prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![Just("rope_theta"), Just("rope_type"), Just("type"), Just("factor"), Just("x")];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn odd_fields_are_refused_by_name_or_kept(
        changes in prop::collection::vec((prop::sample::select(&FIELDS[..]), prop::option::weighted(0.9, odd())), 1..4)
    ) {
        let mut value = base();
        for (name, change) in &changes {
            match change {
                Some(change) => value[*name] = change.clone(),
                None => drop(value.as_object_mut().unwrap().remove(*name)),
            }
        }
        match Config::from_json(&value.to_string(), "some/config.json") {
            Err(error) => {
                prop_assert!(["ZA_MODEL_CONFIG", "ZA_MODEL_UNSUPPORTED"].contains(&error.code()), "{}", error);
                let message = error.to_string();
                prop_assert!(message.contains("some/config.json") && message.contains("Remedy: "), "{}", message);
            }
            Ok(config) => {
                prop_assert!(config.parameters().is_some());
                let written = config.to_json().to_string();
                let again = Config::from_json(&written, "again.json").unwrap();
                prop_assert_eq!(Config { raw: config.raw.clone(), ..again }, config);
            }
        }
    }
}
