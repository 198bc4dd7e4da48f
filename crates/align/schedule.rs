//! Learning rates, as transformers gives them. (How many steps a run has is the caller's plan.)

/// Shape of the learning rate over the run (transformers `lr_scheduler_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// The same rate throughout, no warm-up.
    Constant,
    /// Warm-up, then down a straight line to 0 after the last step.
    Linear,
    /// Warm-up, then down a half cosine to 0 after the last step.
    Cosine,
    /// Warm-up, then the same rate.
    ConstantWithWarmup,
}

/// Length of the linear warm-up from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// Optimizer steps.
    Steps(u64),
    /// Share of the run, rounded up (`TrainingArguments.get_warmup_steps`).
    Ratio(f64),
}

/// A schedule or a run length that means nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    #[error("learningRate is {0}. Remedy: give a finite number from 0 up")]
    LearningRate(f64),
    #[error("warmupRatio is {0}. Remedy: give a share of the run from 0 to 1")]
    WarmupRatio(f64),
    #[error(
        "the warm-up of {warmup} steps is longer than the run of {total}. \
         Remedy: shorten the warm-up, or train for more steps"
    )]
    WarmupLongerThanRun { warmup: u64, total: u64 },
    #[error("the constant schedule has no warm-up, but {0} steps were asked for. Remedy: use constant_with_warmup")]
    WarmupOfConstant(u64),
    #[error("the run has no steps. Remedy: give at least one row and one step")]
    NoSteps,
}

impl From<ScheduleError> for crate::Error {
    fn from(error: ScheduleError) -> Self {
        crate::Error::Config(error.to_string())
    }
}

/// The learning rate of every step of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    learning_rate: f64,
    warmup: u64,
    total: u64,
}

impl Schedule {
    /// A schedule whose highest rate is `learning_rate`, over `total_steps` optimizer steps.
    ///
    /// # Errors
    /// [`ScheduleError`]: a rate that is negative or not finite, a ratio outside 0 to 1, no steps, a warm-up longer than
    /// the run (transformers trains such a run without ever reaching the rate), a warm-up of `constant` (transformers
    /// ignores it).
    pub fn new(
        kind: ScheduleKind,
        learning_rate: f64,
        warmup: Warmup,
        total_steps: u64,
    ) -> Result<Self, ScheduleError> {
        if !(learning_rate >= 0.0 && learning_rate.is_finite()) {
            return Err(ScheduleError::LearningRate(learning_rate));
        }
        if total_steps == 0 {
            return Err(ScheduleError::NoSteps);
        }
        let warmup = match warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) if (0.0..=1.0).contains(&ratio) => (total_steps as f64 * ratio).ceil() as u64,
            Warmup::Ratio(ratio) => return Err(ScheduleError::WarmupRatio(ratio)),
        };
        if warmup > total_steps {
            return Err(ScheduleError::WarmupLongerThanRun { warmup, total: total_steps });
        }
        if kind == ScheduleKind::Constant && warmup > 0 {
            return Err(ScheduleError::WarmupOfConstant(warmup));
        }
        Ok(Schedule { kind, learning_rate, warmup, total: total_steps })
    }

    /// Warm-up steps, the ratio resolved.
    pub fn warmup_steps(&self) -> u64 {
        self.warmup
    }

    /// Rate that the optimizer step of this 0-based index uses; it is also what transformers logs at that step (its log
    /// counts from 1: log step 1 is `lr(0)`, which is 0 under a warm-up).
    ///
    /// `get_*_schedule_with_warmup` in f64. After the run the rate stays where it ended.
    pub fn lr(&self, step: u64) -> f64 {
        self.learning_rate * self.factor(step)
    }

    fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let decay = (self.total - self.warmup).max(1) as f64;
        match self.kind {
            ScheduleKind::Constant | ScheduleKind::ConstantWithWarmup => 1.0,
            ScheduleKind::Linear => self.total.saturating_sub(step) as f64 / decay,
            ScheduleKind::Cosine => {
                let progress = ((step - self.warmup) as f64 / decay).min(1.0);
                (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use std::path::PathBuf;

    fn schedule(kind: ScheduleKind, warmup: u64, total: u64) -> Schedule {
        Schedule::new(kind, 2.0, Warmup::Steps(warmup), total).unwrap()
    }

    fn rates(schedule: &Schedule, steps: std::ops::Range<u64>) -> Vec<f64> {
        steps.map(|step| schedule.lr(step)).collect()
    }

    #[test]
    fn shapes_by_hand() {
        assert_eq!(rates(&schedule(ScheduleKind::Constant, 0, 3), 0..4), [2.0; 4]);
        assert_eq!(rates(&schedule(ScheduleKind::ConstantWithWarmup, 2, 3), 0..4), [0.0, 1.0, 2.0, 2.0]);
        assert_eq!(rates(&schedule(ScheduleKind::Linear, 2, 6), 0..7), [0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0]);
        let cosine = rates(&schedule(ScheduleKind::Cosine, 1, 5), 0..7);
        let root = std::f64::consts::FRAC_1_SQRT_2;
        for (got, want) in cosine.iter().zip([0.0, 2.0, 1.0 + root, 1.0, 1.0 - root, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-15, "{cosine:?}");
        }
    }

    #[test]
    fn warmup_of_the_whole_run_and_one_step_runs() {
        assert_eq!(rates(&schedule(ScheduleKind::Linear, 2, 2), 0..3), [0.0, 1.0, 0.0]);
        assert_eq!(schedule(ScheduleKind::Cosine, 0, 1).lr(0), 2.0);
        assert_eq!(schedule(ScheduleKind::Linear, 0, 1).lr(0), 2.0);
    }

    #[test]
    fn ratio_rounds_up() {
        let warmup = |ratio, total| Schedule::new(ScheduleKind::Cosine, 1.0, Warmup::Ratio(ratio), total);
        assert_eq!(warmup(0.1, 12).unwrap().warmup_steps(), 2);
        assert_eq!(warmup(0.1, 10).unwrap().warmup_steps(), 1);
        assert_eq!(warmup(0.0, 10).unwrap().warmup_steps(), 0);
        assert_eq!(warmup(1.0, 10).unwrap().warmup_steps(), 10);
    }

    #[test]
    fn bad_values_are_named() {
        let build = |rate, warmup, total| Schedule::new(ScheduleKind::Linear, rate, warmup, total).unwrap_err();
        assert_eq!(build(-1.0, Warmup::Steps(0), 4), ScheduleError::LearningRate(-1.0));
        assert!(matches!(build(f64::NAN, Warmup::Steps(0), 4), ScheduleError::LearningRate(rate) if rate.is_nan()));
        assert!(matches!(build(f64::INFINITY, Warmup::Steps(0), 4), ScheduleError::LearningRate(_)));
        assert_eq!(build(1.0, Warmup::Ratio(1.5), 4), ScheduleError::WarmupRatio(1.5));
        assert!(matches!(build(1.0, Warmup::Ratio(f64::NAN), 4), ScheduleError::WarmupRatio(_)));
        assert_eq!(build(1.0, Warmup::Steps(0), 0), ScheduleError::NoSteps);
        let long = build(1.0, Warmup::Steps(5), 4);
        assert_eq!(long, ScheduleError::WarmupLongerThanRun { warmup: 5, total: 4 });
        assert!(long.to_string().contains("5 steps") && long.to_string().contains("run of 4"));
        let constant = Schedule::new(ScheduleKind::Constant, 1.0, Warmup::Steps(1), 4);
        assert_eq!(constant.unwrap_err(), ScheduleError::WarmupOfConstant(1));
    }

    fn golden(file: &str) -> Option<serde_json::Value> {
        let folder = std::env::var_os("ZEPHYR_GOLDEN").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden")),
            PathBuf::from,
        );
        let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
            eprintln!("SKIPPED: {} is missing; set ZEPHYR_GOLDEN", folder.join(file).display());
            return None;
        };
        Some(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn golden_runs_log_these_rates() {
        let files = ["sft_run.json", "dpo_run.json", "lora_dpo_run.json"];
        for file in ["window", "headdim"].iter().flat_map(|folder| files.map(|file| format!("{folder}/{file}"))) {
            let Some(run) = golden(&file) else { continue };
            let args = &run["args"];
            let kind: ScheduleKind = serde_json::from_value(args["scheduler"].clone()).unwrap();
            let total = args["steps"].as_u64().unwrap();
            let warmup = Warmup::Steps(args["warmup_steps"].as_u64().unwrap());
            let schedule = Schedule::new(kind, args["lr"].as_f64().unwrap(), warmup, total).unwrap();
            let log = run["log"].as_array().unwrap();
            assert_eq!(log.len() as u64, total);
            for entry in log {
                let want = entry["learning_rate"].as_f64().unwrap();
                let got = schedule.lr(entry["step"].as_u64().unwrap() - 1);
                assert!((got - want).abs() <= 1e-12 * want, "{file}: {got} for {want}");
            }
        }
    }
}
