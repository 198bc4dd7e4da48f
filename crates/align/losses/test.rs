use proptest::prelude::*;

use super::config::{DpoLoss, IpoNormalisation, LossConfig, LossSettings};
use super::table::{LOSSES, Smoothing};
use super::*;

fn of(pairs: f64, chosen_tokens: f64) -> Denominator {
    Denominator { pairs, chosen_tokens }
}

/// A batch that owns its numbers.
#[derive(Clone, Debug)]
struct Batch {
    columns: [Vec<f64>; 4],
    tokens: [Vec<f64>; 2],
}

impl Batch {
    fn logps(&self) -> PairLogps<'_> {
        let [policy_chosen, policy_rejected, ref_chosen, ref_rejected] = &self.columns;
        let [chosen_tokens, rejected_tokens] = &self.tokens;
        PairLogps {
            policy_chosen,
            policy_rejected,
            ref_chosen,
            ref_rejected,
            chosen_tokens,
            rejected_tokens,
            weights: &[],
        }
    }

    /// One pair of 4 and 5 tokens with these log ratios, above a reference of −20 and −30.
    fn of_ratios(chosen: f64, rejected: f64) -> Self {
        Batch {
            columns: [vec![-20.0 + chosen], vec![-30.0 + rejected], vec![-20.0], vec![-30.0]],
            tokens: [vec![4.0], vec![5.0]],
        }
    }

    fn loss(&self, config: &LossConfig) -> PairLoss {
        let tokens = self.tokens[0].iter().sum();
        pair_loss(config, &self.logps(), of(self.columns[0].len() as f64, tokens)).unwrap()
    }

    fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let cut = |column: &Vec<f64>| column[range.clone()].to_vec();
        Batch { columns: self.columns.each_ref().map(cut), tokens: self.tokens.each_ref().map(cut) }
    }
}

/// `count` pairs with log ratios up to `reach` either side.
fn batches(count: std::ops::RangeInclusive<usize>, reach: f64) -> impl Strategy<Value = Batch> {
    let pair = (-400.0..-1.0f64, -400.0..-1.0f64, -reach..reach, -reach..reach, 1u32..300, 1u32..300);
    prop::collection::vec(pair, count).prop_map(|pairs| Batch {
        columns: [
            pairs.iter().map(|pair| pair.0 + pair.2).collect(),
            pairs.iter().map(|pair| pair.1 + pair.3).collect(),
            pairs.iter().map(|pair| pair.0).collect(),
            pairs.iter().map(|pair| pair.1).collect(),
        ],
        tokens: [
            pairs.iter().map(|pair| f64::from(pair.4)).collect(),
            pairs.iter().map(|pair| f64::from(pair.5)).collect(),
        ],
    })
}

/// Every loss × divergence × smoothing × IPO normalisation that validates.
fn every_config(beta: f64) -> Vec<LossConfig> {
    let divergences = [
        FDivergence::ReverseKl,
        FDivergence::ForwardKl,
        FDivergence::Js,
        FDivergence::Alpha(0.5),
        FDivergence::Alpha(2.0),
    ];
    let mut configs = Vec::new();
    for row in &LOSSES {
        for f_divergence in divergences {
            for label_smoothing in [0.0, 1e-3, 0.2, 0.5] {
                for ipo_normalisation in [IpoNormalisation::Tokens, IpoNormalisation::None] {
                    let losses = vec![(row.loss, 1.0)];
                    let config = LossConfig {
                        beta,
                        label_smoothing,
                        losses,
                        f_divergence,
                        ipo_normalisation,
                        ..LossConfig::default()
                    };
                    let duplicate = ipo_normalisation == IpoNormalisation::None && row.loss != DpoLoss::Ipo;
                    if !duplicate && config.validate().is_ok() {
                        configs.push(config);
                    }
                }
            }
        }
    }
    configs
}

fn only(loss: DpoLoss) -> LossConfig {
    LossConfig { losses: vec![(loss, 1.0)], ..LossConfig::default() }
}

fn near(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{got} is not {want}");
}

/// Central difference by one policy log-prob, with Richardson's extrapolation and its error estimate.
fn difference(config: &LossConfig, batch: &Batch, column: usize, pair: usize) -> (f64, f64) {
    let central = |h: f64| {
        let at = |offset: f64| {
            let mut moved = batch.clone();
            moved.columns[column][pair] += offset;
            moved.loss(config).loss
        };
        (at(h) - at(-h)) / (2.0 * h)
    };
    let (wide, narrow) = (central(2e-4), central(1e-4));
    let size = batch.loss(config).loss.abs();
    (narrow + (narrow - wide) / 3.0, (narrow - wide).abs() + size * 1e-11)
}

/// Whether a kink of the hinge, a held exponent or a change of ranks lies within reach of the difference.
fn near_a_kink(config: &LossConfig, batch: &Batch) -> bool {
    let ratios: Vec<(f64, f64)> = (0..batch.columns[0].len())
        .map(|i| (batch.columns[0][i] - batch.columns[2][i], batch.columns[1][i] - batch.columns[3][i]))
        .collect();
    let hinge = ratios.iter().any(|&(chosen, rejected)| {
        let margin = config.f_divergence.score(chosen).0 - config.f_divergence.score(rejected).0;
        let reach = config.f_divergence.score(chosen).1 + config.f_divergence.score(rejected).1;
        (config.beta * margin - 1.0).abs() < config.beta * reach * 1e-3
    });
    // where the exponents of the forward KL and of α = 2 (80) and α = ½ (160) are held
    let held = ratios.iter().flat_map(|&(chosen, rejected)| [chosen.abs(), rejected.abs()]);
    let clamp = held.into_iter().any(|ratio| (ratio - 80.0).abs() < 1e-3 || (ratio - 160.0).abs() < 1e-3);
    let close = |values: Vec<f64>| {
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        sorted.windows(2).any(|pair| pair[1] - pair[0] < 1e-3)
    };
    hinge
        || clamp
        || close(ratios.iter().map(|pair| pair.0).collect())
        || close(ratios.iter().map(|pair| pair.1).collect())
        || close((0..ratios.len()).map(|i| batch.columns[0][i] - batch.columns[1][i]).collect())
}

fn check_derivatives(batch: &Batch, beta: f64) -> Result<(), TestCaseError> {
    for config in every_config(beta) {
        if near_a_kink(&config, batch) {
            continue;
        }
        let loss = batch.loss(&config);
        for pair in 0..batch.columns[0].len() {
            for (column, got) in [(0, loss.d_chosen[pair]), (1, loss.d_rejected[pair])] {
                let (want, error) = difference(&config, batch, column, pair);
                // A difference that does not know itself proves nothing: the curvature is beyond its step.
                if error > 1e-3 * want.abs() + 1e-6 * loss.loss.abs().max(1.0) {
                    continue;
                }
                let tolerance = 2.0 * error + 1e-6 * want.abs() + 1e-9;
                prop_assert!((got - want).abs() <= tolerance, "{config:?}, {batch:?}: {got} is not {want} ± {error}");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn derivatives_are_the_slopes(batch in batches(1..=4, 8.0), beta in 0.01..2.0f64) {
        check_derivatives(&batch, beta)?;
    }

    #[test]
    fn derivatives_are_the_slopes_far_out(batch in batches(1..=3, 200.0), beta in 0.01..1.0f64) {
        check_derivatives(&batch, beta)?;
    }

    #[test]
    fn extremes_stay_finite(batch in batches(1..=4, 1e4), beta in 0.01..1.0f64) {
        for config in every_config(beta) {
            let loss = batch.loss(&config);
            prop_assert!(loss.loss.is_finite(), "{config:?}: {}", loss.loss);
            prop_assert!(loss.d_chosen.iter().chain(&loss.d_rejected).all(|slope| slope.is_finite()), "{config:?}");
        }
    }

    #[test]
    fn weights_make_a_weighted_sum(batch in batches(1..=4, 20.0), weights in prop::collection::vec(0.1..3.0f64, 15)) {
        let all: Vec<(DpoLoss, f64)> = LOSSES.iter().zip(&weights).map(|(row, &weight)| (row.loss, weight)).collect();
        let base = LossConfig { label_smoothing: 0.1, ..LossConfig::default() };
        let sum = batch.loss(&LossConfig { losses: all.clone(), ..base.clone() });
        let (mut value, mut slope) = (0.0, 0.0);
        for (index, &(loss, weight)) in all.iter().enumerate() {
            let one = batch.loss(&LossConfig { losses: vec![(loss, 1.0)], ..base.clone() });
            prop_assert_eq!(one.loss, sum.per_loss[index]);
            value += weight * one.loss;
            slope += weight * one.d_chosen[0];
        }
        near(sum.loss, value, 1e-12);
        near(sum.d_chosen[0], slope, 1e-12);
    }

    #[test]
    fn micro_batches_add_up_to_the_batch(batch in batches(2..=7, 20.0), at in 1usize..6) {
        let count = batch.columns[0].len();
        let at = at.min(count - 1);
        let tokens = batch.tokens[0].iter().sum();
        for config in every_config(0.1).into_iter().filter(|config| !config.batch_coupled()) {
            let whole = batch.loss(&config);
            let part = |range| pair_loss(&config, &batch.slice(range).logps(), of(count as f64, tokens)).unwrap();
            let (first, second) = (part(0..at), part(at..count));
            near(first.loss + second.loss, whole.loss, 1e-12);
            prop_assert_eq!([first.d_chosen, second.d_chosen].concat(), whole.d_chosen);
            prop_assert_eq!([first.d_rejected, second.d_rejected].concat(), whole.d_rejected);
        }
    }

    #[test]
    fn half_smoothing_is_blind_to_the_label(batch in batches(1..=1, 20.0), beta in 0.01..1.0f64) {
        let [a, b, c, d] = batch.columns.clone();
        let swapped = Batch { columns: [b, a, d, c], tokens: [batch.tokens[1].clone(), batch.tokens[0].clone()] };
        for loss in [DpoLoss::Sigmoid, DpoLoss::SigmoidNorm, DpoLoss::ExoPair, DpoLoss::Aot, DpoLoss::AotUnpaired] {
            let config = LossConfig { beta, label_smoothing: 0.5, ..only(loss) };
            let (straight, mirrored) = (batch.loss(&config), swapped.loss(&config));
            near(straight.loss, mirrored.loss, 1e-12);
            near(straight.d_chosen[0], mirrored.d_rejected[0], 1e-12);
        }
    }

    #[test]
    fn cdpo_is_the_mixture_of_both_labels(batch in batches(1..=1, 50.0), smoothing in 0.0..0.5f64) {
        let [a, b, c, d] = batch.columns.clone();
        let swapped = Batch { columns: [b, a, d, c], tokens: batch.tokens.clone() };
        let config = LossConfig { label_smoothing: smoothing, ..only(DpoLoss::Sigmoid) };
        let (kept, flipped) = (batch.loss(&only(DpoLoss::Sigmoid)).loss, swapped.loss(&only(DpoLoss::Sigmoid)).loss);
        near(batch.loss(&config).loss, (1.0 - smoothing) * kept + smoothing * flipped, 1e-12);
        // robust is the estimate whose mean over flipped labels is the clean loss
        let robust = LossConfig { label_smoothing: smoothing.min(0.4), ..only(DpoLoss::Robust) };
        let rate = robust.label_smoothing;
        near((1.0 - rate) * batch.loss(&robust).loss + rate * swapped.loss(&robust).loss, kept, 1e-9);
    }

    #[test]
    fn transport_of_one_pair_is_dpo(batch in batches(1..=1, 50.0), smoothing in 0.0..0.5f64) {
        let with = |loss| batch.loss(&LossConfig { label_smoothing: smoothing, ..only(loss) });
        let (aot, unpaired, dpo) = (with(DpoLoss::Aot), with(DpoLoss::AotUnpaired), with(DpoLoss::Sigmoid));
        near(aot.loss, dpo.loss, 1e-12);
        near(unpaired.loss, dpo.loss, 1e-12);
        near(aot.d_rejected[0], dpo.d_rejected[0], 1e-12);
        near(unpaired.d_rejected[0], dpo.d_rejected[0], 1e-12);
    }
}

/// β 0.1: value, `d/d logp_c`, `d/d logp_r` where the policy is the reference; 4 chosen tokens, 5 rejected.
#[test]
fn at_the_reference_by_hand() {
    let ln2 = std::f64::consts::LN_2;
    let exo = {
        let (keep, flip) = (0.9f64.ln(), 0.1f64.ln());
        (0.5 * (-ln2 - keep) + 0.5 * (-ln2 - flip), 0.1 * 0.25 * (flip - keep))
    };
    let table = [
        (DpoLoss::Sigmoid, 0.0, ln2, -0.05, 0.05),
        (DpoLoss::Sigmoid, 0.1, ln2, -0.04, 0.04),
        (DpoLoss::Hinge, 0.0, 1.0, -0.1, 0.1),
        (DpoLoss::Ipo, 0.0, 25.0, -10.0 / 4.0, 10.0 / 5.0),
        (DpoLoss::ExoPair, 0.1, exo.0, exo.1, -exo.1),
        (DpoLoss::NcaPair, 0.0, 2.0 * ln2, -0.025, 0.025),
        (DpoLoss::Robust, 0.1, ln2, -0.05 / 0.8, 0.05 / 0.8),
        (DpoLoss::BcoPair, 0.0, 2.0 * ln2, -0.05, 0.05),
        (DpoLoss::SppoHard, 0.0, 50.0, -10.0, 10.0),
        (DpoLoss::Aot, 0.1, ln2, -0.04, 0.04),
        (DpoLoss::AotUnpaired, 0.0, ln2, -0.05, 0.05),
        (DpoLoss::ApoZero, 0.0, 1.0, -0.025, 0.025),
        (DpoLoss::ApoDown, 0.0, 1.0, 0.0, 0.025),
        // m = ½: ½ ln 2 + ½; slope −¼ − ln2/(4τ) + ½(1/(2τ) − 1), τ = .05
        (DpoLoss::Discopop, 0.0, 0.5 * ln2 + 0.5, 0.1 * (-0.25 - 5.0 * ln2 + 4.5), -0.1 * (-0.25 - 5.0 * ln2 + 4.5)),
        (DpoLoss::Sft, 0.0, 20.0 / 4.0, -0.25, 0.0),
        (DpoLoss::SigmoidNorm, 0.0, ln2, -0.05 / 4.0, 0.05 / 5.0),
    ];
    for (loss, label_smoothing, value, chosen, rejected) in table {
        let config = LossConfig { label_smoothing, ..only(loss) };
        config.validate().unwrap();
        let got = Batch::of_ratios(0.0, 0.0).loss(&config);
        println!("{loss:?}: {got:?}");
        near(got.loss, value, 1e-14);
        near(got.d_chosen[0], chosen, 1e-14);
        near(got.d_rejected[0], rejected, 1e-14);
        assert_eq!((got.rewards_chosen[0], got.rewards_rejected[0]), (0.0, 0.0));
    }
}

#[test]
fn far_sides_by_hand() {
    let value = |loss, chosen, rejected| Batch::of_ratios(chosen, rejected).loss(&only(loss)).loss;
    // x = ∓2000
    near(value(DpoLoss::Sigmoid, -1e4, 1e4), 2000.0, 1e-12);
    assert_eq!(value(DpoLoss::Sigmoid, 1e4, -1e4), 0.0);
    near(value(DpoLoss::Hinge, -1e4, 1e4), 2001.0, 1e-12);
    near(value(DpoLoss::NcaPair, 1e4, 1e4), 1000.0, 1e-12);
    near(value(DpoLoss::Discopop, -1e4, 1e4), 2000.0, 1e-12);
    assert_eq!(value(DpoLoss::ApoZero, -1e4, 1e4), 2.0);
    // no normalisation: (20 − 5)²; tokens: (10/4 + 10/5 − 5)²
    let summed = LossConfig { ipo_normalisation: IpoNormalisation::None, ..only(DpoLoss::Ipo) };
    near(Batch::of_ratios(10.0, -10.0).loss(&summed).loss, 225.0, 1e-12);
    near(value(DpoLoss::Ipo, 10.0, -10.0), 0.25, 1e-12);
}

#[test]
fn divergences_are_zero_at_the_reference_with_slope_set_by_f() {
    let alpha = FDivergence::Alpha(2.0);
    for (divergence, slope) in
        [(FDivergence::ReverseKl, 1.0), (FDivergence::ForwardKl, 1.0), (FDivergence::Js, 0.5), (alpha, 1.0)]
    {
        let (score, at_zero) = divergence.score(0.0);
        near(score, 0.0, 1e-15);
        near(at_zero, slope, 1e-15);
    }
    near(alpha.score(1.0).0, std::f64::consts::E - 1.0, 1e-15);
    near(FDivergence::ForwardKl.score(1.0).0, 1.0 - (-1.0f64).exp(), 1e-15);
    near(FDivergence::Js.score(3f64.ln()).0, 1.5f64.ln(), 1e-15);
    assert_eq!(FDivergence::Alpha(1.0 + 1e-9).score(3.0), (3.0, 1.0));
    assert_eq!(FDivergence::ForwardKl.score(-1e4).1, 0.0);
}

#[test]
fn transport_matches_by_rank() {
    // policy margins 3, 1; reference margins 0, 2: sorted 1 − 0 and 3 − 2.
    let batch = Batch {
        columns: [vec![-7.0, -9.0], vec![-10.0, -10.0], vec![-10.0, -8.0], vec![-10.0, -10.0]],
        tokens: [vec![3.0, 3.0], vec![3.0, 3.0]],
    };
    let q1 = softplus_of(-0.1);
    near(batch.loss(&only(DpoLoss::Aot)).loss, q1, 1e-14);
    // d_c = 3, −1 and d_r = 0, 0: sorted −1 and 3.
    let unpaired = batch.loss(&only(DpoLoss::AotUnpaired));
    near(unpaired.loss, 0.5 * (softplus_of(0.1) + softplus_of(-0.3)), 1e-14);
    assert!(unpaired.d_chosen[1] < unpaired.d_chosen[0], "the lower rank is pushed harder");
}

fn softplus_of(x: f64) -> f64 {
    (1.0 + x.exp()).ln()
}

#[test]
fn arguments_that_do_not_fit_are_named() {
    let batch = Batch::of_ratios(0.0, 0.0);
    let short = PairLogps { ref_rejected: &[], ..batch.logps() };
    let error = pair_loss(&LossConfig::default(), &short, of(1.0, 4.0)).unwrap_err();
    assert_eq!(error, LossError::Length { field: "ref_rejected", expected: 1, got: 0 });
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = pair_loss(&LossConfig::default(), &batch.logps(), of(bad, 4.0)).unwrap_err();
        assert!(matches!(error, LossError::Denominator { field: "pairs", .. }));
        let error = pair_loss(&only(DpoLoss::Sft), &batch.logps(), of(1.0, bad)).unwrap_err();
        assert!(matches!(error, LossError::Denominator { field: "chosen tokens", .. }));
    }
    let empty = batch.slice(0..0);
    assert_eq!(pair_loss(&LossConfig::default(), &empty.logps(), of(0.0, 0.0)).unwrap().loss, 0.0);
}

#[test]
fn non_finite_logps_show() {
    for row in &LOSSES {
        let mut batch = Batch::of_ratios(0.0, 0.0);
        batch.columns[0][0] = f64::NAN;
        let label_smoothing = if row.smoothing == Smoothing::Needed { 0.1 } else { 0.0 };
        let loss = batch.loss(&LossConfig { label_smoothing, ..only(row.loss) });
        assert!(!loss.loss.is_finite(), "{}: {}", row.name, loss.loss);
    }
}

#[test]
fn the_table_is_in_the_order_of_the_names() {
    for (index, row) in LOSSES.iter().enumerate() {
        assert_eq!(row.loss as usize, index);
        assert_eq!(DpoLoss::from_name(row.name), Some(row.loss));
    }
}

fn parse(text: &str) -> Result<LossConfig, InvalidLossConfig> {
    LossConfig::try_from(serde_json::from_str::<LossSettings>(text).unwrap())
}

#[test]
fn settings_are_read_under_trl_names_and_written_back() {
    assert_eq!(parse("{}").unwrap(), LossConfig::default());
    let mpo = r#"{"loss_type": ["sigmoid", "sft"], "loss_weights": [0.8, 1.0], "beta": 0.2, "label_smoothing": 0.1}"#;
    let config = parse(mpo).unwrap();
    assert_eq!(config.losses, [(DpoLoss::Sigmoid, 0.8), (DpoLoss::Sft, 1.0)]);
    assert_eq!((config.beta, config.label_smoothing), (0.2, 0.1));
    let camel =
        parse(r#"{"lossType": "ipo", "ipoNormalisation": "none", "fDivergenceType": "alpha_divergence"}"#).unwrap();
    assert_eq!(camel.ipo_normalisation, IpoNormalisation::None);
    assert_eq!(camel.f_divergence, FDivergence::Alpha(0.5));
    for config in every_config(0.3) {
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<LossConfig>(&written).unwrap(), config);
    }
    assert!(serde_json::from_str::<LossConfig>(r#"{"betta": 0.1}"#).unwrap_err().to_string().contains("betta"));
}

#[test]
fn all_problems_come_at_once() {
    let settings = r#"{"lossType": ["sigmoid", "dpo", "apo_zero"], "lossWeights": [1, -2], "beta": 0,
        "labelSmoothing": 0.7, "fDivergenceType": "kl", "ipoNormalisation": "mean", "discopopTau": -1}"#;
    let InvalidLossConfig(problems) = parse(settings).unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    for field in
        ["lossType[1]", "lossWeights", "beta", "labelSmoothing", "fDivergenceType", "ipoNormalisation", "discopopTau"]
    {
        assert!(fields.contains(&field), "{field} is missing from {fields:?}");
    }
    let unknown = problems.iter().find(|problem| problem.field == "lossType[1]").unwrap();
    assert!(unknown.reason.contains("`dpo`") && LOSSES.iter().all(|row| unknown.remedy.contains(row.name)));
    assert!(problems.iter().all(|problem| !problem.reason.is_empty() && !problem.remedy.is_empty()));
}

#[test]
fn constants_without_meaning_are_refused_by_name() {
    let refused = |config: LossConfig| config.validate().err().map(|error| error.to_string());
    for row in &LOSSES {
        let with = |label_smoothing| refused(LossConfig { label_smoothing, ..only(row.loss) });
        match row.smoothing {
            Smoothing::Honoured => assert!(with(0.0).is_none() && with(0.5).is_none()),
            Smoothing::Needed => assert!(with(0.0).unwrap().contains(row.name) && with(0.5).is_none()),
            Smoothing::BelowHalf => assert!(with(0.0).is_none() && with(0.5).unwrap().contains(row.name)),
            Smoothing::Bystander | Smoothing::Refused => {
                assert!(with(0.0).is_none() && with(0.1).unwrap().contains(row.name));
            }
        }
        let label_smoothing = if row.smoothing == Smoothing::Needed { 0.1 } else { 0.0 };
        let js = LossConfig { f_divergence: FDivergence::Js, label_smoothing, ..only(row.loss) };
        assert_eq!(refused(js).is_some(), !row.f_divergence, "{}", row.name);
    }
    assert!(refused(LossConfig { losses: vec![], ..LossConfig::default() }).unwrap().contains("lossType"));
    let zero = LossConfig { losses: vec![(DpoLoss::Sigmoid, 0.0)], ..LossConfig::default() };
    assert!(refused(zero).unwrap().contains("lossWeights"));
    assert!(refused(LossConfig { beta: f64::NAN, ..LossConfig::default() }).unwrap().contains("beta"));
}
