//! Whole runs of TRL's ORPO, CPO, SimPO and KTO: every step's loss, gradient norm and metrics, and the model at the end.

use std::path::Path;

use serde_json::Value;
use zephyr_mistral::Weights;
use zephyr_mistral::generate::Generator;

use super::{Row, json, models, packed, packed_pairs, padded, relative, session, update, weights};
use crate::batch::{Packed, Pair};
use crate::losses::cpo::{Cpo, CpoLoss};
use crate::losses::kto::{Kto, KtoLoss};
use crate::losses::orpo::Orpo;
use crate::losses::{Denominator, PolicyLoss};
use crate::schedule::{Schedule, ScheduleKind, Warmup};
use crate::session::{PairObjective, Session, Unpaired, Update};

/// What TRL logs otherwise: `logits/…` of ORPO and CPO are means over prompts and padding as well; ours are over answers.
/// TRL's numbers are checked by [`trl_logits`].
const APART: [&str; 2] = ["logits/chosen", "logits/rejected"];

/// [`APART`] as TRL 1.16 takes them: the mean over all places of the collated rows, `orpo`: but the last of each. What
/// padding sees is nothing, and then (in the golden runs, by eager attention) everything equally.
fn trl_logits(weights: &Weights, batch: &Value, orpo: bool) -> [f64; 2] {
    let sides = ["chosen_", "rejected_"].map(|side| column(batch, &format!("{side}input_ids")));
    let width = sides.iter().flatten().map(Vec::len).max().unwrap();
    let lengths = ["chosen", "rejected"].map(|side| column(batch, &format!("{side}_attention_mask")));
    std::array::from_fn(|side| {
        let of_row = |(ids, attention): (&Vec<i64>, &Vec<i64>)| {
            let mut ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
            ids.resize(width, 0);
            let length = attention.iter().filter(|&&seen| seen == 1).count();
            let means = padded::mean_logits(weights, &ids, length);
            let places = if orpo { width - 1 } else { width };
            // The text's are the engine's own.
            let vocabulary = weights.config.vocab_size;
            let logits = Generator::new(weights).logits(&ids[..length]).unwrap();
            let own = logits.chunks_exact(vocabulary).map(|row| row.iter().map(|&value| f64::from(value)).sum::<f64>());
            let own: Vec<f64> = own.map(|sum| sum / vocabulary as f64).collect();
            for (own, mean) in own.iter().zip(&means) {
                assert!((own - mean).abs() < 1e-5, "{own} for {mean}");
            }
            own.iter().chain(&means[length..]).take(places).sum::<f64>() / places as f64
        };
        let rows = sides[side].len();
        sides[side].iter().zip(&lengths[side]).map(of_row).sum::<f64>() / rows as f64
    })
}

/// One column of a collated batch.
fn column(batch: &Value, name: &str) -> Vec<Vec<i64>> {
    let rows = batch[name].as_array().unwrap_or_else(|| panic!("no column {name}"));
    rows.iter().map(|row| row.as_array().unwrap().iter().map(|value| value.as_i64().unwrap()).collect()).collect()
}

/// Sequences without their padding; `learnt` tells a supervised entry of the column `labels`.
fn rows(batch: &Value, prefix: &str, labels: &str, learnt: fn(i64) -> bool) -> Vec<Row> {
    let ids = column(batch, &format!("{prefix}input_ids"));
    let attention = column(batch, &format!("{prefix}attention_mask"));
    let labels = column(batch, &format!("{prefix}{labels}"));
    (0..ids.len())
        .map(|row| {
            let length = attention[row].iter().filter(|&&seen| seen == 1).count();
            assert!(attention[row][..length].iter().all(|&seen| seen == 1), "row {row} is padded on the right");
            Row {
                ids: ids[row][..length].iter().map(|&id| id as u32).collect(),
                supervised: labels[row][..length].iter().map(|&label| learnt(label)).collect(),
            }
        })
        .collect()
}

fn pairs(batch: &Value) -> Vec<[Row; 2]> {
    let side = |prefix| rows(batch, prefix, "labels", |label| label != -100);
    side("chosen_").into_iter().zip(side("rejected_")).map(|(chosen, rejected)| [chosen, rejected]).collect()
}

/// With one copy of each prompt.
fn shared(pairs: &[[Row; 2]]) -> Packed {
    let pairs = pairs.iter().map(|[chosen, rejected]| {
        let prompt = chosen.supervised.iter().position(|&learnt| learnt).unwrap();
        Pair { prompt, chosen: chosen.sequence(), rejected: rejected.sequence() }
    });
    Packed::pairs(pairs, true).unwrap()
}

/// A run's file, its policy at the start and the update of each step.
struct Run {
    record: Value,
    model: Weights,
    session: Session,
}

impl Run {
    fn open(folder: &Path, file: &str) -> Self {
        let model = weights(folder.join("model.safetensors"));
        Self { record: json(folder.join(file)), session: session(&model), model }
    }

    fn number(&self, name: &str) -> f64 {
        self.record["args"][name].as_f64().unwrap()
    }

    fn batches(&self) -> Vec<Value> {
        self.record["batches"].as_array().unwrap().clone()
    }

    fn update(&self, step: usize) -> Update {
        let warmup = Warmup::Steps(self.number("warmup_steps") as u64);
        let schedule =
            Schedule::new(ScheduleKind::Cosine, self.number("lr"), warmup, self.number("steps") as u64).unwrap();
        Update {
            weight_decay: self.number("weight_decay"),
            max_grad_norm: Some(self.number("max_grad_norm")),
            ..update(schedule.lr(step as u64))
        }
    }

    /// Applies the step and compares what it logs with TRL's log.
    fn apply(&mut self, step: usize, metrics: Value, apart: &[&str]) {
        let update = self.update(step);
        let loss = metrics["loss"].as_f64().unwrap();
        let result = self.session.apply(&mut self.model, &update).unwrap();
        let log = self.record["log"][step].as_object().unwrap();
        let steps = self.number("steps") - 1.0;
        let within = 1e-4 + (1e-3 - 1e-4) * step as f64 / steps;
        for (name, expected) in log {
            let expected = expected.as_f64().unwrap();
            let found = match name.as_str() {
                "step" => (step + 1) as f64,
                "learning_rate" => update.learning_rate,
                name if apart.contains(&name) => continue,
                "loss" => loss,
                "grad_norm" => result.grad_norm,
                "num_tokens" => result.tokens_seen as f64,
                name => metrics[name].as_f64().unwrap_or_else(|| panic!("no metric {name}")),
            };
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error <= within, "step {} {name}: {found} for {expected}", step + 1);
        }
    }

    fn check_end(&self, folder: &Path) {
        let file = std::fs::read(folder.join("forward.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let ids: Vec<u32> = tensors.tensor("input_ids").unwrap().data()[..8 * 8]
            .chunks_exact(8)
            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as u32)
            .collect();
        let found = Generator::new(&self.model).logits(&ids).unwrap();
        let expected: Vec<f32> = self.record["final_logits_row0"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|row| row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32))
            .collect();
        let error = relative(&found, &expected);
        assert!(error <= 1e-3, "final logits are off by {error}");
    }
}

fn with_loss(metrics: impl serde::Serialize, loss: f64) -> Value {
    let mut metrics = serde_json::to_value(metrics).unwrap();
    metrics["loss"] = loss.into();
    metrics
}

/// A pair run; `accumulation` micro-batches to a step, with or without shared prompts.
fn follows(folder: &Path, file: &str, loss: PolicyLoss, accumulation: usize, share: bool) {
    let mut run = Run::open(folder, file);
    let learns_prompts = matches!(loss, PolicyLoss::Orpo(_));
    for (step, batch) in run.batches().iter().enumerate() {
        let pairs = pairs(batch);
        let chosen_tokens = pairs
            .iter()
            .map(|[chosen, _]| match learns_prompts {
                true => chosen.ids.len() - 1,
                false => chosen.supervised.iter().skip(1).filter(|&&learnt| learnt).count(),
            })
            .sum::<usize>() as f64;
        let denominator = Denominator { pairs: pairs.len() as f64, chosen_tokens };
        if accumulation == 1 && !share {
            let found = trl_logits(&run.model, batch, learns_prompts);
            for (name, found) in APART.iter().zip(found) {
                let expected = run.record["log"][step][name].as_f64().unwrap();
                assert!((found - expected).abs() <= 1e-6, "step {} {name}: {found} for {expected}", step + 1);
            }
        }
        let mut sums = crate::metrics::PairSums::default();
        for micro in pairs.chunks(pairs.len() / accumulation) {
            let packed = if share { shared(micro) } else { packed_pairs(micro) };
            let packed = if learns_prompts { packed.with_chosen_prompts() } else { packed };
            assert_eq!(share, packed.computed_tokens() < packed.tokens());
            sums +=
                run.session.accumulate_pairs(&run.model, &packed, PairObjective::Policy(loss), denominator).unwrap();
        }
        run.apply(step, with_loss(sums.means(), sums.loss), &APART);
    }
    run.check_end(folder);
}

#[test]
fn orpo_follows_trl() {
    for folder in models() {
        let beta = Run::open(&folder, "orpo_run.json").number("beta");
        for (accumulation, share) in [(1, false), (1, true), (2, true)] {
            follows(&folder, "orpo_run.json", PolicyLoss::Orpo(&Orpo { beta }), accumulation, share);
        }
    }
}

#[test]
fn cpo_and_simpo_follow_trl() {
    for folder in models() {
        for file in ["cpo_run.json", "simpo_run.json"] {
            let run = Run::open(&folder, file);
            let args = &run.record["args"];
            let cpo = Cpo {
                beta: run.number("beta"),
                loss_type: serde_json::from_value::<CpoLoss>(args["loss_type"].clone()).unwrap(),
                label_smoothing: 0.0,
                cpo_alpha: run.number("cpo_alpha"),
                simpo_gamma: args.get("simpo_gamma").and_then(Value::as_f64).unwrap_or(0.5),
                alpha: 0.0,
            };
            for (accumulation, share) in [(1, false), (1, true), (4, false)] {
                follows(&folder, file, PolicyLoss::Cpo(&cpo), accumulation, share);
            }
        }
    }
}

#[test]
fn kto_follows_trl() {
    for folder in models() {
        let reference = weights(folder.join("ref.safetensors"));
        for accumulation in [1, 2] {
            let mut run = Run::open(&folder, "kto_run.json");
            let kto = Kto {
                beta: run.number("beta"),
                loss_type: KtoLoss::Kto,
                desirable_weight: run.number("desirable_weight"),
                undesirable_weight: run.number("undesirable_weight"),
            };
            for (step, batch) in run.batches().iter().enumerate() {
                let answers = rows(batch, "", "completion_mask", |learnt| learnt == 1);
                let mismatched = rows(batch, "KL_", "completion_mask", |learnt| learnt == 1);
                let desirable: Vec<bool> =
                    batch["label"].as_array().unwrap().iter().map(|label| label.as_bool().unwrap()).collect();
                let logps =
                    |weights: &Weights, rows: &[Row]| session(weights).sequence_logps(weights, &packed(rows)).unwrap();
                let (policy_kl, reference_kl) = (logps(&run.model, &mismatched), logps(&reference, &mismatched));
                let kl = policy_kl.iter().zip(&reference_kl).map(|(policy, reference)| policy - reference).sum::<f64>()
                    / mismatched.len() as f64;
                let count = answers.len() / accumulation;
                let mut sums = crate::metrics::UnpairedSums::default();
                for (rows, desirable) in answers.chunks(count).zip(desirable.chunks(count)) {
                    let unpaired = Unpaired { desirable, reference: &logps(&reference, rows), kl };
                    sums += run
                        .session
                        .accumulate_kto(&run.model, &packed(rows), unpaired, &kto, answers.len() as f64)
                        .unwrap();
                }
                run.apply(step, with_loss(sums.means(), sums.loss), &[]);
            }
            run.check_end(&folder);
        }
    }
}

/// The pairs' own numbers, for a model that is not asked for more: what is no pair and no label is refused.
#[test]
fn batches_that_do_not_fit_the_loss_are_named() {
    for folder in models() {
        let mut run = Run::open(&folder, "orpo_run.json");
        let pairs = pairs(&run.batches()[0]);
        let one = packed(&pairs[0][..1]);
        let denominator = Denominator { pairs: 1.0, chosen_tokens: 1.0 };
        let orpo = Orpo { beta: 0.1 };
        let objective = PairObjective::Policy(PolicyLoss::Orpo(&orpo));
        let error = run.session.accumulate_pairs(&run.model, &one, objective, denominator).unwrap_err();
        assert!(error.to_string().contains("not pairs"), "{error}");
        let cpo = Cpo {
            beta: 0.1,
            loss_type: CpoLoss::Sigmoid,
            label_smoothing: 0.0,
            cpo_alpha: 1.0,
            simpo_gamma: 0.0,
            alpha: 0.0,
        };
        let prompts = packed_pairs(&pairs).with_chosen_prompts();
        let objective = PairObjective::Policy(PolicyLoss::Cpo(&cpo));
        let error = run.session.accumulate_pairs(&run.model, &prompts, objective, denominator).unwrap_err();
        assert!(error.to_string().contains("ORPO"), "{error}");
        let kto = Kto { beta: 0.1, loss_type: KtoLoss::Kto, desirable_weight: 1.0, undesirable_weight: 1.0 };
        let unpaired = Unpaired { desirable: &[], reference: &[0.0], kl: 0.0 };
        let error = run.session.accumulate_kto(&run.model, &one, unpaired, &kto, 1.0).unwrap_err();
        assert!(error.to_string().contains("0 labels for 1 answers"), "{error}");
        assert!(run.session.gradients().unwrap().iter().all(|&value| value == 0.0));
    }
}
