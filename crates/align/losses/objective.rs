//! The loss of a preference trainer, as the bindings hand it over: one of the methods with its constants.

use serde::Deserialize;

use super::config::{InvalidLossConfig, LossConfig, Problem};
use super::cpo::Cpo;
use super::kto::Kto;
use super::orpo::Orpo;

/// `{"method": "orpo", "beta": 0.1}`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Objective {
    Dpo(LossConfig),
    Orpo(Orpo),
    Cpo(Cpo),
    Kto(Kto),
}

impl Objective {
    /// Reads and checks the JSON of a loss.
    ///
    /// # Errors
    /// An unknown method or key, a constant without meaning: all of the latter at once.
    pub fn parse(json: &str) -> Result<Self, crate::Error> {
        let objective: Self =
            serde_json::from_str(json).map_err(|error| crate::Error::Config(format!("loss: {error}")))?;
        objective.validate()?;
        Ok(objective)
    }

    /// Whether prompt tokens of the chosen side are learnt as text.
    pub fn learns_prompts(&self) -> bool {
        matches!(self, Self::Orpo(_))
    }

    /// # Errors
    /// Every constant without meaning for the method.
    pub fn validate(&self) -> Result<(), InvalidLossConfig> {
        let mut problems = Vec::new();
        let mut add = |wrong: bool, field: &str, reason: String, remedy: &str| {
            if wrong {
                problems.push(Problem { field: field.into(), reason, remedy: remedy.into() });
            }
        };
        let mut positive = |field: &str, value: f64| {
            let wrong = !(value > 0.0 && value.is_finite());
            add(wrong, field, format!("{value} is not a positive number"), "give a number above 0");
        };
        match self {
            Self::Dpo(config) => return config.validate(),
            Self::Orpo(orpo) => positive("beta", orpo.beta),
            Self::Kto(kto) => {
                positive("beta", kto.beta);
                positive("desirableWeight", kto.desirable_weight);
                positive("undesirableWeight", kto.undesirable_weight);
            }
            Self::Cpo(cpo) => {
                positive("beta", cpo.beta);
                let smoothing = cpo.label_smoothing;
                let rate = (0.0..=0.5).contains(&smoothing);
                add(
                    !rate,
                    "labelSmoothing",
                    format!("{smoothing} is not a rate from 0 to 0.5"),
                    "give a rate up to 0.5",
                );
                add(
                    smoothing > 0.0 && !cpo.smooths(),
                    "labelSmoothing",
                    format!("the loss {:?} has no label smoothing", cpo.loss_type),
                    "set it to 0",
                );
                let weight = cpo.cpo_alpha >= 0.0 && cpo.cpo_alpha.is_finite();
                add(!weight, "cpoAlpha", format!("{} is not a weight", cpo.cpo_alpha), "give a number from 0 up");
                add(!cpo.simpo_gamma.is_finite(), "simpoGamma", "it is not a number".into(), "give a finite margin");
                add(!cpo.alpha.is_finite(), "alpha", "it is not a number".into(), "give a finite α; 0 is the log-prob");
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(InvalidLossConfig(problems)) }
    }
}
