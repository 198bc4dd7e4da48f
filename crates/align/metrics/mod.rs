//! TRL's metrics, held as sums: micro-batches are added exactly, and a mean is taken once, at the step's log.
//!
//! Names and meaning are those of TRL 1.13–1.16 (`dpo_trainer.py`, `sft_trainer.py`, `_compute_loss`). One difference:
//! TRL takes the mean of each micro-batch and logs the mean of these means; here each token (or pair) counts the same.
//! `logits/…` are means over the answers' tokens; TRL's ORPO and CPO take the mean over prompts and padding too.
//! The two are equal at gradient accumulation 1, and for per-pair metrics whenever micro-batches hold equally many
//! pairs. The loss itself is divided by the step's counts in both.

use std::ops::AddAssign;

use serde::Serialize;
use serde_json::{Map, Value};
use zephyr_kernels::head::Stats;

use crate::batch::Packed;
use crate::losses::{PairLoss, Parts};

mod unpaired;

pub use unpaired::{KtoMeans, UnpairedSums};

/// Sums over predicted tokens (the supervised tokens of one kind of sequence).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tokens {
    pub count: u64,
    /// Sum of the entropies of the next-token distributions, nats.
    pub entropy: f64,
    /// Tokens that were the argmax.
    pub correct: u64,
    /// Sum of the means over the vocabulary of each token's logits.
    pub logit_mean: f64,
}

impl Tokens {
    fn add(&mut self, stats: &Stats, row: usize) {
        self.count += 1;
        self.entropy += f64::from(stats.entropy[row]);
        self.correct += u64::from(stats.correct[row]);
        self.logit_mean += f64::from(stats.logit_mean[row]);
    }

    fn mean(&self, sum: f64) -> f64 {
        mean(sum, self.count)
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.entropy += other.entropy;
        self.correct += other.correct;
        self.logit_mean += other.logit_mean;
    }
}

/// Mean of nothing is 0, as in TRL.
fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Sums of SFT micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenSums {
    /// Cross-entropy, already divided by the step's tokens: the plain sum over a step's micro-batches is its loss.
    pub loss: f64,
    pub tokens: Tokens,
}

impl TokenSums {
    /// The sums of one batch; `tokens_in_step` is the count of predicted tokens of the whole optimizer step (or of the
    /// whole evaluation set).
    pub fn of(stats: &Stats, tokens_in_step: f64) -> Self {
        let mut tokens = Tokens::default();
        for row in 0..stats.logp.len() {
            tokens.add(stats, row);
        }
        let logp: f64 = stats.logp.iter().copied().map(f64::from).sum();
        TokenSums { loss: -logp / tokens_in_step, tokens }
    }

    /// TRL's metrics of these sums.
    pub fn means(&self) -> SftMeans {
        SftMeans {
            entropy: self.tokens.mean(self.tokens.entropy),
            mean_token_accuracy: self.tokens.mean(self.tokens.correct as f64),
        }
    }

    /// The log of a step, or of several steps added up.
    pub fn log(&self, facts: StepFacts) -> Log<SftMeans> {
        Log::new(self.loss, facts, self.means())
    }

    /// The metrics of an evaluation, named `eval_…`. The loss must have been divided by the counts of the whole set.
    pub fn eval_log(&self) -> Map<String, Value> {
        eval_log(self.loss, self.means())
    }
}

impl AddAssign for TokenSums {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.tokens += other.tokens;
    }
}

/// Sums of micro-batches of pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairSums {
    /// Already divided by the step's counts: the plain sum over a step's micro-batches is its loss.
    pub loss: f64,
    pub pairs: u64,
    /// Predicted tokens of the chosen answers.
    pub chosen: Tokens,
    /// Predicted tokens of the rejected answers.
    pub rejected: Tokens,
    /// Sum of the policy's log-prob sums (of their means per token, where the loss takes means).
    pub logps_chosen: f64,
    pub logps_rejected: f64,
    /// Sum of `β (log π − log π_ref)`, or of the rewards of a loss without a reference.
    pub rewards_chosen: f64,
    pub rewards_rejected: f64,
    /// Pairs whose chosen reward is above the rejected one; a tie is not.
    pub wins: u64,
    pub parts: Parts,
}

impl PairSums {
    /// The sums of one batch of pairs; `packed` holds them interleaved: chosen 0, rejected 0, chosen 1, …
    pub fn of(stats: &Stats, packed: &Packed, loss: &PairLoss) -> Self {
        let mut sums = PairSums {
            loss: loss.loss,
            pairs: loss.rewards_chosen.len() as u64,
            logps_chosen: loss.logps_chosen.iter().sum(),
            logps_rejected: loss.logps_rejected.iter().sum(),
            rewards_chosen: loss.rewards_chosen.iter().sum(),
            rewards_rejected: loss.rewards_rejected.iter().sum(),
            wins: loss.rewards_chosen.iter().zip(&loss.rewards_rejected).filter(|(c, r)| c > r).count() as u64,
            parts: loss.parts,
            ..PairSums::default()
        };
        for (row, owner) in packed.answer_owners().iter().enumerate() {
            let side = if owner.is_multiple_of(2) { &mut sums.chosen } else { &mut sums.rejected };
            side.add(stats, row);
        }
        sums
    }

    /// TRL's metrics of these sums.
    pub fn means(&self) -> DpoMeans {
        let mut both = self.chosen;
        both += self.rejected;
        let rewards_chosen = mean(self.rewards_chosen, self.pairs);
        let rewards_rejected = mean(self.rewards_rejected, self.pairs);
        DpoMeans {
            entropy: both.mean(both.entropy),
            mean_token_accuracy: self.chosen.mean(self.chosen.correct as f64),
            logits_chosen: self.chosen.mean(self.chosen.logit_mean),
            logits_rejected: self.rejected.mean(self.rejected.logit_mean),
            logps_chosen: mean(self.logps_chosen, self.pairs),
            logps_rejected: mean(self.logps_rejected, self.pairs),
            rewards_chosen,
            rewards_rejected,
            rewards_margins: rewards_chosen - rewards_rejected,
            rewards_accuracies: mean(self.wins as f64, self.pairs),
            nll_loss: self.parts.nll,
            log_odds_ratio: self.parts.log_odds_ratio.map(|sum| mean(sum, self.pairs)),
            log_odds_chosen: self.parts.log_odds_chosen.map(|sum| mean(sum, self.pairs)),
        }
    }

    /// The log of a step, or of several steps added up.
    pub fn log(&self, facts: StepFacts) -> Log<DpoMeans> {
        Log::new(self.loss, facts, self.means())
    }

    /// The metrics of an evaluation, named `eval_…`. The loss must have been divided by the counts of the whole set.
    pub fn eval_log(&self) -> Map<String, Value> {
        eval_log(self.loss, self.means())
    }
}

impl AddAssign for PairSums {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.pairs += other.pairs;
        self.chosen += other.chosen;
        self.rejected += other.rejected;
        self.logps_chosen += other.logps_chosen;
        self.logps_rejected += other.logps_rejected;
        self.rewards_chosen += other.rewards_chosen;
        self.rewards_rejected += other.rewards_rejected;
        self.wins += other.wins;
        self.parts += other.parts;
    }
}

impl AddAssign for Parts {
    fn add_assign(&mut self, other: Self) {
        let add = |sum: &mut Option<f64>, value: Option<f64>| {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or(0.0) + value);
            }
        };
        add(&mut self.nll, other.nll);
        add(&mut self.log_odds_ratio, other.log_odds_ratio);
        add(&mut self.log_odds_chosen, other.log_odds_chosen);
    }
}

/// SFT metrics, serialised under TRL's names. Both are means over the supervised tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SftMeans {
    /// Nats per token.
    pub entropy: f64,
    /// Share of tokens that were the argmax.
    pub mean_token_accuracy: f64,
}

/// Metrics of pairs, serialised under TRL's names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DpoMeans {
    /// Nats per token, mean over the completion tokens of both sides.
    pub entropy: f64,
    /// Mean over the chosen completions' tokens of the mean logit over the vocabulary.
    #[serde(rename = "logits/chosen")]
    pub logits_chosen: f64,
    #[serde(rename = "logits/rejected")]
    pub logits_rejected: f64,
    /// Share of the chosen completions' tokens that were the argmax (the rejected ones do not count).
    pub mean_token_accuracy: f64,
    /// Mean over pairs of `β (log π − log π_ref)`, whatever the loss.
    #[serde(rename = "rewards/chosen")]
    pub rewards_chosen: f64,
    #[serde(rename = "rewards/rejected")]
    pub rewards_rejected: f64,
    /// Share of pairs with the chosen reward above the rejected one; a tie counts as wrong.
    #[serde(rename = "rewards/accuracies")]
    pub rewards_accuracies: f64,
    #[serde(rename = "rewards/margins")]
    pub rewards_margins: f64,
    /// Mean over pairs of the policy's log-prob *sums*; of the means per token for ORPO, SimPO and CPO's ipo.
    #[serde(rename = "logps/chosen")]
    pub logps_chosen: f64,
    #[serde(rename = "logps/rejected")]
    pub logps_rejected: f64,
    /// Cross-entropy beside a loss without a reference: nats per chosen token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nll_loss: Option<f64>,
    /// ORPO: mean over pairs of `log σ` of the log odds ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_odds_ratio: Option<f64>,
    /// ORPO: mean over pairs of the log odds ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_odds_chosen: Option<f64>,
}

/// What the sums cannot know about a logged step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepFacts {
    /// Optimizer steps done, this one included: counts from 1.
    pub step: u64,
    /// Steps since the last log, at least 1; `loss` is their mean.
    pub steps: u64,
    /// Epochs seen, with the fraction.
    pub epoch: f64,
    /// Rate that the last step used.
    pub learning_rate: f64,
    /// Norm of the last step's gradient before clipping.
    pub grad_norm: f64,
    /// Tokens trained on since the run began, prompts included; both sides of a pair count, with their prompt each.
    pub num_tokens: u64,
    /// Tokens that went through the decoder since the last log; a prompt that a pair shares counts once.
    pub computed_tokens: u64,
}

/// One line of the training log, serialised under TRL's names. A non-finite number is written as `null`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Log<M> {
    pub loss: f64,
    pub grad_norm: f64,
    pub learning_rate: f64,
    pub num_tokens: u64,
    /// Mean over the steps. Not TRL's.
    pub computed_tokens: f64,
    #[serde(flatten)]
    pub means: M,
    pub epoch: f64,
    pub step: u64,
}

impl<M> Log<M> {
    fn new(loss: f64, facts: StepFacts, means: M) -> Self {
        let steps = facts.steps.max(1) as f64;
        Log {
            loss: loss / steps,
            grad_norm: facts.grad_norm,
            learning_rate: facts.learning_rate,
            num_tokens: facts.num_tokens,
            computed_tokens: facts.computed_tokens as f64 / steps,
            means,
            epoch: facts.epoch,
            step: facts.step,
        }
    }
}

fn eval_log(loss: f64, means: impl Serialize) -> Map<String, Value> {
    let mut log = Map::new();
    log.insert("eval_loss".to_owned(), Value::from(loss));
    if let Ok(Value::Object(means)) = serde_json::to_value(means) {
        log.extend(means.into_iter().map(|(name, value)| (format!("eval_{name}"), value)));
    }
    log
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::batch::{Sequence, sides};
    use crate::losses::{Denominator, LossConfig, PairLogps, pair_loss};

    /// Pairs of 2 chosen and 3 rejected tokens behind one prompt token; row k has entropy k, logit mean −k, log-prob
    /// −k/4, and is right when even.
    fn pairs(count: usize, first_row: usize, in_step: f64) -> PairSums {
        let chosen = Sequence { ids: &[1, 2, 3], supervised: &[false, true, true] };
        let rejected = Sequence { ids: &[1, 4, 5, 6], supervised: &[false, true, true, true] };
        let packed = Packed::new((0..2 * count).map(|side| if side % 2 == 0 { chosen } else { rejected })).unwrap();
        let stats = stats(first_row..first_row + packed.rows.len());
        let sums = packed.sum_by_sequence(&stats.logp);
        let (policy_chosen, policy_rejected) = sides(&sums);
        let reference = vec![-3.0; count];
        let logps = PairLogps {
            policy_chosen: &policy_chosen,
            policy_rejected: &policy_rejected,
            ref_chosen: &reference,
            ref_rejected: &reference,
            chosen_tokens: &vec![2.0; count],
            rejected_tokens: &vec![3.0; count],
            weights: &[],
        };
        let loss =
            pair_loss(&LossConfig::default(), &logps, Denominator { pairs: in_step, chosen_tokens: 2.0 * in_step })
                .unwrap();
        PairSums::of(&stats, &packed, &loss)
    }

    fn stats(rows: std::ops::Range<usize>) -> Stats {
        Stats {
            logp: rows.clone().map(|row| row as f32 / -4.0).collect(),
            lse: vec![0.0; rows.len()],
            log_collision: vec![0.0; rows.len()],
            entropy: rows.clone().map(|row| row as f32).collect(),
            logit_mean: rows.clone().map(|row| -(row as f32)).collect(),
            correct: rows.map(|row| row % 2 == 0).collect(),
        }
    }

    const FACTS: StepFacts = StepFacts {
        step: 3,
        steps: 1,
        epoch: 0.5,
        learning_rate: 1e-6,
        grad_norm: 2.0,
        num_tokens: 99,
        computed_tokens: 60,
    };

    #[test]
    fn dpo_means_by_hand() {
        // Rows 0, 1 | 2, 3, 4 | 5, 6 | 7, 8, 9 of chosen | rejected | chosen | rejected.
        let means = pairs(2, 0, 2.0).means();
        assert_eq!(means.entropy, 4.5);
        assert_eq!(means.mean_token_accuracy, 0.5);
        assert_eq!((means.logits_chosen, means.logits_rejected), (-3.0, -5.5));
        assert_eq!((means.logps_chosen, means.logps_rejected), (-1.5, -4.125));
        assert!((means.rewards_chosen - 0.15).abs() < 1e-15 && (means.rewards_rejected + 0.1125).abs() < 1e-15);
        assert!((means.rewards_margins - 0.2625).abs() < 1e-15);
        assert_eq!(means.rewards_accuracies, 1.0);
    }

    #[test]
    fn micro_batches_add_up() {
        let mut sums = pairs(1, 0, 3.0);
        sums += pairs(2, 5, 3.0);
        let whole = pairs(3, 0, 3.0);
        assert_eq!((sums.chosen, sums.rejected, sums.wins), (whole.chosen, whole.rejected, whole.wins));
        assert!((sums.loss - whole.loss).abs() < 1e-15);
        assert!((sums.means().rewards_margins - whole.means().rewards_margins).abs() < 1e-15);

        let mut tokens = TokenSums::of(&stats(0..3), 8.0);
        tokens += TokenSums::of(&stats(3..8), 8.0);
        assert_eq!(tokens, TokenSums::of(&stats(0..8), 8.0));
        assert_eq!(tokens.loss, 28.0 / 4.0 / 8.0);
        assert_eq!(tokens.means(), SftMeans { entropy: 3.5, mean_token_accuracy: 0.5 });
    }

    #[test]
    fn a_tie_is_no_win() {
        let stats = stats(0..5);
        let chosen = Sequence { ids: &[1, 2, 3], supervised: &[false, true, true] };
        let rejected = Sequence { ids: &[1, 4, 5, 6], supervised: &[false, true, true, true] };
        let packed = Packed::new([chosen, rejected]).unwrap();
        let same = PairLogps {
            policy_chosen: &[-1.0],
            policy_rejected: &[-2.0],
            ref_chosen: &[-1.0],
            ref_rejected: &[-2.0],
            chosen_tokens: &[2.0],
            rejected_tokens: &[3.0],
            weights: &[],
        };
        let loss = pair_loss(&LossConfig::default(), &same, Denominator { pairs: 1.0, chosen_tokens: 2.0 }).unwrap();
        let means = PairSums::of(&stats, &packed, &loss).means();
        assert_eq!((means.rewards_accuracies, means.rewards_margins), (0.0, 0.0));
    }

    fn names(log: &Value) -> Vec<&str> {
        let mut names: Vec<&str> = log.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn logs_carry_the_names_of_trl() {
        let dpo = serde_json::to_value(pairs(2, 0, 2.0).log(FACTS)).unwrap();
        assert_eq!(
            names(&dpo),
            [
                "computed_tokens",
                "entropy",
                "epoch",
                "grad_norm",
                "learning_rate",
                "logits/chosen",
                "logits/rejected",
                "logps/chosen",
                "logps/rejected",
                "loss",
                "mean_token_accuracy",
                "num_tokens",
                "rewards/accuracies",
                "rewards/chosen",
                "rewards/margins",
                "rewards/rejected",
                "step",
            ]
        );
        assert_eq!((&dpo["step"], &dpo["num_tokens"], &dpo["entropy"]), (&3.into(), &99.into(), &4.5.into()));
        let sft = serde_json::to_value(TokenSums::of(&stats(0..4), 4.0).log(FACTS)).unwrap();
        let want = [
            "computed_tokens",
            "entropy",
            "epoch",
            "grad_norm",
            "learning_rate",
            "loss",
            "mean_token_accuracy",
            "num_tokens",
            "step",
        ];
        assert_eq!(names(&sft), want);
        let eval = Value::Object(TokenSums::of(&stats(0..4), 4.0).eval_log());
        assert_eq!(names(&eval), ["eval_entropy", "eval_loss", "eval_mean_token_accuracy"]);
    }

    #[test]
    fn loss_is_the_mean_over_the_steps_of_the_log() {
        let mut window = TokenSums::of(&stats(0..4), 4.0);
        window += TokenSums::of(&stats(4..8), 4.0);
        let log = window.log(StepFacts { steps: 2, ..FACTS });
        assert_eq!(log.loss, (1.5 + 5.5) / 4.0 / 2.0);
        assert_eq!(log.computed_tokens, 30.0);
    }

    #[test]
    fn nothing_is_zero_not_nan() {
        let means = PairSums::default().means();
        assert_eq!((means.entropy, means.rewards_margins, means.mean_token_accuracy), (0.0, 0.0, 0.0));
    }
}
