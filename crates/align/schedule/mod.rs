//! Learning rates, as transformers gives them. (How many steps a run has is the caller's plan.)

#[cfg(test)]
mod test;

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
    /// Warm-up, then down a half cosine to `min_lr`, or `min_lr_rate` times the rate.
    CosineWithMinLr,
    /// Warm-up, then the same rate.
    ConstantWithWarmup,
    /// Warm-up, then `1/√(t/T)`, T the warm-up's steps (10 000 without one), whatever the length of the run.
    InverseSqrt,
    /// Warm-up, the same rate, and down to `min_lr_rate` times it over the last `decay_steps` (WSD, arXiv 2404.06395).
    WarmupStableDecay,
    /// Warm-up, then down to `min_lr` (1e-7) along a power (1: a straight line) of the remaining share.
    Polynomial,
}

/// Course of a ramp between 0 and 1 (transformers' `warmup_type`, `decay_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Ramp {
    #[serde(rename = "linear")]
    #[default]
    Linear,
    #[serde(rename = "cosine")]
    Cosine,
    /// `1 − √`
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

impl Ramp {
    fn up(self, progress: f64) -> f64 {
        self.down(1.0 - progress)
    }

    /// From 1 at 0 to 0 at 1.
    fn down(self, progress: f64) -> f64 {
        match self {
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Self::OneMinusSqrt => 1.0 - progress.sqrt(),
        }
    }
}

/// What only some kinds read (transformers `lr_scheduler_kwargs`); what a kind does not read may not be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScheduleOptions {
    /// Rate at the end: `cosine_with_min_lr`, `polynomial` (transformers' `lr_end`).
    pub min_lr: Option<f64>,
    /// The same as a share of the rate: `cosine_with_min_lr`, `warmup_stable_decay` (transformers' `min_lr_ratio`).
    pub min_lr_rate: Option<f64>,
    /// Steps of the decay at the end: `warmup_stable_decay` needs it (transformers' `num_decay_steps`).
    pub decay_steps: Option<u64>,
    /// `warmup_stable_decay`; linear as in transformers when left out.
    pub warmup_type: Option<Ramp>,
    /// `warmup_stable_decay`; cosine as in transformers when left out.
    pub decay_type: Option<Ramp>,
    /// `polynomial`; 1 when left out.
    pub power: Option<f64>,
}

impl ScheduleOptions {
    /// Names of what was given.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("minLr", self.min_lr.is_some()),
            ("minLrRate", self.min_lr_rate.is_some()),
            ("decaySteps", self.decay_steps.is_some()),
            ("warmupType", self.warmup_type.is_some()),
            ("decayType", self.decay_type.is_some()),
            ("power", self.power.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
    }
}

impl ScheduleKind {
    /// The options that the kind reads.
    fn reads(self) -> &'static [&'static str] {
        match self {
            Self::CosineWithMinLr => &["minLr", "minLrRate"],
            Self::WarmupStableDecay => &["minLrRate", "decaySteps", "warmupType", "decayType"],
            Self::Polynomial => &["minLr", "power"],
            Self::Constant | Self::Linear | Self::Cosine | Self::ConstantWithWarmup | Self::InverseSqrt => &[],
        }
    }

    fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }
}

/// Length of the warm-up from 0.
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
    #[error("the schedule {kind} does not read {option}. Remedy: remove it")]
    NotRead { kind: String, option: &'static str },
    #[error("the schedule {kind} needs {option}. Remedy: give it")]
    Missing { kind: String, option: &'static str },
    #[error("{option} is {value}. Remedy: give {remedy}")]
    Value { option: &'static str, value: f64, remedy: &'static str },
    #[error(
        "the warm-up of {warmup} and the decay of {decay} steps are longer than the run of {total}. \
         Remedy: shorten one of them, or train for more steps"
    )]
    DecayLongerThanRun { warmup: u64, decay: u64, total: u64 },
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
    /// Rate at the end, as a share of the highest.
    floor: f64,
    /// Steps of the last part; all after the warm-up but for `warmup_stable_decay`.
    decay: u64,
    warmup_type: Ramp,
    decay_type: Ramp,
    power: f64,
}

impl Schedule {
    /// A schedule whose highest rate is `learning_rate`, over `total_steps` optimizer steps; for kinds without options.
    ///
    /// # Errors
    /// As [`Self::with_options`].
    pub fn new(
        kind: ScheduleKind,
        learning_rate: f64,
        warmup: Warmup,
        total_steps: u64,
    ) -> Result<Self, ScheduleError> {
        Self::with_options(kind, learning_rate, warmup, total_steps, ScheduleOptions::default())
    }

    /// A schedule whose highest rate is `learning_rate`, over `total_steps` optimizer steps.
    ///
    /// # Errors
    /// [`ScheduleError`]: a rate that is negative or not finite, a ratio outside 0 to 1, no steps, a warm-up longer than
    /// the run (transformers trains such a run without ever reaching the rate), a warm-up of `constant` (transformers
    /// ignores it), options that the kind does not read or needs and does not have.
    pub fn with_options(
        kind: ScheduleKind,
        learning_rate: f64,
        warmup: Warmup,
        total_steps: u64,
        options: ScheduleOptions,
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
        if let Some(option) = options.given().find(|option| !kind.reads().contains(option)) {
            return Err(ScheduleError::NotRead { kind: kind.name(), option });
        }
        let decay = match (kind, options.decay_steps) {
            (ScheduleKind::WarmupStableDecay, None) => {
                return Err(ScheduleError::Missing { kind: kind.name(), option: "decaySteps" });
            }
            (_, Some(decay)) if warmup + decay > total_steps => {
                return Err(ScheduleError::DecayLongerThanRun { warmup, decay, total: total_steps });
            }
            (_, decay) => decay.unwrap_or(total_steps - warmup),
        };
        let power = options.power.unwrap_or(1.0);
        if !(power > 0.0 && power.is_finite()) {
            return Err(ScheduleError::Value { option: "power", value: power, remedy: "a number above 0" });
        }
        let floor = floor(kind, learning_rate, &options)?;
        let warmup_type = options.warmup_type.unwrap_or(Ramp::Linear);
        let decay_type = options.decay_type.unwrap_or(Ramp::Cosine);
        Ok(Schedule { kind, learning_rate, warmup, total: total_steps, floor, decay, warmup_type, decay_type, power })
    }

    /// Warm-up steps, the ratio resolved.
    pub fn warmup_steps(&self) -> u64 {
        self.warmup
    }

    /// Rate that the optimizer step of this 0-based index uses; it is also what transformers logs at that step (its log
    /// counts from 1: log step 1 is `lr(0)`, which is 0 under a warm-up).
    ///
    /// `get_*_schedule` in f64. After the run the rate stays where it ended.
    pub fn lr(&self, step: u64) -> f64 {
        self.learning_rate * self.factor(step)
    }

    fn factor(&self, step: u64) -> f64 {
        let above_floor = |factor: f64| (factor * (1.0 - self.floor) + self.floor).max(0.0);
        if step < self.warmup {
            let progress = step as f64 / self.warmup as f64;
            return match self.kind {
                // This one alone warms up from its lowest rate, as in transformers.
                ScheduleKind::WarmupStableDecay => above_floor(self.warmup_type.up(progress)),
                _ => progress,
            };
        }
        let (done, decay) = (step - self.warmup, self.decay.max(1) as f64);
        match self.kind {
            ScheduleKind::Constant | ScheduleKind::ConstantWithWarmup => 1.0,
            ScheduleKind::Linear => self.total.saturating_sub(step) as f64 / decay,
            ScheduleKind::Cosine | ScheduleKind::CosineWithMinLr => {
                above_floor(Ramp::Cosine.down((done as f64 / decay).min(1.0)))
            }
            ScheduleKind::InverseSqrt => {
                let timescale = if self.warmup > 0 { self.warmup } else { 10_000 } as f64;
                (timescale / (done as f64 + timescale)).sqrt()
            }
            ScheduleKind::WarmupStableDecay => {
                let start = self.total - self.decay;
                match step.checked_sub(start) {
                    None => 1.0,
                    Some(done) if done < self.decay => above_floor(self.decay_type.down(done as f64 / decay)),
                    Some(_) => self.floor,
                }
            }
            ScheduleKind::Polynomial => above_floor((1.0 - (done as f64 / decay).min(1.0)).powf(self.power)),
        }
    }
}

/// transformers' `lr_end` of `polynomial`.
const POLYNOMIAL_END: f64 = 1e-7;

/// The rate at the end as a share of the highest.
fn floor(kind: ScheduleKind, learning_rate: f64, options: &ScheduleOptions) -> Result<f64, ScheduleError> {
    let absolute = |min_lr: f64| {
        if min_lr >= 0.0 && min_lr < learning_rate {
            return Ok(min_lr / learning_rate);
        }
        Err(ScheduleError::Value { option: "minLr", value: min_lr, remedy: "a rate from 0 up, below learningRate" })
    };
    let relative = |rate: f64| {
        if (0.0..=1.0).contains(&rate) {
            return Ok(rate);
        }
        Err(ScheduleError::Value { option: "minLrRate", value: rate, remedy: "a share from 0 to 1" })
    };
    match (kind, options.min_lr, options.min_lr_rate) {
        (ScheduleKind::CosineWithMinLr, Some(_), Some(rate)) => {
            Err(ScheduleError::Value { option: "minLrRate", value: rate, remedy: "either minLr or minLrRate" })
        }
        (ScheduleKind::CosineWithMinLr, None, None) => {
            Err(ScheduleError::Missing { kind: kind.name(), option: "minLr or minLrRate" })
        }
        (ScheduleKind::Polynomial, min_lr, _) => absolute(min_lr.unwrap_or(POLYNOMIAL_END)),
        (_, Some(min_lr), _) => absolute(min_lr),
        (_, None, Some(rate)) => relative(rate),
        (_, None, None) => Ok(0.0),
    }
}
