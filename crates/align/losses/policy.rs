//! Pair losses of the policy alone (ORPO, CPO, SimPO): what they have in common is the cross-entropy beside them.

use super::cpo::Cpo;
use super::orpo::Orpo;
use super::{Denominator, LossError, PairLoss, PairTerm, Parts};

pub(super) use super::PairTerm as Term;

/// A preference loss that needs no reference.
#[derive(Clone, Copy, Debug)]
pub enum PolicyLoss<'a> {
    Orpo(&'a Orpo),
    Cpo(&'a Cpo),
}

/// Log-probs of a batch of pairs under the policy, one entry a pair; sums over completion tokens.
#[derive(Clone, Copy, Debug)]
pub struct PolicyLogps<'a> {
    pub chosen: &'a [f64],
    pub rejected: &'a [f64],
    /// `|y_c|`
    pub chosen_tokens: &'a [f64],
    /// `|y_r|`
    pub rejected_tokens: &'a [f64],
    /// Sum over the prompt tokens of the chosen sequences that the cross-entropy covers (ORPO's); 0 when it covers none.
    pub prompts: f64,
}

/// One pair as a loss of the policy sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    pub chosen_logp: f64,
    pub rejected_logp: f64,
    pub chosen_tokens: f64,
    pub rejected_tokens: f64,
}

/// What such a loss makes of a pair.
pub(super) struct PolicyTerm {
    pub term: PairTerm,
    /// Chosen and rejected log-prob as TRL logs them: sums or means per token.
    pub logps: [f64; 2],
    pub rewards: [f64; 2],
    /// ORPO's margin of the log odds.
    pub log_odds: f64,
}

impl PolicyLoss<'_> {
    /// Weight of the cross-entropy.
    fn nll_weight(&self) -> f64 {
        match self {
            Self::Orpo(_) => 1.0,
            Self::Cpo(cpo) => cpo.cpo_alpha,
        }
    }

    /// Value and derivative over a batch of pairs: mean of the pair terms over the step's pairs, and the weight times
    /// the mean cross-entropy over the step's chosen tokens (`denominator.chosen_tokens`; ORPO's count holds the prompts).
    ///
    /// # Errors
    /// [`LossError`] when slices differ in length or a needed count of `denominator` is not positive.
    pub fn of(&self, logps: &PolicyLogps, denominator: Denominator) -> Result<PairLoss, LossError> {
        let expected = logps.chosen.len();
        let slices = [
            ("rejected", logps.rejected),
            ("chosen_tokens", logps.chosen_tokens),
            ("rejected_tokens", logps.rejected_tokens),
        ];
        for (field, slice) in slices {
            if slice.len() != expected {
                return Err(LossError::Length { field, expected, got: slice.len() });
            }
        }
        let Denominator { pairs, chosen_tokens } = denominator;
        for (field, got) in [("pairs", pairs), ("chosen tokens", chosen_tokens)] {
            if !(got > 0.0 && got.is_finite()) {
                return Err(LossError::Denominator { field, got });
            }
        }
        let nll_weight = self.nll_weight();
        let d_token = -nll_weight / chosen_tokens;
        let terms: Vec<PolicyTerm> = (0..expected)
            .map(|i| Answers {
                chosen_logp: logps.chosen[i],
                rejected_logp: logps.rejected[i],
                chosen_tokens: logps.chosen_tokens[i].max(1.0),
                rejected_tokens: logps.rejected_tokens[i].max(1.0),
            })
            .map(|pair| match self {
                Self::Orpo(orpo) => orpo.pair(&pair),
                Self::Cpo(cpo) => cpo.pair(&pair),
            })
            .collect();
        let preference = terms.iter().map(|pair| pair.term.value).sum::<f64>() / pairs;
        // TRL leaves the cross-entropy out, and logs 0, where it has no weight.
        let nll =
            if nll_weight == 0.0 { 0.0 } else { -(logps.chosen.iter().sum::<f64>() + logps.prompts) / chosen_tokens };
        let odds = |value: fn(f64) -> f64| match self {
            Self::Orpo(_) => Some(terms.iter().map(|pair| value(pair.log_odds)).sum()),
            Self::Cpo(_) => None,
        };
        let side = |of: fn(&PolicyTerm) -> f64| terms.iter().map(of).collect::<Vec<f64>>();
        Ok(PairLoss {
            loss: preference + nll_weight * nll,
            d_chosen: terms.iter().map(|pair| pair.term.chosen / pairs + d_token).collect(),
            d_rejected: terms.iter().map(|pair| pair.term.rejected / pairs).collect(),
            d_prompt: d_token,
            per_loss: vec![preference, nll],
            logps_chosen: side(|pair| pair.logps[0]),
            logps_rejected: side(|pair| pair.logps[1]),
            rewards_chosen: side(|pair| pair.rewards[0]),
            rewards_rejected: side(|pair| pair.rewards[1]),
            parts: Parts {
                nll: Some(nll),
                log_odds_ratio: odds(super::logistic::log_sigmoid),
                log_odds_chosen: odds(|margin| margin),
            },
        })
    }
}
