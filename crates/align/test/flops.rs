//! Operations of a step, against counts made by hand and against the ones of bench/gpu/flops.py.

use serde_json::json;
use zephyr_mistral::{Adapter, Config, LoraConfig, Model, Weights};

use crate::batch::{Packed, Pair, Sequence};
use crate::flops;

/// As `TINY` of bench/gpu/flops.py.
fn tiny(window: Option<usize>) -> Weights {
    let config = json!({
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_act": "silu",
        "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "sliding_window": window, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    Weights::random(Config::from_json(&config.to_string(), "config").unwrap(), 1)
}

/// `answer` of the tokens are learnt, the last ones.
fn row(length: usize, answer: usize) -> (Vec<u32>, Vec<bool>) {
    ((0..length as u32).collect(), (0..length).map(|index| index >= length - answer).collect())
}

/// q, o: 64·64; k, v: 32·64; gate, up, down: 96·64.
const LAYER: f64 = 2.0 * 4096.0 + 2.0 * 2048.0 + 3.0 * 6144.0;

#[test]
fn counts_of_a_step() {
    let weights = tiny(None);
    let (ids, supervised) = row(10, 4);
    let batch = Packed::new([Sequence { ids: &ids, supervised: &supervised }; 2]).unwrap();
    let linear = 2.0 * (20.0 * 2.0 * LAYER + 8.0 * 128.0 * 64.0);
    let attention = 2.0 * 55.0 * 4.0 * 64.0 * 2.0;
    assert_eq!(flops::training(Model::from(&weights), &batch), 3.0 * (linear + attention));
    // bench/gpu/flops.py: step(TINY, [10, 10], predicted=8), and the same with lora_rank=16.
    assert_eq!(flops::training(Model::from(&weights), &batch), 7_934_976.0);

    let config = LoraConfig::from_fields(json!({ "r": 16, "target_modules": "all-linear" }), "LoRA").unwrap();
    let adapter = Adapter::new(config, &weights.config, 1).unwrap();
    let ends = 2.0 * 128.0 + 2.0 * 96.0 + 3.0 * 160.0;
    let adapted = 2.0 * linear + 3.0 * attention + 6.0 * 20.0 * 2.0 * 16.0 * ends;
    assert_eq!(flops::training(Model::adapted(&weights, &adapter), &batch), adapted);
    assert_eq!(adapted, 8_909_824.0);
}

#[test]
fn a_window_and_a_shared_prompt_leave_work_out() {
    let (ids, supervised) = row(10, 4);
    let sequence = Sequence { ids: &ids, supervised: &supervised };
    let attention = |weights: &Weights, batch: &Packed| {
        let linear = 2.0 * (batch.ids.len() as f64 * 2.0 * LAYER + batch.rows.len() as f64 * 128.0 * 64.0);
        (flops::training(Model::from(weights), batch) / 3.0 - linear) / (4.0 * 64.0 * 2.0)
    };
    let one = Packed::new([sequence]).unwrap();
    assert_eq!(attention(&tiny(None), &one), 55.0);
    // 1 + 2 + 3 + 7 · 3
    assert_eq!(attention(&tiny(Some(3)), &one), 27.0);
    let pair = Pair { prompt: 6, chosen: sequence, rejected: sequence };
    let shared = Packed::pairs([pair], true).unwrap();
    assert_eq!(shared.ids.len(), 14);
    // The second answer: queries 6 to 9 see 7 + 8 + 9 + 10 keys.
    assert_eq!(attention(&tiny(None), &shared), 55.0 + 34.0);
}
