//! What one step refuses, and what it does to the weights.

use std::sync::atomic::Ordering;
use std::time::Instant;

use zephyr_kernels::adamw;
use zephyr_mistral::Weights;

use super::{
    bits, denominator, documents, golden_pairs, json, logps, models, norm_of, packed, packed_pairs, relative, session,
    update, weights,
};
use crate::batch::{Packed, Sequence};
use crate::error::Error;
use crate::losses::LossConfig;
use crate::session::{ReferenceLogps, Session, SessionOptions, Sums, Update};

#[test]
fn a_run_from_its_own_start_begins_at_ln_2() {
    for folder in models() {
        let mut policy = weights(folder.join("model.safetensors"));
        let pairs = golden_pairs(&json(folder.join("dpo.json")));
        let batch = packed_pairs(&pairs);
        let own = logps(&policy, &pairs);
        let other = logps(&weights(folder.join("ref.safetensors")), &pairs);
        let options = SessionOptions { reference_is_start: true, ..SessionOptions::default() };
        let mut session = Session::new(&policy, options);
        let config = LossConfig::default();
        let counts = denominator(&pairs);
        let before = bits(&policy.data);

        // Log-probs of another model are no start.
        let wrong = ReferenceLogps { chosen: &other.0, rejected: &other.1 };
        let error = session.accumulate_dpo(&policy, &batch, wrong, &config, counts).unwrap_err();
        assert_eq!(error.code(), "ZA_TRAIN_STEP_ZERO");
        assert!(error.to_string().contains("ln 2") && error.to_string().contains("Remedy: "), "{error}");
        assert!(session.gradients().unwrap().iter().all(|&value| value == 0.0), "nothing was accumulated");

        let right = ReferenceLogps { chosen: &own.0, rejected: &own.1 };
        let sums = session.accumulate_dpo(&policy, &batch, right, &config, counts).unwrap();
        assert!((sums.loss - std::f64::consts::LN_2).abs() < 1e-6, "{}", sums.loss);
        assert!(sums.means().rewards_chosen.abs() < 1e-6 && sums.means().rewards_rejected.abs() < 1e-6);
        assert_eq!(bits(&policy.data), before);

        // From the second step on the rewards may be anything.
        session.apply(&mut policy, &update(1e-2)).unwrap();
        let sums = session.accumulate_dpo(&policy, &batch, right, &config, counts).unwrap();
        assert!(sums.loss < std::f64::consts::LN_2 && sums.means().rewards_margins > 0.0);
    }
}

/// `weights` untouched, and the session of use for another model afterwards.
fn refuses_non_finite(session: &mut Session, broken: &mut Weights, good: &mut Weights, rows: &Packed) {
    let before = bits(&broken.data);
    let error = session.accumulate_sft(&*broken, rows, 100.0).unwrap_err();
    assert_eq!(error.code(), "ZA_TRAIN_NOT_FINITE");
    assert!(matches!(&error, Error::NonFinite { what: "loss", step: 1, .. }), "{error}");
    assert_eq!(bits(&broken.data), before);
    session.accumulate_sft(&*good, rows, 100.0).unwrap();
    let result = session.apply(&mut *good, &update(1e-3)).unwrap();
    assert!(result.grad_norm.is_finite() && good.data.iter().all(|value| value.is_finite()));
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    for folder in models() {
        let start = weights(folder.join("model.safetensors"));
        let rows = packed(&documents(&folder)[..2]);
        for range in [start.layout.final_norm.clone(), start.layout.lm_head.clone(), start.layout.layers[0].qkv.clone()]
        {
            for value in [f32::NAN, f32::INFINITY] {
                let (mut broken, mut good) = (start.clone(), start.clone());
                broken.data[range.clone()].fill(value);
                refuses_non_finite(&mut session(&start), &mut broken, &mut good, &rows);
            }
        }
        let pairs = golden_pairs(&json(folder.join("dpo.json")));
        let (chosen, rejected) = logps(&start, &pairs);
        let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
        let mut broken = start.clone();
        broken.data[start.layout.final_norm.clone()].fill(f32::NAN);
        let mut session = session(&start);
        let error = session
            .accumulate_dpo(&broken, &packed_pairs(&pairs), reference, &LossConfig::default(), denominator(&pairs))
            .unwrap_err();
        assert_eq!(error.code(), "ZA_TRAIN_NOT_FINITE");
    }
}

#[test]
fn a_gradient_that_overflows_changes_nothing() {
    for folder in models() {
        let mut model = weights(folder.join("model.safetensors"));
        let rows = packed(&documents(&folder));
        let tokens = f64::from(rows.predicted.iter().sum::<u32>());
        let mut session = session(&model);
        session.accumulate_sft(&model, &rows, tokens).unwrap();
        session.apply(&mut model, &update(1e-3)).unwrap();
        let (weights, moment) = (bits(&model.data), bits(session.moments().0));

        // The loss is an f64 and finite; the gradient is beyond f32.
        session.accumulate_sft(&model, &rows, 3e-39).unwrap();
        let error = session.apply(&mut model, &update(1e-3)).unwrap_err();
        assert!(matches!(&error, Error::NonFinite { what: "grad_norm", step: 2, .. }), "{error}");
        assert_eq!((bits(&model.data), bits(session.moments().0)), (weights, moment));
        assert_eq!(session.step(), 1);
        assert!(session.gradients().unwrap().iter().all(|&value| value == 0.0));

        session.accumulate_sft(&model, &rows, tokens).unwrap();
        let result = session.apply(&mut model, &update(1e-3)).unwrap();
        assert_eq!(result.step, 2);
        assert!(matches!(result.sums, Sums::Sft(sums) if sums.tokens.count == rows.rows.len() as u64));
    }
}

/// `clip_grad_norm_`: gradients times `max / (norm + 1e-6)` where the norm is above max, else untouched.
#[test]
fn clipping_is_that_of_pytorch() {
    for folder in models() {
        let start = weights(folder.join("model.safetensors"));
        let rows = packed(&documents(&folder));
        let step = |max_grad_norm: Option<f64>| {
            let (mut model, mut session) = (start.clone(), session(&start));
            session.accumulate_sft(&start, &rows, 100.0).unwrap();
            let gradient = session.gradients().unwrap().to_vec();
            // A large ε, so that the update depends on the gradient's size, not on its sign alone.
            let update = Update { max_grad_norm, epsilon: 1.0, weight_decay: 0.0, ..update(0.5) };
            let result = session.apply(&mut model, &update).unwrap();
            (gradient, result.grad_norm, model, session.moments().0.to_vec())
        };
        let (gradient, norm, free, moment) = step(None);
        assert!((norm - norm_of(&gradient)).abs() < 1e-9 * norm, "the norm is that before clipping");

        let (_, same_norm, untouched, same_moment) = step(Some(2.0 * norm));
        assert_eq!((same_norm, bits(&same_moment)), (norm, bits(&moment)), "below the limit nothing is scaled");
        assert_eq!(bits(&untouched.data), bits(&free.data));

        let max = norm / 3.0;
        let (_, clipped_norm, clipped, clipped_moment) = step(Some(max));
        assert_eq!(clipped_norm, norm);
        let scaled: Vec<f32> = gradient.iter().map(|value| (f64::from(*value) * max / (norm + 1e-6)) as f32).collect();
        let mut expected = start.data.clone();
        let (mut first, mut second) = (vec![0.0; expected.len()], vec![0.0; expected.len()]);
        let config =
            adamw::Config { lr: 0.5, beta1: 0.9, beta2: 0.999, eps: 1.0, weight_decay: 0.0, step: 1, grad_scale: 1.0 };
        adamw::step(&mut expected, &scaled, &mut first, &mut second, &config);
        assert!(relative(&clipped_moment, &first) < 1e-6);
        assert!(relative(&clipped.data, &expected) < 1e-6);
        assert!(relative(&clipped.data, &free.data) > 1e-4, "clipping made a difference");
    }
}

#[test]
fn norms_are_not_decayed() {
    for folder in models() {
        let start = weights(folder.join("model.safetensors"));
        let mut model = start.clone();
        let mut session = session(&model);
        // A gradient of 0: what changes is decay alone.
        session.apply(&mut model, &Update { weight_decay: 0.5, ..update(0.1) }).unwrap();
        for tensor in &start.layout.tensors {
            let factor = if tensor.shape.len() > 1 { 0.95 } else { 1.0 };
            for (after, before) in model.data[tensor.range.clone()].iter().zip(&start.data[tensor.range.clone()]) {
                assert!((after - before * factor).abs() <= 1e-6 * before.abs(), "{}", tensor.name);
            }
        }
    }
}

#[test]
fn batches_that_cannot_be_trained_on_are_named() {
    let sequence = Sequence { ids: &[1, 2, 3], supervised: &[true, false, false] };
    let good = Sequence { ids: &[1, 2, 3], supervised: &[false, false, true] };
    let error = Packed::new([good, sequence]).unwrap_err();
    assert_eq!(error.code(), "ZA_TRAIN_NO_SUPERVISED_TOKEN");
    assert!(error.to_string().contains("sequence 1"), "{error}");
    let error = Packed::new([Sequence { ids: &[1, 2, 3], supervised: &[true] }]).unwrap_err();
    assert!(error.to_string().contains("3 tokens but 1 mask"), "{error}");

    for folder in models() {
        let model = weights(folder.join("model.safetensors"));
        let mut session = Session::new(&model, SessionOptions { max_length: 4, ..SessionOptions::default() });
        let foreign = [1, model.config.vocab_size as u32, 2];
        let rows = Packed::new([Sequence { ids: &foreign, supervised: &[true; 3] }]).unwrap();
        let error = session.accumulate_sft(&model, &rows, 2.0).unwrap_err();
        assert_eq!(error.code(), "ZA_TOKEN_RANGE");
        assert!(error.to_string().contains(&model.config.vocab_size.to_string()), "{error}");
        let long = Packed::new([Sequence { ids: &[1; 5], supervised: &[true; 5] }]).unwrap();
        assert_eq!(session.accumulate_sft(&model, &long, 4.0).unwrap_err().code(), "ZA_CONTEXT_LENGTH");
        let one = Packed::new([good]).unwrap();
        let none = ReferenceLogps { chosen: &[], rejected: &[] };
        let counts = crate::losses::Denominator { pairs: 1.0, chosen_tokens: 1.0 };
        let error = session.accumulate_dpo(&model, &one, none, &LossConfig::default(), counts).unwrap_err();
        assert_eq!(error.code(), "ZA_CONFIG_INVALID");
        session.accumulate_sft(&model, &one, 1.0).unwrap();
    }
}

#[test]
fn a_stop_ends_a_pass_and_leaves_nothing_of_its_step() {
    let Some(folder) = models().into_iter().next() else { return };
    let start = weights(folder.join("model.safetensors"));
    let rows = packed(&documents(&folder)[..4]);
    let options = SessionOptions::default();
    let stop = options.stop.clone();
    let mut session = Session::new(&start, options);
    session.accumulate_sft(&start, &rows, 100.0).unwrap();
    stop.store(true, Ordering::Relaxed);
    assert_eq!(session.accumulate_sft(&start, &rows, 100.0).unwrap_err().code(), "ZA_ABORTED");
    assert_eq!(session.sequence_logps(&start, &rows).unwrap_err().code(), "ZA_ABORTED");
    assert!(session.gradients().unwrap().iter().all(|&value| value == 0.0));
    assert_eq!((session.step(), session.tokens_seen()), (0, 0));

    // The step after it is that of a session that was never stopped.
    stop.store(false, Ordering::Relaxed);
    let step = |session: &mut Session| {
        let mut model = start.clone();
        session.accumulate_sft(&model, &rows, 100.0).unwrap();
        session.apply(&mut model, &update(1e-3)).unwrap();
        bits(&model.data)
    };
    assert_eq!(step(&mut session), step(&mut Session::new(&start, SessionOptions::default())));

    // In the midst of a pass: more is asked of it than it can do in the time.
    let many: Vec<_> = std::iter::repeat_n(documents(&folder), 60).flatten().collect();
    let many = packed(&many);
    let whole = Instant::now();
    session.accumulate_sft(&start, &many, 100.0).unwrap();
    let whole = whole.elapsed();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(whole / 20);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(session.accumulate_sft(&start, &many, 100.0).unwrap_err().code(), "ZA_ABORTED");
    stopper.join().unwrap();
}
