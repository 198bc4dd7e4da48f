//! Every case of dpo.json: loss, gradient norm and metrics of TRL on one batch.

use serde_json::Value;

use zephyr_mistral::Model;
use zephyr_mistral::train::Recompute;

use super::shared::{pair, prompt};
use super::{Row, denominator, golden_pairs, json, logps, models, norm_of, packed_pairs, relative, session, weights};
use crate::batch::Packed;
use crate::losses::{LossConfig, LossSettings};
use crate::session::{ReferenceLogps, Session, SessionOptions};

/// What the reference allows, relative.
const WITHIN: f64 = 1e-4;
/// TRL's log-prob sums are f32, of some hundred nats; this is what their rounding does to values near 0.
const ROUNDING: f64 = 5e-6;

fn close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs();
    assert!(error <= WITHIN * expected.abs() + ROUNDING, "{what}: {found} for {expected}");
}

/// A case's settings; `smoothing` false takes TRL's number where TRL ignores it.
fn config(case: &Value, smoothing: bool) -> LossConfig {
    let mut settings = serde_json::Map::new();
    for key in ["loss_type", "loss_weights", "beta", "label_smoothing", "f_divergence_type", "f_alpha_divergence_coef"]
    {
        if let Some(value) = case.get(key).filter(|_| smoothing || key != "label_smoothing") {
            settings.insert(key.to_owned(), value.clone());
        }
    }
    let settings: LossSettings = serde_json::from_value(Value::Object(settings)).unwrap();
    LossConfig::try_from(settings).unwrap()
}

/// TRL ignores label smoothing for `sigmoid`.
fn ignored_by_trl(case: &Value) -> bool {
    case["loss_type"] == "sigmoid" && case.get("label_smoothing").is_some_and(|value| value.as_f64() != Some(0.0))
}

/// However the batch is laid out, and whatever is computed again.
#[test]
fn every_case_of_dpo_json() {
    for folder in models() {
        let dpo = json(folder.join("dpo.json"));
        let pairs = golden_pairs(&dpo);
        let policy = weights(folder.join("model.safetensors"));
        let (chosen, rejected) = logps(&weights(folder.join("ref.safetensors")), &pairs);
        let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
        let apart = packed_pairs(&pairs);
        let shared = Packed::pairs(pairs.iter().map(|sides| pair(prompt(sides), sides)), true).unwrap();
        assert!(shared.computed_tokens() < apart.computed_tokens());
        let adapter = super::lora::adapter(&policy, 0.0);
        let cases = dpo["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let name = format!("{}: {}", folder.display(), serde_json::to_string(&case["loss_type"]).unwrap());
            let config = config(case, !ignored_by_trl(case));
            for (packed, recompute) in [
                (&apart, Recompute::NormsAndSwiglu),
                (&shared, Recompute::None),
                (&shared, Recompute::NormsAndSwiglu),
                (&shared, Recompute::Layer),
            ] {
                let options = SessionOptions { recompute, ..SessionOptions::default() };
                let mut session = Session::new(&policy, options.clone());
                let sums = session.accumulate_dpo(&policy, packed, reference, &config, denominator(&pairs)).unwrap();
                close(sums.loss, case["loss"].as_f64().unwrap(), &format!("{name} loss"));
                close(
                    norm_of(&session.gradients().unwrap()),
                    case["grad_norm"].as_f64().unwrap(),
                    &format!("{name} grad_norm"),
                );
                // An adapter that changes nothing yet: the numbers are the model's.
                let adapted = Model::adapted(&policy, &adapter);
                let mut session = Session::new(&policy, options);
                let under_adapter =
                    session.accumulate_dpo(adapted, packed, reference, &config, denominator(&pairs)).unwrap();
                close(under_adapter.loss, case["loss"].as_f64().unwrap(), &format!("{name} loss under an adapter"));
                // The divergence cases carry no metrics.
                let Some(metrics) = case.get("metrics").and_then(Value::as_object) else { continue };
                for sums in [sums, under_adapter] {
                    let found = serde_json::to_value(sums.means()).unwrap();
                    for (key, expected) in metrics {
                        let expected = expected.as_f64().unwrap();
                        match key.as_str() {
                            "num_tokens" => assert_eq!(packed.tokens() as f64, expected, "{name}"),
                            _ => close(found[key].as_f64().unwrap(), expected, &format!("{name} {key}")),
                        }
                    }
                }
            }
        }
    }
}

/// cDPO: `−(1 − ε) log σ(m) − ε log σ(−m)`, m the margin of the rewards. Its gradient is the same mixture of the
/// gradients of the pairs as they are and of the pairs swapped.
#[test]
fn sigmoid_honours_label_smoothing() {
    for folder in models() {
        let dpo = json(folder.join("dpo.json"));
        let pairs = golden_pairs(&dpo);
        let policy = weights(folder.join("model.safetensors"));
        let reference = weights(folder.join("ref.safetensors"));
        let (chosen, rejected) = logps(&policy, &pairs);
        let (ref_chosen, ref_rejected) = logps(&reference, &pairs);
        let of = |pairs: &[[Row; 2]], config: &LossConfig| {
            let (chosen, rejected) = logps(&reference, pairs);
            let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
            let mut session = session(&policy);
            let sums =
                session.accumulate_dpo(&policy, &packed_pairs(pairs), reference, config, denominator(pairs)).unwrap();
            (sums.loss, session.gradients().unwrap().to_vec())
        };
        let smoothed: Vec<&Value> =
            dpo["cases"].as_array().unwrap().iter().filter(|case| ignored_by_trl(case)).collect();
        assert!(!smoothed.is_empty());
        for case in smoothed {
            let epsilon = case["label_smoothing"].as_f64().unwrap();
            let beta = case["beta"].as_f64().unwrap();
            let cross_entropy = |margin: f64| (-margin).exp().ln_1p();
            let expected = (0..pairs.len())
                .map(|i| beta * ((chosen[i] - ref_chosen[i]) - (rejected[i] - ref_rejected[i])))
                .map(|margin| (1.0 - epsilon) * cross_entropy(margin) + epsilon * cross_entropy(-margin))
                .sum::<f64>()
                / pairs.len() as f64;
            let (loss, gradient) = of(&pairs, &config(case, true));
            assert!((loss - expected).abs() <= 1e-6 * expected, "{loss} for {expected}");
            let swapped: Vec<[Row; 2]> =
                pairs.iter().map(|[chosen, rejected]| [rejected.clone(), chosen.clone()]).collect();
            let (right, wrong) = (of(&pairs, &config(case, false)), of(&swapped, &config(case, false)));
            assert_ne!(right.0, loss, "smoothing changes the loss");
            let mixture: Vec<f32> = right
                .1
                .iter()
                .zip(&wrong.1)
                .map(|(&right, &wrong)| ((1.0 - epsilon) * f64::from(right) + epsilon * f64::from(wrong)) as f32)
                .collect();
            let error = relative(&gradient, &mixture);
            assert!(error <= 1e-5, "gradient is off by {error}");
        }
    }
}
