//! The head dimensions of models in use, which the golden models are too small for: bf16 beside the host.

use super::super::shared;
use super::*;

const VOCABULARY: u32 = 96;
/// Tokens that the two sides of a pair begin with.
const PROMPT: usize = 41;

/// Two layers, two heads over one key and value, and a window that longer rows leave. The weights are small enough for scores of a
/// few units, as trained models have: sharper attention than that makes the most of every rounding.
fn random_model(head_dim: usize) -> Weights {
    let config = json!({
        "model_type": "mistral", "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": head_dim, "sliding_window": 100,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "initializer_range": 0.05
    });
    Weights::random(Config::from_json(&config.to_string(), "test").unwrap(), 3)
}

/// A row that learns what comes after its prompt; rows with one `seed` begin alike, whatever comes then.
fn row(seed: u32, answer: u32, len: usize) -> Row {
    let id = |at: usize| {
        let from = if at < PROMPT { seed } else { seed + answer };
        (from * 31 + at as u32 * (7 + from)) % VOCABULARY
    };
    Row { ids: (0..len).map(id).collect(), supervised: (0..len).map(|at| at >= PROMPT).collect() }
}

/// With the feature `card` the card (ZEPHYR_ATTENTION tells whose kernels of attention), else the emulation with either.
fn devices() -> Vec<Arc<dyn Device>> {
    if cfg!(feature = "card") {
        return device().into_iter().collect();
    }
    let hopper = Emulated::hopper(Watch::Off, 0).map(|hopper| hopper as Arc<dyn Device>);
    device().into_iter().chain(hopper).collect()
}

/// The bounds are those of the golden models in bf16.
fn near(what: &str, found: &[(f64, Vec<f32>)], expected: &[(f64, Vec<f32>)]) {
    for (step, ((loss, gradient), (expected, expected_gradient))) in found.iter().zip(expected).enumerate() {
        let (loss, gradient) = ((loss - expected).abs() / expected, relative(gradient, expected_gradient));
        eprintln!("{what}, step {}: loss off by {loss:.1e}, gradient by {gradient:.1e}", step + 1);
        assert!(loss < 1e-2 && gradient < 5e-2, "{what}, step {}: {loss} {gradient}", step + 1);
    }
}

#[test]
fn heads_of_64_and_128_in_bf16_on_a_device_learn_what_the_host_learns() {
    for head_dim in [64, 128] {
        let start = random_model(head_dim);
        let documents = packed(&[row(1, 1, 150), row(2, 1, 67)]);
        let pairs = [[row(3, 1, 90), row(3, 2, 131)], [row(4, 1, 60), row(4, 2, 58)]];
        let preferences = Packed::pairs(pairs.iter().map(|sides| shared::pair(PROMPT, sides)), true).unwrap();
        assert!(preferences.computed_tokens() < packed_pairs(&pairs).computed_tokens());
        let (chosen, rejected) = logps(&start, &pairs);
        // A reference that finds the rejected answers worse than the policy does.
        let rejected: Vec<f64> = rejected.iter().map(|logp| logp - 5.0).collect();
        let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
        let sft =
            |session: &mut Session, model: &Weights| session.accumulate_sft(model, &documents, 100.0).unwrap().loss;
        let dpo = |session: &mut Session, model: &Weights| {
            let config = LossConfig::default();
            session.accumulate_dpo(model, &preferences, reference, &config, denominator(&pairs)).unwrap().loss
        };
        let two_steps = |mut session: Session, loss_of: &dyn Fn(&mut Session, &Weights) -> f64| {
            let mut model = start.clone();
            let mut step = || {
                let loss = loss_of(&mut session, &model);
                let gradients = session.gradients().unwrap().to_vec();
                session.apply(&mut model, &update(1e-3)).unwrap();
                (loss, gradients)
            };
            [step(), step()]
        };
        for (name, loss_of) in [("SFT", &sft as &dyn Fn(&mut Session, &Weights) -> f64), ("DPO", &dpo)] {
            let expected = two_steps(Session::new(&start, SessionOptions::default()), loss_of);
            assert!(expected[1].0 < expected[0].0, "{name} learns nothing");
            for device in devices() {
                let what = format!("{name}, heads of {head_dim}, Hopper's kernels {}", device.takes_hopper_kernels());
                let found = two_steps(on(device, Precision::Bf16, SessionOptions::default()), loss_of);
                near(&what, &found, &expected);
            }
        }
    }
}
