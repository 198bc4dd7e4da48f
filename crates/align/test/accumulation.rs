//! One step in one batch, in several micro-batches, or row by row: the same loss and the same whole gradient.

use super::{
    denominator, documents, eight_pairs, json, logps, models, packed, packed_pairs, relative, session, weights,
};
use crate::losses::{DpoLoss, FDivergence, LossConfig};
use crate::session::{ReferenceLogps, Sums};

const WITHIN: f64 = 1e-5;
/// Rows of a micro-batch: 8×1 in one step of eight rows is one by one.
const SIZES: [usize; 4] = [8, 4, 2, 1];

fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= WITHIN * expected.abs().max(1.0), "{what}: {found} for {expected}");
}

#[test]
fn sft_steps_do_not_depend_on_the_micro_batch() {
    for folder in models() {
        let model = weights(folder.join("model.safetensors"));
        let rows = documents(&folder);
        let tokens = f64::from(packed(&rows).predicted.iter().sum::<u32>());
        let step = |size: usize| {
            let mut session = session(&model);
            let losses =
                rows.chunks(size).map(|rows| session.accumulate_sft(&model, &packed(rows), tokens).unwrap().loss);
            (losses.sum::<f64>(), session)
        };
        let (loss, whole) = step(8);
        for size in SIZES {
            let (found, session) = step(size);
            near(found, loss, "loss");
            let error = relative(&session.gradients().unwrap(), &whole.gradients().unwrap());
            assert!(error <= WITHIN, "micro-batches of {size}: the gradient is off by {error}");
            assert_eq!(session.tokens_seen(), whole.tokens_seen());
        }
    }
}

#[test]
fn dpo_steps_do_not_depend_on_the_micro_batch() {
    let several = LossConfig {
        losses: vec![(DpoLoss::Sigmoid, 1.0), (DpoLoss::Sft, 0.3), (DpoLoss::Ipo, 0.01)],
        f_divergence: FDivergence::Js,
        ..LossConfig::default()
    };
    for folder in models() {
        let policy = weights(folder.join("model.safetensors"));
        let pairs = eight_pairs(&json(folder.join("dpo.json")));
        let (chosen, rejected) = logps(&weights(folder.join("ref.safetensors")), &pairs);
        let counts = denominator(&pairs);
        for config in [LossConfig::default(), several.clone()] {
            let step = |size: usize| {
                let mut session = session(&policy);
                for (index, part) in pairs.chunks(size).enumerate() {
                    let range = index * size..index * size + part.len();
                    let reference = ReferenceLogps { chosen: &chosen[range.clone()], rejected: &rejected[range] };
                    session.accumulate_dpo(&policy, &packed_pairs(part), reference, &config, counts).unwrap();
                }
                let gradient = session.gradients().unwrap().to_vec();
                let result = session.apply(&mut policy.clone(), &super::update(1e-3)).unwrap();
                let Sums::Dpo(sums) = result.sums else { panic!("DPO was accumulated, {:?} came out", result.sums) };
                (sums, gradient, result.grad_norm)
            };
            let (sums, gradient, norm) = step(8);
            for size in SIZES {
                let (found, parts, parts_norm) = step(size);
                near(found.loss, sums.loss, "loss");
                near(parts_norm, norm, "grad_norm");
                near(found.means().rewards_margins, sums.means().rewards_margins, "rewards/margins");
                near(found.means().entropy, sums.means().entropy, "entropy");
                assert_eq!((found.pairs, found.wins), (sums.pairs, sums.wins));
                let error = relative(&parts, &gradient);
                assert!(error <= WITHIN, "micro-batches of {size}: the gradient is off by {error}");
            }
        }
    }
}

#[test]
fn a_document_has_the_same_log_prob_in_any_company() {
    for folder in models() {
        let model = weights(folder.join("model.safetensors"));
        let rows = documents(&folder);
        let together = session(&model).sequence_logps(&model, &packed(&rows)).unwrap();
        let mut scorer = session(&model);
        for (row, together) in rows.iter().zip(together) {
            let alone = scorer.sequence_logps(&model, &packed(std::slice::from_ref(row))).unwrap();
            near(together, alone[0], "log-prob");
        }
    }
}
