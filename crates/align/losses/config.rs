//! Which losses, with which constants; everything that cannot be honoured is refused, all at once.

use serde::{Deserialize, Serialize};

use super::divergence::FDivergence;
use super::table::{Form, LOSSES, Row, Smoothing};

/// A preference loss, by TRL's `loss_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpoLoss {
    Sigmoid,
    Hinge,
    Ipo,
    ExoPair,
    NcaPair,
    Robust,
    BcoPair,
    SppoHard,
    Aot,
    AotUnpaired,
    ApoZero,
    ApoDown,
    Discopop,
    Sft,
    SigmoidNorm,
}

impl DpoLoss {
    /// The loss of that TRL name.
    pub fn from_name(name: &str) -> Option<Self> {
        LOSSES.iter().find(|row| row.name == name).map(|row| row.loss)
    }

    /// TRL's name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether the loss sorts the batch, so that gradient accumulation changes it.
    pub fn batch_coupled(self) -> bool {
        matches!(self.row().form, Form::Batch(_))
    }

    /// Its row of the loss table.
    pub fn row(self) -> &'static Row {
        &LOSSES[self as usize]
    }
}

/// What `ipo` divides the scores by; see [`super::margin::ipo`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpoNormalisation {
    /// Each score by its completion tokens (TRL, LLaMA-Factory).
    #[default]
    Tokens,
    /// Nothing (OpenRLHF, the reference code of DPO).
    None,
}

impl IpoNormalisation {
    const NAMES: [&'static str; 2] = ["tokens", "none"];

    fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Losses and their constants, resolved. Read from and written as [`LossSettings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "LossSettings", into = "LossSettings")]
pub struct LossConfig {
    /// β: strength of the pull to the reference; IPO's τ.
    pub beta: f64,
    /// ε: the assumed rate of flipped labels, 0 to ½.
    pub label_smoothing: f64,
    /// Losses with their weights; the total is the weighted sum (TRL `loss_type`, `loss_weights`).
    pub losses: Vec<(DpoLoss, f64)>,
    pub f_divergence: FDivergence,
    /// τ of `discopop`.
    pub discopop_tau: f64,
    pub ipo_normalisation: IpoNormalisation,
    /// WPO (arXiv 2406.11827): each pair counts by how likely the policy itself would give its two answers.
    pub use_weighting: bool,
}

impl Default for LossConfig {
    /// TRL's defaults: `sigmoid`, β 0.1, reverse KL.
    fn default() -> Self {
        LossConfig {
            beta: 0.1,
            label_smoothing: 0.0,
            losses: vec![(DpoLoss::Sigmoid, 1.0)],
            f_divergence: FDivergence::ReverseKl,
            discopop_tau: 0.05,
            ipo_normalisation: IpoNormalisation::Tokens,
            use_weighting: false,
        }
    }
}

/// The configuration as a user writes it: TRL's option names, in camelCase or snake_case. Absent means TRL's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LossSettings {
    #[serde(alias = "loss_type", skip_serializing_if = "Option::is_none")]
    pub loss_type: Option<LossType>,
    #[serde(alias = "loss_weights", skip_serializing_if = "Option::is_none")]
    pub loss_weights: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    #[serde(alias = "label_smoothing", skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    #[serde(alias = "f_divergence_type", skip_serializing_if = "Option::is_none")]
    pub f_divergence_type: Option<String>,
    #[serde(alias = "f_alpha_divergence_coef", skip_serializing_if = "Option::is_none")]
    pub f_alpha_divergence_coef: Option<f64>,
    #[serde(alias = "discopop_tau", skip_serializing_if = "Option::is_none")]
    pub discopop_tau: Option<f64>,
    /// Ours: `"tokens"` or `"none"`.
    #[serde(alias = "ipo_normalisation", skip_serializing_if = "Option::is_none")]
    pub ipo_normalisation: Option<String>,
    #[serde(alias = "use_weighting", skip_serializing_if = "Option::is_none")]
    pub use_weighting: Option<bool>,
}

/// One name or a list of names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LossType {
    One(String),
    Many(Vec<String>),
}

/// One thing in a configuration that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Option name in camelCase, with an index where it is a list: `lossType[1]`.
    pub field: String,
    pub reason: String,
    pub remedy: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}. Remedy: {}", self.field, self.reason, self.remedy)
    }
}

/// Everything wrong with a loss configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct InvalidLossConfig(pub Vec<Problem>);

impl From<InvalidLossConfig> for crate::Error {
    fn from(error: InvalidLossConfig) -> Self {
        crate::Error::Config(error.to_string())
    }
}

fn problem(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { field: field.into(), reason: reason.into(), remedy: remedy.into() }
}

fn one_of(names: impl IntoIterator<Item = &'static str>) -> String {
    format!("use one of {}", names.into_iter().collect::<Vec<_>>().join(", "))
}

impl LossConfig {
    /// Whether a loss of the list sorts the batch, so that gradient accumulation changes the loss (see
    /// [`super::transport`]).
    pub fn batch_coupled(&self) -> bool {
        self.losses.iter().any(|(loss, _)| loss.batch_coupled())
    }

    /// Checks that every constant has a meaning for every listed loss.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), InvalidLossConfig> {
        let mut problems = Vec::new();
        self.check_constants(&mut problems);
        self.check_losses(&mut problems);
        if problems.is_empty() { Ok(()) } else { Err(InvalidLossConfig(problems)) }
    }

    fn check_constants(&self, problems: &mut Vec<Problem>) {
        let mut positive = |field: &str, value: f64| {
            if !(value > 0.0 && value.is_finite()) {
                problems.push(problem(field, format!("{value} is not a positive number"), "give a number above 0"));
            }
        };
        positive("beta", self.beta);
        positive("discopopTau", self.discopop_tau);
        if !(0.0..=0.5).contains(&self.label_smoothing) {
            problems.push(problem(
                "labelSmoothing",
                format!("{} is not a rate of flipped labels from 0 to 0.5", self.label_smoothing),
                "give a rate up to 0.5; above it, swap chosen and rejected",
            ));
        }
        if let FDivergence::Alpha(alpha) = self.f_divergence
            && !alpha.is_finite()
        {
            problems.push(problem("fAlphaDivergenceCoef", format!("{alpha} is not a number"), "give a finite α"));
        }
    }

    fn check_losses(&self, problems: &mut Vec<Problem>) {
        if self.losses.is_empty() {
            problems.push(problem("lossType", "the list is empty", one_of(LOSSES.iter().map(|row| row.name))));
            return;
        }
        for (index, &(loss, weight)) in self.losses.iter().enumerate() {
            if !(weight >= 0.0 && weight.is_finite()) {
                problems.push(problem(
                    format!("lossWeights[{index}]"),
                    format!("{weight} is not a weight: it would raise the loss `{}`", loss.name()),
                    "give a number from 0 up",
                ));
            }
            self.check_smoothing(index, loss.row(), problems);
            self.check_weighting(index, loss.row(), problems);
            if self.f_divergence != FDivergence::ReverseKl && !loss.row().f_divergence {
                let fitting = LOSSES.iter().filter(|row| row.f_divergence).map(|row| row.name).collect::<Vec<_>>();
                problems.push(problem(
                    "fDivergenceType",
                    format!(
                        "`{}` does not fit lossType[{index}] `{}`, which takes each reward by itself",
                        self.f_divergence.name(),
                        loss.name()
                    ),
                    format!("use `reverse_kl`, or losses of {}", fitting.join(", ")),
                ));
            }
        }
        if self.losses.iter().all(|&(_, weight)| weight == 0.0) {
            problems.push(problem("lossWeights", "all weights are 0", "give one loss a weight above 0"));
        }
        if self.label_smoothing > 0.0 && self.losses.iter().all(|(loss, _)| *loss == DpoLoss::Sft) {
            problems.push(problem("labelSmoothing", "`sft` does not read it", "set it to 0"));
        }
    }

    /// Weights of pairs fit a mean over pairs; TRL refuses `aot` too, and multiplies the mean of `sft` by their mean.
    fn check_weighting(&self, index: usize, row: &Row, problems: &mut Vec<Problem>) {
        if self.use_weighting && !matches!(row.form, Form::Pair(_)) {
            let reason = format!("lossType[{index}] `{}` is not a mean over pairs that stand alone", row.name);
            problems.push(problem("useWeighting", reason, "set it to false, or leave this loss out"));
        }
    }

    fn check_smoothing(&self, index: usize, row: &Row, problems: &mut Vec<Problem>) {
        let smoothing = self.label_smoothing;
        let (reason, remedy) = match row.smoothing {
            Smoothing::Needed if smoothing == 0.0 => ("is infinite at 0", "give a small rate; the EXO paper uses 1e-3"),
            Smoothing::BelowHalf if smoothing == 0.5 => ("divides by 1 − 2ε = 0", "give a rate below 0.5"),
            Smoothing::Refused if smoothing > 0.0 => ("has no label smoothing", "set it to 0, or leave this loss out"),
            _ => return,
        };
        problems.push(problem("labelSmoothing", format!("lossType[{index}] `{}` {reason}", row.name), remedy));
    }
}

impl TryFrom<LossSettings> for LossConfig {
    type Error = InvalidLossConfig;

    fn try_from(settings: LossSettings) -> Result<Self, InvalidLossConfig> {
        let defaults = LossConfig::default();
        let mut problems = Vec::new();
        let names = match settings.loss_type {
            None => vec![DpoLoss::Sigmoid.name().to_owned()],
            Some(LossType::One(name)) => vec![name],
            Some(LossType::Many(names)) => names,
        };
        // A weight left out counts 1; a list of another length is a mistake and is named below.
        let weights = settings.loss_weights.unwrap_or_else(|| vec![1.0; names.len()]);
        if weights.len() != names.len() {
            problems.push(problem(
                "lossWeights",
                format!("{} weights for {} losses", weights.len(), names.len()),
                "give one weight for each entry of lossType",
            ));
        }
        let mut losses = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            match DpoLoss::from_name(name) {
                Some(loss) => losses.push((loss, weights.get(index).copied().unwrap_or(1.0))),
                None => problems.push(problem(
                    format!("lossType[{index}]"),
                    format!("`{name}` is not a loss"),
                    one_of(LOSSES.iter().map(|row| row.name)),
                )),
            }
        }
        let unknown_only = losses.is_empty() && !names.is_empty();
        let config = LossConfig {
            beta: settings.beta.unwrap_or(defaults.beta),
            label_smoothing: settings.label_smoothing.unwrap_or(defaults.label_smoothing),
            losses,
            f_divergence: divergence(settings.f_divergence_type, settings.f_alpha_divergence_coef, &mut problems),
            discopop_tau: settings.discopop_tau.unwrap_or(defaults.discopop_tau),
            ipo_normalisation: normalisation(settings.ipo_normalisation, &mut problems),
            use_weighting: settings.use_weighting.unwrap_or(defaults.use_weighting),
        };
        if unknown_only {
            config.check_constants(&mut problems);
        } else if let Err(InvalidLossConfig(more)) = config.validate() {
            problems.extend(more);
        }
        if !problems.is_empty() {
            return Err(InvalidLossConfig(problems));
        }
        Ok(config)
    }
}

/// TRL's default of `f_alpha_divergence_coef`.
const DEFAULT_ALPHA: f64 = 0.5;

fn divergence(name: Option<String>, alpha: Option<f64>, problems: &mut Vec<Problem>) -> FDivergence {
    match name.as_deref() {
        None | Some("reverse_kl") => FDivergence::ReverseKl,
        Some("forward_kl") => FDivergence::ForwardKl,
        Some("js_divergence") => FDivergence::Js,
        Some("alpha_divergence") => FDivergence::Alpha(alpha.unwrap_or(DEFAULT_ALPHA)),
        Some(other) => {
            let reason = format!("`{other}` is not a divergence");
            problems.push(problem("fDivergenceType", reason, one_of(FDivergence::NAMES)));
            FDivergence::ReverseKl
        }
    }
}

fn normalisation(name: Option<String>, problems: &mut Vec<Problem>) -> IpoNormalisation {
    match name.as_deref() {
        None | Some("tokens") => IpoNormalisation::Tokens,
        Some("none") => IpoNormalisation::None,
        Some(other) => {
            let reason = format!("`{other}` is not a normalisation");
            problems.push(problem("ipoNormalisation", reason, one_of(IpoNormalisation::NAMES)));
            IpoNormalisation::Tokens
        }
    }
}

impl From<LossConfig> for LossSettings {
    fn from(config: LossConfig) -> Self {
        let alpha = match config.f_divergence {
            FDivergence::Alpha(alpha) => Some(alpha),
            _ => None,
        };
        LossSettings {
            loss_type: Some(LossType::Many(config.losses.iter().map(|(loss, _)| loss.name().to_owned()).collect())),
            loss_weights: Some(config.losses.iter().map(|&(_, weight)| weight).collect()),
            beta: Some(config.beta),
            label_smoothing: Some(config.label_smoothing),
            f_divergence_type: Some(config.f_divergence.name().to_owned()),
            f_alpha_divergence_coef: alpha,
            discopop_tau: Some(config.discopop_tau),
            ipo_normalisation: Some(config.ipo_normalisation.name().to_owned()),
            use_weighting: Some(config.use_weighting),
        }
    }
}
