//! A pair over one copy of its prompt: the same loss, metrics and gradients as two separate sequences.

use zephyr_mistral::Model;
use zephyr_mistral::train::Recompute;

use super::{Row, denominator, eight_pairs, json, logps, models, packed_pairs, relative, update, weights};
use crate::batch::{Packed, Pair, Sequence};
use crate::losses::{DpoLoss, LossConfig};
use crate::session::{ReferenceLogps, Session, SessionOptions, StepResult, Sums};

const WITHIN: f64 = 1e-5;

/// Tokens before the first supervised one of both sides.
pub(super) fn prompt(pair: &[Row; 2]) -> usize {
    let [chosen, rejected] =
        pair.each_ref().map(|row| row.supervised.iter().position(|&learnt| learnt).unwrap_or(row.ids.len()));
    chosen.min(rejected)
}

pub(super) fn pair(prompt: usize, [chosen, rejected]: &[Row; 2]) -> Pair<'_> {
    Pair { prompt, chosen: chosen.sequence(), rejected: rejected.sequence() }
}

#[test]
fn a_dpo_step_over_shared_prompts_is_that_of_separate_sequences() {
    let several = LossConfig { losses: vec![(DpoLoss::Sigmoid, 1.0), (DpoLoss::Sft, 0.3)], ..LossConfig::default() };
    for folder in models() {
        let policy = weights(folder.join("model.safetensors"));
        let pairs = eight_pairs(&json(folder.join("dpo.json")));
        let (chosen, rejected) = logps(&weights(folder.join("ref.safetensors")), &pairs);
        let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
        let apart = packed_pairs(&pairs);
        let together = Packed::pairs(pairs.iter().map(|sides| pair(prompt(sides), sides)), true).unwrap();
        // The last four pairs are of two prompts each and stay whole.
        let saved: usize = pairs[..4].iter().map(prompt).sum();
        assert!(saved > 0);
        assert_eq!(together.ids.len() + saved, apart.ids.len());
        assert_eq!(together.prefixes[8..], [0; 8]);
        assert_eq!((together.tokens(), together.computed_tokens()), (apart.tokens(), together.ids.len() as u64));
        assert_eq!((&together.targets, &together.owner), (&apart.targets, &apart.owner));
        assert_eq!(together.predicted, apart.predicted);

        for recompute in [Recompute::None, Recompute::NormsAndSwiglu, Recompute::Layer] {
            for config in [LossConfig::default(), several.clone()] {
                let step = |packed: &Packed| {
                    let options = SessionOptions { recompute, head_chunk: 7, ..SessionOptions::default() };
                    let mut session = Session::new(&policy, options);
                    let counts = denominator(&pairs);
                    session.accumulate_dpo(&policy, packed, reference, &config, counts).unwrap();
                    let gradients = session.gradients().unwrap().to_vec();
                    let result = session.apply(&mut policy.clone(), &update(1e-3)).unwrap();
                    let evaluated = session.evaluate_dpo(&policy, packed, reference, &config, counts).unwrap().means();
                    (gradients, result, evaluated, session.sequence_logps(&policy, packed).unwrap())
                };
                let (gradients, expected, expected_means, expected_logps) = step(&apart);
                let (found_gradients, found, means, logps) = step(&together);
                for tensor in &policy.layout.tensors {
                    let range = tensor.range.clone();
                    let error = relative(&found_gradients[range.clone()], &gradients[range]);
                    assert!(error < WITHIN, "{recompute:?}: the gradient of {} is off by {error:e}", tensor.name);
                }
                same_metrics(&found, &expected);
                near(serde_json::to_value(means).unwrap(), serde_json::to_value(expected_means).unwrap());
                near(serde_json::to_value(logps).unwrap(), serde_json::to_value(expected_logps).unwrap());
                assert_eq!(found.tokens_seen, expected.tokens_seen);
                assert_eq!(expected.computed_tokens, expected.tokens_seen);
                assert_eq!(found.computed_tokens, expected.tokens_seen - saved as u64);
            }
        }
    }
}

/// The same over an adapter that does something: loss, metrics, and the gradient of every A and B.
#[test]
fn so_is_one_of_an_adapter() {
    for folder in models() {
        let base = weights(folder.join("model.safetensors"));
        let adapter = super::lora::moved(&base, 0.0);
        let model = Model::adapted(&base, &adapter);
        let pairs = eight_pairs(&json(folder.join("dpo.json")));
        let (chosen, rejected) = logps(&base, &pairs);
        let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
        let apart = packed_pairs(&pairs);
        let together = Packed::pairs(pairs.iter().map(|sides| pair(prompt(sides), sides)), true).unwrap();
        for recompute in [Recompute::None, Recompute::NormsAndSwiglu, Recompute::Layer] {
            let step = |packed: &Packed| {
                let options = SessionOptions { recompute, head_chunk: 7, ..SessionOptions::default() };
                let mut session = Session::new(&base, options);
                let (config, counts) = (LossConfig::default(), denominator(&pairs));
                session.accumulate_dpo(model, packed, reference, &config, counts).unwrap();
                let gradients = session.gradients().unwrap().to_vec();
                (gradients, session.apply(&mut adapter.clone(), &update(1e-3)).unwrap())
            };
            let ((gradients, expected), (found_gradients, found)) = (step(&apart), step(&together));
            for tensor in &adapter.layout.tensors {
                let range = tensor.range.clone();
                let error = relative(&found_gradients[range.clone()], &gradients[range]);
                assert!(error < WITHIN, "{recompute:?}: the gradient of {} is off by {error:e}", tensor.name);
            }
            same_metrics(&found, &expected);
            assert!(found.computed_tokens < expected.computed_tokens);
        }
    }
}

fn same_metrics(found: &StepResult, expected: &StepResult) {
    let (Sums::Dpo(a), Sums::Dpo(b)) = (found.sums, expected.sums) else { panic!("DPO was accumulated") };
    near(serde_json::json!([found.grad_norm, a.loss]), serde_json::json!([expected.grad_norm, b.loss]));
    near(serde_json::to_value(a.means()).unwrap(), serde_json::to_value(b.means()).unwrap());
}

/// All numbers of two records, to 1e-5 of the larger of 1 and the value.
fn near(found: serde_json::Value, expected: serde_json::Value) {
    let numbers = |value: serde_json::Value| -> Vec<f64> {
        match value {
            serde_json::Value::Object(map) => map.values().map(|value| value.as_f64().unwrap()).collect(),
            serde_json::Value::Array(list) => list.iter().map(|value| value.as_f64().unwrap()).collect(),
            other => panic!("{other}"),
        }
    };
    let text = format!("{found} for {expected}");
    let (found, expected) = (numbers(found), numbers(expected));
    assert_eq!(found.len(), expected.len(), "{text}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= WITHIN * expected.abs().max(1.0), "{text}");
    }
}

#[test]
fn the_layout_of_a_pair_by_hand() {
    // Prompt 7 8 9, of which the chosen side learns the 8; chosen answer 1 2, rejected answer 3 4 5.
    let chosen = Sequence { ids: &[7, 8, 9, 1, 2], supervised: &[false, true, false, true, true] };
    let rejected = Sequence { ids: &[7, 8, 9, 3, 4, 5], supervised: &[false, false, false, true, false, true] };
    let pair = Pair { prompt: 3, chosen, rejected };
    let packed = Packed::pairs([pair, pair], true).unwrap();
    assert_eq!(packed.ids, [7, 8, 9, 1, 2, 3, 4, 5, 7, 8, 9, 1, 2, 3, 4, 5]);
    assert_eq!(packed.positions, [0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2, 3, 4, 3, 4, 5]);
    assert_eq!(packed.segments, [0, 5, 8, 13, 16]);
    assert_eq!(packed.prefixes, [0, 3, 0, 3]);
    // Row 2, the last of the prompt, predicts the first token of either answer.
    assert_eq!(packed.rows, [0, 2, 3, 2, 6, 8, 10, 11, 10, 14]);
    assert_eq!(packed.targets, [8, 1, 2, 3, 5, 8, 1, 2, 3, 5]);
    assert_eq!(packed.owner, [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]);
    assert_eq!(packed.predicted, [3, 2, 3, 2]);
    assert_eq!((packed.tokens(), packed.computed_tokens()), (22, 16));

    let whole = |pair: Pair, shared| {
        let packed = Packed::pairs([pair], shared).unwrap();
        let separate = Packed::new([pair.chosen, pair.rejected]).unwrap();
        assert_eq!((&packed.ids, &packed.rows), (&separate.ids, &separate.rows));
        assert_eq!(packed.prefixes, [0, 0]);
    };
    whole(pair, false);
    // Sides that part before the prompt's end, or end before it, are not two answers to one prompt.
    whole(Pair { rejected: Sequence { ids: &[7, 0, 9, 3, 4, 5], ..rejected }, ..pair }, true);
    whole(Pair { prompt: 6, ..pair }, true);
    whole(Pair { prompt: 0, ..pair }, true);

    let nothing = Sequence { supervised: &[false; 6], ..rejected };
    let error = Packed::pairs([pair, Pair { rejected: nothing, ..pair }], true).unwrap_err();
    assert!(error.to_string().contains("sequence 3"), "{error}");
}

/// Losses that learn the prompt too (on one side or both) see each copy of it.
#[test]
fn a_supervised_prompt_is_learnt_by_the_sides_that_supervise_it() {
    for folder in models() {
        let model = weights(folder.join("model.safetensors"));
        let mut pairs = eight_pairs(&json(folder.join("dpo.json")))[..4].to_vec();
        let lengths: Vec<usize> = pairs.iter().map(prompt).collect();
        pairs[0][0].supervised.fill(true);
        pairs[1][1].supervised.fill(true);
        pairs[2].iter_mut().for_each(|row| row.supervised.fill(true));
        let packed = |shared| {
            let pairs = pairs.iter().zip(&lengths).map(|(sides, &prompt)| pair(prompt, sides));
            Packed::pairs(pairs, shared).unwrap()
        };
        let step = |packed: &Packed| {
            let mut session = super::session(&model);
            let sums = session.accumulate_sft(&model, packed, 100.0).unwrap();
            (sums, session.gradients().unwrap().to_vec())
        };
        let (expected, gradients) = step(&packed(false));
        let (sums, found) = step(&packed(true));
        assert!(packed(true).ids.len() < packed(false).ids.len());
        assert_eq!(sums.tokens.count, expected.tokens.count);
        assert!((sums.loss - expected.loss).abs() <= WITHIN * expected.loss);
        let error = relative(&found, &gradients);
        assert!(error < WITHIN, "the gradient is off by {error:e}");
    }
}
