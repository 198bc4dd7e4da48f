//! ORPO: cross-entropy on the chosen sequence and an odds ratio between the answers, without a reference.

use serde::Deserialize;

use super::logistic::{log_sigmoid, sigmoid};
use super::policy::{Answers, PolicyTerm, Term};

/// Mean log-probs above this are held there, with slope 0: at 0 the odds are infinite.
const MAX_LOGP: f64 = -1e-12;

/// Constants of ORPO (Hong et al. 2024, arXiv 2403.07691; TRL `ORPOConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Orpo {
    /// λ of the paper: weight of the odds ratio (TRL `beta`, 0.1).
    pub beta: f64,
}

impl Orpo {
    /// `−β log σ(x)`, `x = log odds(y_c) − log odds(y_r)`, `odds(y) = p/(1 − p)`, `log p` the *mean* log-prob of the
    /// answer's tokens (eq. 4 to 7). The cross-entropy beside it has weight 1 and covers the prompt's tokens too, as
    /// TRL's ("orpo chosen nll loss is computed over the full prompt and response").
    pub(super) fn pair(&self, pair: &Answers) -> PolicyTerm {
        let chosen = pair.chosen_logp / pair.chosen_tokens;
        let rejected = pair.rejected_logp / pair.rejected_tokens;
        let ((odds_chosen, slope_chosen), (odds_rejected, slope_rejected)) = (log_odds(chosen), log_odds(rejected));
        let margin = odds_chosen - odds_rejected;
        let slope = -self.beta * sigmoid(-margin);
        PolicyTerm {
            term: Term {
                value: -self.beta * log_sigmoid(margin),
                chosen: slope * slope_chosen / pair.chosen_tokens,
                rejected: -slope * slope_rejected / pair.rejected_tokens,
            },
            logps: [chosen, rejected],
            rewards: [self.beta * chosen, self.beta * rejected],
            log_odds: margin,
        }
    }
}

/// `a − log(1 − e^a)` for `a = log p`, and its slope `1/(1 − e^a)`; the form of `log(1 − e^a)` that keeps its digits
/// (Mächler 2012), TRL's `log1mexp`.
fn log_odds(logp: f64) -> (f64, f64) {
    let held = logp > MAX_LOGP;
    let a = logp.min(MAX_LOGP);
    let complement = if a > -std::f64::consts::LN_2 { (-a.exp_m1()).ln() } else { (-a.exp()).ln_1p() };
    // min takes the number beside a NaN: a log-prob that is none must show.
    if logp.is_nan() {
        return (logp, logp);
    }
    (a - complement, if held { 0.0 } else { -1.0 / a.exp_m1() })
}
