use super::*;

fn options(change: impl FnOnce(&mut GenerateOptions)) -> GenerateOptions {
    let mut options = GenerateOptions::default();
    change(&mut options);
    options
}

/// Shares of the tokens in many draws.
fn shares(logits: &[f32], options: &GenerateOptions) -> Vec<f64> {
    let draws = 40_000;
    let mut counts = vec![0; logits.len()];
    // No prompt, and a fresh `seen` for each draw: the penalty is not what these tests are about.
    let mut sampler = Sampler::new(options, &[], logits.len());
    for _ in 0..draws {
        counts[sampler.next(logits).unwrap().token as usize] += 1;
    }
    counts.iter().map(|count| f64::from(*count) / f64::from(draws)).collect()
}

/// The distribution by the definitions, over everything: softmax, masks, renormalisation.
fn expected(logits: &[f32], options: &GenerateOptions) -> Vec<f64> {
    let softmax = |kept: &[bool]| -> Vec<f64> {
        let weights: Vec<f64> = (logits.iter().zip(kept))
            .map(|(x, kept)| if *kept { (f64::from(*x) / f64::from(options.temperature)).exp() } else { 0.0 })
            .collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    };
    let mut kept = vec![true; logits.len()];
    if options.top_k > 0 {
        let mut sorted = logits.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let threshold = sorted[options.top_k.min(logits.len()) - 1];
        kept.iter_mut().zip(logits).for_each(|(kept, x)| *kept &= *x >= threshold);
    }
    let p = softmax(&kept);
    if options.top_p < 1.0 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| p[*b].total_cmp(&p[*a]).then(a.cmp(b)));
        let mut before = 0.0;
        for token in order {
            kept[token] &= before < f64::from(options.top_p);
            before += p[token];
        }
    }
    let p = softmax(&kept);
    let max = p.iter().copied().fold(0.0, f64::max);
    kept.iter_mut().zip(&p).for_each(|(kept, p)| *kept &= *p >= f64::from(options.min_p) * max);
    softmax(&kept)
}

#[test]
fn draws_from_the_defined_distribution() {
    let few = [0.5, 2.0, -1.0, 1.0, 1.0, 0.0, -3.0];
    // More than are sorted at first, nearly flat, so that top-p has to widen its search.
    let many: Vec<f32> = (0..700).map(|i| (i * 389 % 700) as f32 * 1e-3).collect();
    for (logits, bound) in [(&few[..], 0.012), (&many, 0.004)] {
        for options in [
            options(|_| {}),
            options(|o| o.temperature = 0.5),
            options(|o| o.top_k = 2),
            options(|o| o.top_k = 3),
            options(|o| o.top_p = 0.7),
            options(|o| o.top_p = 0.95),
            options(|o| o.min_p = 0.3),
            options(|o| (o.temperature, o.top_k, o.top_p, o.min_p) = (1.5, 5, 0.9, 0.2)),
        ] {
            let (found, wanted) = (shares(logits, &options), expected(logits, &options));
            for (token, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                assert!((found - wanted).abs() < bound, "{options:?}: token {token} {found} for {wanted}");
                assert!(*wanted > 0.0 || *found == 0.0, "{options:?}: token {token} was filtered out");
            }
        }
    }
}

#[test]
fn greedy_takes_the_first_of_equals() {
    let options = options(|o| o.temperature = 0.0);
    let Choice { token, logp, .. } = Sampler::new(&options, &[], 4).next(&[1.0, 3.0, 3.0, 0.0]).unwrap();
    assert_eq!(token, 1);
    let sum: f64 = [1.0f64, 3.0, 3.0, 0.0].iter().map(|x| x.exp()).sum();
    assert!((f64::from(logp) - (3.0 - sum.ln())).abs() < 1e-6);
}

#[test]
fn the_penalty_holds_for_prompt_and_answer_but_not_for_the_log_probability() {
    let options = options(|o| (o.temperature, o.repetition_penalty) = (0.0, 2.0));
    let logits = [4.0, 3.0, -1.0, 1.9];
    let mut sampler = Sampler::new(&options, &[0, 0], 4);
    let plain = f64::from(head::log_sum_exp(&logits));
    // 4 → 2, so 3 leads; then 3 → 1.5, so 2 leads; token 0 stays at 2 however often it comes.
    for token in [1, 0, 0] {
        let Choice { token: found, logp, .. } = sampler.next(&logits).unwrap();
        assert_eq!(found, token);
        assert!((f64::from(logp) - (f64::from(logits[token as usize]) - plain)).abs() < 1e-6);
    }
    // Negative logits are multiplied: −1 → −2, below −1.5.
    assert_eq!(Sampler::new(&options, &[0], 2).next(&[-1.0, -1.5]).unwrap().token, 1);
}

#[test]
fn the_seed_decides() {
    let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.7).sin()).collect();
    let run = |seed| {
        let options = options(|o| o.seed = seed);
        let mut sampler = Sampler::new(&options, &[], 50);
        (0..20).map(|_| sampler.next(&logits).unwrap().token).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn logits_that_are_no_distribution_are_refused() {
    let options = GenerateOptions::default();
    for logits in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
        assert!(Sampler::new(&options, &[], 2).next(&logits).is_none(), "{logits:?}");
    }
    let masked = [f32::NEG_INFINITY, 0.0];
    assert_eq!(Sampler::new(&options, &[], 2).next(&masked), Some(Choice { token: 1, logp: 0.0, top: vec![] }));
}

#[test]
fn the_most_probable_come_with_the_chosen() {
    let options = options(|options| {
        options.top_logprobs = 3;
        options.temperature = 0.0;
        options.repetition_penalty = 2.0;
    });
    let logits = [0.5f32, 2.0, -1.0, 2.0, 1.0];
    let choice = Sampler::new(&options, &[1, 3], 5).next(&logits).unwrap();
    // The penalty moves the choice, not what is said of the model.
    assert_eq!(choice.token, 1);
    let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    let tokens: Vec<u32> = choice.top.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [1, 3, 4]);
    for (token, logp) in choice.top {
        assert!((f64::from(logp) - (f64::from(logits[token as usize]).exp() / total).ln()).abs() < 1e-6);
    }
}
