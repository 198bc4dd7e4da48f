//! What changes a loss without being one: discounted tails (LD-DPO), weights of pairs (WPO), noise on embeddings (NEFTune).

use zephyr_mistral::Weights;
use zephyr_mistral::generate::Generator;
use zephyr_mistral::train::Recompute;

use super::{
    Row, bits, denominator, documents, eight_pairs, json, logps, models, packed, packed_pairs, relative, session,
    update, weights,
};
use crate::batch::{Packed, Pair};
use crate::losses::{DpoLoss, LossConfig};
use crate::session::{EmbeddingNoise, ReferenceLogps, Session, SessionOptions};

fn start(row: &Row) -> usize {
    row.supervised.iter().position(|&learnt| learnt).unwrap()
}

/// A pair cut to the tokens that both answers have.
fn cut(pair: &[Row; 2]) -> [Row; 2] {
    let answer = |row: &Row| row.ids.len() - start(row);
    let shorter = answer(&pair[0]).min(answer(&pair[1]));
    pair.clone().map(|row| {
        let end = start(&row) + shorter;
        Row { ids: row.ids[..end].to_vec(), supervised: row.supervised[..end].to_vec() }
    })
}

fn pack(pairs: &[[Row; 2]], share: bool) -> Packed {
    let pairs = pairs.iter().map(|[chosen, rejected]| Pair {
        prompt: start(chosen),
        chosen: chosen.sequence(),
        rejected: rejected.sequence(),
    });
    Packed::pairs(pairs, share).unwrap()
}

/// Loss and gradient of one batch.
fn step(
    model: &Weights,
    packed: &Packed,
    reference: &(Vec<f64>, Vec<f64>),
    config: &LossConfig,
    pairs: &[[Row; 2]],
) -> (f64, Vec<f32>) {
    let mut session = session(model);
    let reference = ReferenceLogps { chosen: &reference.0, rejected: &reference.1 };
    let sums = session.accumulate_dpo(model, packed, reference, config, denominator(pairs)).unwrap();
    (sums.loss, session.gradients().unwrap().to_vec())
}

/// α = 1 is DPO bit for bit; α = 0 is DPO of answers cut to the shorter one's length; between, the sums are the mixture.
#[test]
fn discounted_tails_lie_between_whole_and_cut_answers() {
    for folder in models() {
        let policy = weights(folder.join("model.safetensors"));
        let reference = weights(folder.join("ref.safetensors"));
        let pairs = eight_pairs(&json(folder.join("dpo.json")));
        let short: Vec<[Row; 2]> = pairs.iter().map(cut).collect();
        assert!(
            pairs
                .iter()
                .zip(&short)
                .any(|(whole, cut)| whole[0].ids.len() + whole[1].ids.len() > cut[0].ids.len() + cut[1].ids.len())
        );
        let config = LossConfig::default();
        let (whole, cut) = (logps(&policy, &pairs), logps(&policy, &short));
        for share in [false, true] {
            let discounted = |alpha| pack(&pairs, share).with_discounted_tails(alpha);
            let sums = |alpha| session(&policy).sequence_logps(&policy, &discounted(alpha)).unwrap();
            for (pair, sums) in sums(0.3).chunks_exact(2).enumerate() {
                for (found, (whole, cut)) in
                    sums.iter().zip([(whole.0[pair], cut.0[pair]), (whole.1[pair], cut.1[pair])])
                {
                    let expected = 0.3 * whole + 0.7 * cut;
                    assert!((found - expected).abs() <= 1e-4 * expected.abs(), "{found} for {expected}");
                }
            }
            let reference_whole = logps(&reference, &pairs);
            let plain = step(&policy, &pack(&pairs, share), &reference_whole, &config, &pairs);
            let one = step(&policy, &discounted(1.0), &reference_whole, &config, &pairs);
            assert_eq!((plain.0, bits(&plain.1)), (one.0, bits(&one.1)));
            let reference_cut = logps(&reference, &short);
            let none = step(&policy, &discounted(0.0), &reference_cut, &config, &pairs);
            let expected = step(&policy, &packed_pairs(&short), &reference_cut, &config, &short);
            assert!((none.0 - expected.0).abs() <= 1e-5 * expected.0);
            let error = relative(&none.1, &expected.1);
            assert!(error <= 2e-5, "gradients are off by {error}");
        }
        let sft = LossConfig { losses: vec![(DpoLoss::Sft, 1.0)], ..config };
        let mut session = session(&policy);
        let reference = ReferenceLogps { chosen: &whole.0, rejected: &whole.1 };
        let tails = packed_pairs(&pairs).with_discounted_tails(0.5);
        let error = session.accumulate_dpo(&policy, &tails, reference, &sft, denominator(&pairs)).unwrap_err();
        assert!(error.to_string().contains("sft"), "{error}");
    }
}

/// WPO, eq. 2, from the logits themselves: a pair's loss and gradient, times exp of both answers' mean log(p / Σp²).
#[test]
fn weights_of_pairs_are_those_of_wpo() {
    for folder in models() {
        let policy = weights(folder.join("model.safetensors"));
        let reference = weights(folder.join("ref.safetensors"));
        let pairs = eight_pairs(&json(folder.join("dpo.json")));
        let weight = |row: &Row| {
            let vocabulary = policy.config.vocab_size;
            let logits = Generator::new(&policy).logits(&row.ids).unwrap();
            let (mut sum, mut count) = (0.0, 0.0);
            for at in (1..row.ids.len()).filter(|&at| row.supervised[at]) {
                let logits = &logits[(at - 1) * vocabulary..at * vocabulary];
                let mass: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                let share = |logit: f32| f64::from(logit).exp() / mass;
                let collision: f64 = logits.iter().map(|&logit| share(logit).powi(2)).sum();
                sum += (share(logits[row.ids[at] as usize]) / collision).ln();
                count += 1.0;
            }
            (sum / count).exp()
        };
        let config = LossConfig { use_weighting: true, ..LossConfig::default() };
        config.validate().unwrap();
        let found = step(&policy, &packed_pairs(&pairs), &logps(&reference, &pairs), &config, &pairs);
        let (mut loss, mut gradient) = (0.0, vec![0.0; found.1.len()]);
        for pair in &pairs {
            let pair = std::slice::from_ref(pair);
            let one = step(&policy, &packed_pairs(pair), &logps(&reference, pair), &LossConfig::default(), pair);
            let weight = weight(&pair[0][0]) * weight(&pair[0][1]) / pairs.len() as f64;
            loss += weight * one.0;
            gradient.iter_mut().zip(&one.1).for_each(|(sum, value)| *sum += weight as f32 * value);
        }
        assert!((found.0 - loss).abs() <= 1e-4 * loss, "{} for {loss}", found.0);
        let error = relative(&found.1, &gradient);
        assert!(error <= 2e-4, "gradients are off by {error}");
    }
    for loss in [DpoLoss::Aot, DpoLoss::Sft] {
        let config = LossConfig { losses: vec![(loss, 1.0)], use_weighting: true, ..LossConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("useWeighting"));
    }
}

#[test]
fn noise_on_embeddings_is_in_training_alone_and_always_the_same() {
    for folder in models() {
        let start = weights(folder.join("model.safetensors"));
        let rows = documents(&folder);
        let run = |alpha: Option<f32>, seed, recompute| {
            let embedding_noise = alpha.map(|alpha| EmbeddingNoise { alpha });
            let options = SessionOptions { embedding_noise, recompute, seed, ..SessionOptions::default() };
            let (mut model, mut session) = (start.clone(), Session::new(&start, options));
            let mut losses = Vec::new();
            for _ in 0..2 {
                for micro in rows.chunks(4) {
                    losses.push(session.accumulate_sft(&model, &packed(micro), 400.0).unwrap().loss);
                }
                let evaluated = session.evaluate_sft(&model, &packed(&rows), 400.0).unwrap().loss;
                let plain = super::session(&start).evaluate_sft(&model, &packed(&rows), 400.0).unwrap().loss;
                assert_eq!(evaluated, plain, "no noise where nothing is learnt");
                session.apply(&mut model, &update(0.0)).unwrap();
            }
            (losses, bits(&model.data))
        };
        let (none, noisy) = (run(None, 1, Recompute::None), run(Some(5.0), 1, Recompute::None));
        assert_eq!(none, run(Some(0.0), 1, Recompute::None));
        assert_eq!(none.0[..2], none.0[2..], "a rate of 0 leaves the model as it is");
        assert!(noisy.0.iter().zip(&none.0).all(|(noisy, none)| noisy != none));
        assert!(noisy.0[0] != noisy.0[2] && noisy.0[1] != noisy.0[3], "each step has noise of its own");
        assert_eq!(noisy, run(Some(5.0), 1, Recompute::Layer), "recomputing gives the same bits");
        assert_ne!(noisy.0, run(Some(5.0), 2, Recompute::None).0);
    }
}
