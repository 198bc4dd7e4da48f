//! Courses of the learning rate.

use napi_derive::napi;
use zephyr_align::schedule::{Schedule, ScheduleOptions, Warmup};

use crate::failure::{Failure, guard};

/// A learning-rate schedule of transformers.
#[napi]
pub struct NativeSchedule {
    schedule: Schedule,
}

#[napi]
impl NativeSchedule {
    /// `kind`: transformers' name. Give `warmup_steps` or `warmup_ratio`, not both. `options`: JSON of what only some kinds
    /// read: `minLr`, `minLrRate`, `decaySteps`, `warmupType`, `decayType`, `power`.
    #[napi(constructor)]
    pub fn new(
        kind: String,
        learning_rate: f64,
        warmup_steps: Option<f64>,
        warmup_ratio: Option<f64>,
        total_steps: f64,
        options: String,
    ) -> napi::Result<Self> {
        guard(|| {
            let options: ScheduleOptions = serde_json::from_str(&options)?;
            let kind = serde_json::from_value(serde_json::Value::String(kind))?;
            let warmup = match warmup_ratio {
                Some(ratio) => Warmup::Ratio(ratio),
                None => Warmup::Steps(warmup_steps.unwrap_or(0.0) as u64),
            };
            let schedule = Schedule::with_options(kind, learning_rate, warmup, total_steps as u64, options)
                .map_err(|error| Failure::new("ZA_CONFIG_INVALID", error.to_string()))?;
            Ok(Self { schedule })
        })
    }

    /// Rate of the optimizer step with this 0-based index.
    #[napi]
    pub fn rate(&self, step: f64) -> f64 {
        self.schedule.lr(step as u64)
    }
}
