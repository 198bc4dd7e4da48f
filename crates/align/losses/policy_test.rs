//! ORPO, CPO, SimPO, AlphaPO and KTO by derivation, by hand and by finite differences.

use proptest::prelude::*;

use super::cpo::{Cpo, CpoLoss};
use super::kto::{Kto, KtoLoss, UnpairedLogps};
use super::orpo::Orpo;
use super::policy::{PolicyLogps, PolicyLoss};
use super::{Denominator, LossError, Objective, PairLoss};

/// Pairs that own their numbers; ORPO's prompts as one sum.
#[derive(Clone, Debug)]
struct Batch {
    logps: [Vec<f64>; 2],
    tokens: [Vec<f64>; 2],
    prompts: f64,
}

impl Batch {
    fn loss(&self, loss: PolicyLoss, denominator: Denominator) -> PairLoss {
        let logps = PolicyLogps {
            chosen: &self.logps[0],
            rejected: &self.logps[1],
            chosen_tokens: &self.tokens[0],
            rejected_tokens: &self.tokens[1],
            prompts: self.prompts,
        };
        loss.of(&logps, denominator).unwrap()
    }

    fn denominator(&self) -> Denominator {
        let chosen_tokens = self.tokens[0].iter().sum::<f64>() + 7.0;
        Denominator { pairs: self.logps[0].len() as f64, chosen_tokens }
    }

    fn slice(&self, range: std::ops::Range<usize>, prompts: f64) -> Self {
        let cut = |column: &Vec<f64>| column[range.clone()].to_vec();
        Batch { logps: self.logps.each_ref().map(cut), tokens: self.tokens.each_ref().map(cut), prompts }
    }
}

/// Answers of 1 to 40 tokens at 0.01 to 9 nats a token.
fn batches(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Batch> {
    let pair = (0.01..9.0f64, 0.01..9.0f64, 1u32..40, 1u32..40);
    (prop::collection::vec(pair, count), -90.0..-1.0f64).prop_map(|(pairs, prompts)| Batch {
        logps: [
            pairs.iter().map(|pair| -pair.0 * f64::from(pair.2)).collect(),
            pairs.iter().map(|pair| -pair.1 * f64::from(pair.3)).collect(),
        ],
        tokens: [
            pairs.iter().map(|pair| f64::from(pair.2)).collect(),
            pairs.iter().map(|pair| f64::from(pair.3)).collect(),
        ],
        prompts,
    })
}

const CPO: Cpo =
    Cpo { beta: 0.1, loss_type: CpoLoss::Sigmoid, label_smoothing: 0.0, cpo_alpha: 1.0, simpo_gamma: 0.5, alpha: 0.0 };

/// Every loss with and without each of its constants.
fn every_cpo() -> Vec<Cpo> {
    let mut all = Vec::new();
    for loss_type in [CpoLoss::Sigmoid, CpoLoss::Hinge, CpoLoss::Ipo, CpoLoss::Simpo] {
        for (label_smoothing, cpo_alpha, alpha) in
            [(0.0, 1.0, 0.0), (0.2, 0.0, 0.0), (0.0, 0.3, 0.05), (0.0, 1.0, -0.1)]
        {
            let cpo = Cpo { loss_type, label_smoothing, cpo_alpha, alpha, beta: 0.7, ..CPO };
            if label_smoothing == 0.0 || cpo.smooths() {
                all.push(cpo);
            }
        }
    }
    all
}

fn near(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{got} is not {want}");
}

/// Central difference with Richardson's extrapolation, and how far it can be trusted.
fn difference(value: impl Fn(f64) -> f64) -> (f64, f64) {
    let central = |h: f64| (value(h) - value(-h)) / (2.0 * h);
    let (wide, narrow) = (central(2e-4), central(1e-4));
    (narrow + (narrow - wide) / 3.0, (narrow - wide).abs() + value(0.0).abs() * 1e-11)
}

fn check_slopes(batch: &Batch, loss: PolicyLoss) -> Result<(), TestCaseError> {
    let denominator = batch.denominator();
    let got = batch.loss(loss, denominator);
    let check = |slope: f64, (want, error): (f64, f64)| {
        // A difference that does not know itself proves nothing: a kink, or curvature beyond its step.
        if error <= 1e-3 * want.abs() + 1e-6 * got.loss.abs().max(1.0) {
            prop_assert!(
                (slope - want).abs() <= 2.0 * error + 1e-6 * want.abs() + 1e-9,
                "{loss:?}: {slope} not {want}"
            );
        }
        Ok(())
    };
    for pair in 0..batch.logps[0].len() {
        for (side, slope) in [(0, got.d_chosen[pair]), (1, got.d_rejected[pair])] {
            let moved = |offset: f64| {
                let mut moved = batch.clone();
                moved.logps[side][pair] += offset;
                moved.loss(loss, denominator).loss
            };
            check(slope, difference(moved))?;
        }
    }
    let moved = |offset: f64| Batch { prompts: batch.prompts + offset, ..batch.clone() }.loss(loss, denominator).loss;
    check(got.d_prompt, difference(moved))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn slopes_of_pair_losses(batch in batches(1..=3), beta in 0.05..2.0f64) {
        check_slopes(&batch, PolicyLoss::Orpo(&Orpo { beta }))?;
        for cpo in every_cpo() {
            check_slopes(&batch, PolicyLoss::Cpo(&cpo))?;
        }
    }

    #[test]
    fn micro_batches_add_up(batch in batches(3..=3), beta in 0.05..2.0f64) {
        let denominator = batch.denominator();
        let (first, rest) = (batch.slice(0..1, 0.25 * batch.prompts), batch.slice(1..3, 0.75 * batch.prompts));
        let orpo = Orpo { beta };
        let every = every_cpo();
        for loss in every.iter().map(PolicyLoss::Cpo).chain([PolicyLoss::Orpo(&orpo)]) {
            let whole = batch.loss(loss, denominator);
            let (a, b) = (first.loss(loss, denominator), rest.loss(loss, denominator));
            near(a.loss + b.loss, whole.loss, 1e-12);
            prop_assert_eq!([a.d_chosen, b.d_chosen].concat(), whole.d_chosen);
            prop_assert_eq!([a.d_rejected, b.d_rejected].concat(), whole.d_rejected);
            near(a.parts.nll.unwrap() + b.parts.nll.unwrap(), whole.parts.nll.unwrap(), 1e-12);
        }
    }

    /// ORPO's odds are those of the sequence's geometric mean probability: with p and q themselves,
    /// L_OR = log(1 + odds(q)/odds(p)), the form without any logarithm inside (paper, eq. 6: −log σ(log(odds_p/odds_q))).
    #[test]
    fn orpo_is_the_logistic_of_the_odds_ratio(batch in batches(1..=1), beta in 0.05..2.0f64) {
        let mean = |side: usize| (batch.logps[side][0] / batch.tokens[side][0]).exp();
        let odds = |p: f64| p / (1.0 - p);
        let expected = (1.0 + odds(mean(1)) / odds(mean(0))).ln();
        let denominator = batch.denominator();
        let got = batch.loss(PolicyLoss::Orpo(&Orpo { beta }), denominator);
        let nll = -(batch.logps[0][0] + batch.prompts) / denominator.chosen_tokens;
        near(got.loss, nll + beta * expected, 1e-9);
        near(got.parts.log_odds_ratio.unwrap(), -expected, 1e-9);
        near(got.parts.log_odds_chosen.unwrap(), (odds(mean(0)) / odds(mean(1))).ln(), 1e-9);
    }

    /// SimPO is CPO's logistic loss of means per token, shifted by γ; one token and γ = 0 make the two the same.
    #[test]
    fn simpo_of_one_token_is_cpo(chosen in -9.0..-0.01f64, rejected in -9.0..-0.01f64) {
        let batch = Batch { logps: [vec![chosen], vec![rejected]], tokens: [vec![1.0], vec![1.0]], prompts: 0.0 };
        let cpo = Cpo { cpo_alpha: 0.0, ..CPO };
        let simpo = Cpo { loss_type: CpoLoss::Simpo, simpo_gamma: 0.0, ..cpo };
        let denominator = batch.denominator();
        prop_assert_eq!(
            batch.loss(PolicyLoss::Cpo(&cpo), denominator),
            batch.loss(PolicyLoss::Cpo(&simpo), denominator)
        );
    }

    /// AlphaPO's reward goes to the log-prob as α → 0: (1 − p^−α)/α = log p − α (log p)²/2 + …
    #[test]
    fn alphapo_goes_to_simpo(batch in batches(1..=2)) {
        let simpo = Cpo { loss_type: CpoLoss::Simpo, ..CPO };
        let close = Cpo { alpha: 1e-7, ..simpo };
        let denominator = batch.denominator();
        let (limit, got) = (batch.loss(PolicyLoss::Cpo(&simpo), denominator), batch.loss(PolicyLoss::Cpo(&close), denominator));
        near(got.loss, limit.loss, 1e-5);
        near(got.d_chosen[0], limit.d_chosen[0], 1e-5);
    }

    #[test]
    fn slopes_of_kto(rows in prop::collection::vec((-80.0..-1.0f64, -4.0..4.0f64, any::<bool>()), 1..5), kl in 0.0..3.0f64, beta in 0.05..2.0f64) {
        let desirable: Vec<bool> = rows.iter().map(|row| row.2).collect();
        let reference: Vec<f64> = rows.iter().map(|row| row.0).collect();
        let policy: Vec<f64> = rows.iter().map(|row| row.0 + row.1).collect();
        for loss_type in [KtoLoss::Kto, KtoLoss::ApoZeroUnpaired] {
            let kto = Kto { beta, loss_type, desirable_weight: 1.3, undesirable_weight: 0.4 };
            let count = rows.len() as f64;
            let at = |policy: &[f64]| kto.loss(&UnpairedLogps { policy, reference: &reference, desirable: &desirable, kl }, count).unwrap();
            let got = at(&policy);
            for row in 0..rows.len() {
                let (want, error) = difference(|offset| {
                    let mut moved = policy.clone();
                    moved[row] += offset;
                    at(&moved).loss
                });
                prop_assert!((got.d_logp[row] - want).abs() <= 2.0 * error + 1e-6 * want.abs() + 1e-9);
            }
        }
    }
}

/// β 0.1; 4 chosen tokens at −5 nats, 5 rejected at −6, 6 prompt tokens at −2; 10 chosen tokens in all.
#[test]
fn pair_losses_by_hand() {
    let batch = Batch { logps: [vec![-20.0], vec![-30.0]], tokens: [vec![4.0], vec![5.0]], prompts: -12.0 };
    let denominator = Denominator { pairs: 1.0, chosen_tokens: 10.0 };
    let softplus = |x: f64| x.exp().ln_1p();

    let orpo = batch.loss(PolicyLoss::Orpo(&Orpo { beta: 0.1 }), denominator);
    let margin = (-5.0f64 - (1.0 - (-5.0f64).exp()).ln()) - (-6.0 - (1.0 - (-6.0f64).exp()).ln());
    near(orpo.loss, 3.2 + 0.1 * softplus(-margin), 1e-12);
    assert_eq!((orpo.logps_chosen[0], orpo.logps_rejected[0]), (-5.0, -6.0));
    assert_eq!(orpo.d_prompt, -0.1);
    near(orpo.rewards_rejected[0], -0.6, 1e-15);

    // The prompt is no part of CPO: its cross-entropy is divided by the answers' tokens.
    let (answers, batch) = (Denominator { pairs: 1.0, chosen_tokens: 4.0 }, Batch { prompts: 0.0, ..batch });
    let value = |cpo: &Cpo| batch.loss(PolicyLoss::Cpo(cpo), answers);
    near(value(&CPO).loss, softplus(-1.0) + 5.0, 1e-12);
    assert_eq!(value(&CPO).logps_chosen, [-20.0]);
    near(value(&Cpo { label_smoothing: 0.1, ..CPO }).loss, 0.9 * softplus(-1.0) + 0.1 * softplus(1.0) + 5.0, 1e-12);
    near(value(&Cpo { loss_type: CpoLoss::Hinge, cpo_alpha: 0.0, beta: 0.05, ..CPO }).loss, 0.5, 1e-12);
    near(value(&Cpo { loss_type: CpoLoss::Ipo, cpo_alpha: 0.0, ..CPO }).loss, 16.0, 1e-12);
    let simpo = Cpo { loss_type: CpoLoss::Simpo, cpo_alpha: 0.0, beta: 2.0, ..CPO };
    near(value(&simpo).loss, softplus(-1.5), 1e-12);
    assert_eq!(value(&simpo).parts.nll, Some(0.0));
    // α = 0.25: rewards (1 − e^{1.25})/0.25 and (1 − e^{1.5})/0.25.
    let delta = (1.5f64.exp() - 1.25f64.exp()) / 0.25;
    near(value(&Cpo { alpha: 0.25, ..simpo }).loss, softplus(0.5 - 2.0 * delta), 1e-12);
    near(value(&Cpo { alpha: 0.25, ..simpo }).rewards_chosen[0], 2.0 * (1.0 - 1.25f64.exp()) / 0.25, 1e-12);
}

/// KTO (eq. 7, 8): λ_y − v(x, y), v = λ_D σ(β(r − z₀)) or λ_U σ(β(z₀ − r)); TRL drops the constant of each kind to
/// λ(1 − σ). Its slope at r = z₀ is λβ/4, and no gradient flows through z₀.
#[test]
fn kto_by_hand() {
    let kto = Kto { beta: 0.1, loss_type: KtoLoss::Kto, desirable_weight: 1.0, undesirable_weight: 2.0 };
    let logps =
        UnpairedLogps { policy: &[-10.0, -10.0], reference: &[-13.0, -13.0], desirable: &[true, false], kl: 3.0 };
    let got = kto.loss(&logps, 2.0).unwrap();
    near(got.loss, (0.5 + 2.0 * 0.5) / 2.0, 1e-15);
    near(got.d_logp[0], -0.1 / 4.0 / 2.0, 1e-15);
    near(got.d_logp[1], 2.0 * 0.1 / 4.0 / 2.0, 1e-15);
    near(got.rewards[0], 0.3, 1e-15);
    // An estimate below 0 counts as 0; apo_zero compares with 0 whatever the estimate.
    let below = UnpairedLogps { kl: -4.0, ..logps };
    let apo = Kto { loss_type: KtoLoss::ApoZeroUnpaired, ..kto };
    assert_eq!(kto.loss(&below, 2.0).unwrap(), apo.loss(&logps, 2.0).unwrap());
    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
    near(apo.loss(&logps, 2.0).unwrap().loss, ((1.0 - sigma(0.3)) + 2.0 * sigma(0.3)) / 2.0, 1e-15);
}

#[test]
fn certain_answers_and_numbers_that_are_none() {
    let at = |chosen: f64| Batch { logps: [vec![chosen], vec![-3.0]], tokens: [vec![2.0], vec![2.0]], prompts: 0.0 };
    let orpo = Orpo { beta: 0.1 };
    let cpo = Cpo { alpha: 2.0, ..CPO };
    // Log-prob 0, and what f32 rounding can leave above it; far out.
    for chosen in [0.0, 1e-6, -1e5] {
        for loss in [PolicyLoss::Orpo(&orpo), PolicyLoss::Cpo(&cpo)] {
            let got = at(chosen).loss(loss, at(chosen).denominator());
            assert!(got.loss.is_finite() && got.d_chosen[0].is_finite() && got.d_rejected[0].is_finite(), "{got:?}");
        }
    }
    for loss in [PolicyLoss::Orpo(&orpo), PolicyLoss::Cpo(&CPO)] {
        assert!(at(f64::NAN).loss(loss, at(0.0).denominator()).loss.is_nan());
    }
    let kto = Kto { beta: 0.1, loss_type: KtoLoss::Kto, desirable_weight: 1.0, undesirable_weight: 1.0 };
    let nan = UnpairedLogps { policy: &[-1.0], reference: &[-1.0], desirable: &[true], kl: f64::NAN };
    assert!(kto.loss(&nan, 1.0).unwrap().loss.is_nan());
    let short = UnpairedLogps { reference: &[], kl: 0.0, ..nan };
    assert_eq!(kto.loss(&short, 1.0), Err(LossError::Length { field: "reference", expected: 1, got: 0 }));
    assert!(matches!(kto.loss(&nan, 0.0), Err(LossError::Denominator { field: "answers", .. })));
}

#[test]
fn objectives_are_read_and_checked() {
    let cpo = r#"{"method": "cpo", "beta": 0.1, "lossType": "sigmoid", "labelSmoothing": 0, "cpoAlpha": 1, "simpoGamma": 0.5, "alpha": 0}"#;
    assert_eq!(Objective::parse(cpo).unwrap(), Objective::Cpo(CPO));
    assert_eq!(Objective::parse(r#"{"method": "orpo", "beta": 0.2}"#).unwrap(), Objective::Orpo(Orpo { beta: 0.2 }));
    assert!(matches!(Objective::parse(r#"{"method": "dpo", "lossType": "ipo"}"#).unwrap(), Objective::Dpo(_)));
    let refused = |json: &str| Objective::parse(json).unwrap_err().to_string();
    assert!(refused(r#"{"method": "orpo", "beta": 0.2, "gamma": 1}"#).contains("gamma"));
    assert!(refused(r#"{"method": "orpo", "beta": -1}"#).contains("beta"));
    let hinge = cpo.replace("sigmoid", "hinge").replace(r#""labelSmoothing": 0"#, r#""labelSmoothing": 0.1"#);
    assert!(refused(&hinge.replace(r#""cpoAlpha": 1"#, r#""cpoAlpha": -1"#)).matches("Remedy").count() == 2);
    let kto = r#"{"method": "kto", "beta": 0.1, "lossType": "kto", "desirableWeight": 0, "undesirableWeight": 1}"#;
    assert!(refused(kto).contains("desirableWeight"));
}
