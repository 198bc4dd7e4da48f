//! Sums of single answers, wanted or not (KTO).

use std::ops::AddAssign;

use serde::Serialize;
use serde_json::{Map, Value};
use zephyr_kernels::head::Stats;

use super::{Log, StepFacts, Tokens, eval_log};
use crate::batch::Packed;
use crate::losses::kto::UnpairedLoss;

/// Sums over the answers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Side {
    answers: u64,
    tokens: Tokens,
    logps: f64,
    rewards: f64,
}

impl Side {
    /// TRL leaves the metrics of a kind out that a step has none of.
    fn mean(&self, sum: f64) -> Option<f64> {
        (self.answers > 0).then(|| sum / self.answers as f64)
    }
}

impl AddAssign for Side {
    fn add_assign(&mut self, other: Self) {
        self.answers += other.answers;
        self.tokens += other.tokens;
        self.logps += other.logps;
        self.rewards += other.rewards;
    }
}

/// Sums of micro-batches of single answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnpairedSums {
    /// Already divided by the step's count: the plain sum over a step's micro-batches is its loss.
    pub loss: f64,
    /// The step's estimate, the same for all its micro-batches.
    pub kl: f64,
    chosen: Side,
    rejected: Side,
}

impl UnpairedSums {
    /// The sums of one batch of answers; `logps` are their log-prob sums under the policy.
    pub fn of(stats: &Stats, packed: &Packed, logps: &[f64], desirable: &[bool], loss: &UnpairedLoss) -> Self {
        let mut sums = UnpairedSums { loss: loss.loss, kl: loss.kl, ..UnpairedSums::default() };
        for (answer, &wanted) in desirable.iter().enumerate() {
            let side = if wanted { &mut sums.chosen } else { &mut sums.rejected };
            side.answers += 1;
            side.logps += logps[answer];
            side.rewards += loss.rewards[answer];
        }
        for (row, &owner) in packed.owner.iter().enumerate() {
            let side = if desirable[owner as usize] { &mut sums.chosen } else { &mut sums.rejected };
            side.tokens.add(stats, row);
        }
        sums
    }

    /// TRL's metrics of these sums.
    pub fn means(&self) -> KtoMeans {
        let mut both = self.chosen.tokens;
        both += self.rejected.tokens;
        let (chosen, rejected) = (&self.chosen, &self.rejected);
        let logits = |side: &Side| (side.answers > 0).then(|| side.tokens.mean(side.tokens.logit_mean));
        let (rewards_chosen, rewards_rejected) = (chosen.mean(chosen.rewards), rejected.mean(rejected.rewards));
        KtoMeans {
            kl: self.kl,
            entropy: both.mean(both.entropy),
            logits_chosen: logits(chosen),
            logits_rejected: logits(rejected),
            rewards_chosen,
            rewards_rejected,
            rewards_margins: rewards_chosen.zip(rewards_rejected).map(|(chosen, rejected)| chosen - rejected),
            logps_chosen: chosen.mean(chosen.logps),
            logps_rejected: rejected.mean(rejected.logps),
        }
    }

    /// The log of a step.
    pub fn log(&self, facts: StepFacts) -> Log<KtoMeans> {
        Log::new(self.loss, facts, self.means())
    }

    /// The metrics of an evaluation, named `eval_…`. The loss must have been divided by the counts of the whole set.
    pub fn eval_log(&self) -> Map<String, Value> {
        eval_log(self.loss, self.means())
    }
}

impl AddAssign for UnpairedSums {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.kl = other.kl;
        self.chosen += other.chosen;
        self.rejected += other.rejected;
    }
}

/// KTO metrics, serialised under TRL's names; "chosen" are the wanted answers. A kind of which there is none is left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KtoMeans {
    /// The point of comparison: mean `log π − log π_ref` of mismatched answers, not below 0.
    pub kl: f64,
    /// Nats per token, mean over the answers' tokens.
    pub entropy: f64,
    #[serde(rename = "logits/chosen", skip_serializing_if = "Option::is_none")]
    pub logits_chosen: Option<f64>,
    #[serde(rename = "logits/rejected", skip_serializing_if = "Option::is_none")]
    pub logits_rejected: Option<f64>,
    #[serde(rename = "rewards/chosen", skip_serializing_if = "Option::is_none")]
    pub rewards_chosen: Option<f64>,
    #[serde(rename = "rewards/rejected", skip_serializing_if = "Option::is_none")]
    pub rewards_rejected: Option<f64>,
    #[serde(rename = "rewards/margins", skip_serializing_if = "Option::is_none")]
    pub rewards_margins: Option<f64>,
    #[serde(rename = "logps/chosen", skip_serializing_if = "Option::is_none")]
    pub logps_chosen: Option<f64>,
    #[serde(rename = "logps/rejected", skip_serializing_if = "Option::is_none")]
    pub logps_rejected: Option<f64>,
}
