//! The loss table: a new loss is a pure function and one row here.

use super::config::{DpoLoss, LossConfig};
use super::{Pair, PairTerm, margin, reward, supervised, transport};

/// What a loss is a function of, and what its sum is divided by.
#[derive(Clone, Copy)]
pub enum Form {
    /// One pair; mean over pairs.
    Pair(fn(&LossConfig, &Pair) -> PairTerm),
    /// All pairs of the call at once (sorting); mean over pairs.
    Batch(fn(&LossConfig, &[Pair]) -> Vec<PairTerm>),
    /// One pair; mean over chosen completion tokens.
    ChosenTokens(fn(&LossConfig, &Pair) -> PairTerm),
}

/// What `label_smoothing` ε means to a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smoothing {
    /// Part of the formula; ε = 0 is allowed.
    Honoured,
    /// Part of the formula; ε = 0 makes it infinite.
    Needed,
    /// Part of the formula; ε = ½ makes it infinite.
    BelowHalf,
    /// Not a preference loss: ε belongs to the losses beside it.
    Bystander,
    /// No such term in the formula.
    Refused,
}

/// One loss.
pub struct Row {
    pub loss: DpoLoss,
    /// TRL's name in `loss_type`.
    pub name: &'static str,
    pub form: Form,
    pub smoothing: Smoothing,
    /// Whether f-divergences other than `reverse_kl` fit (TRL: `f_divergence_loss_types`).
    pub f_divergence: bool,
}

const fn row(loss: DpoLoss, name: &'static str, form: Form, smoothing: Smoothing, f_divergence: bool) -> Row {
    Row { loss, name, form, smoothing, f_divergence }
}

use Form::{Batch, ChosenTokens, Pair as Each};
use Smoothing::{BelowHalf, Bystander, Honoured, Needed, Refused};

/// Every loss, in the order of [`DpoLoss`] (TRL's order).
pub static LOSSES: [Row; 15] = [
    row(DpoLoss::Sigmoid, "sigmoid", Each(margin::sigmoid_loss), Honoured, true),
    row(DpoLoss::Hinge, "hinge", Each(margin::hinge), Refused, true),
    row(DpoLoss::Ipo, "ipo", Each(margin::ipo), Refused, true),
    row(DpoLoss::ExoPair, "exo_pair", Each(margin::exo_pair), Needed, true),
    row(DpoLoss::NcaPair, "nca_pair", Each(reward::nca_pair), Refused, false),
    row(DpoLoss::Robust, "robust", Each(margin::robust), BelowHalf, true),
    row(DpoLoss::BcoPair, "bco_pair", Each(reward::bco_pair), Refused, false),
    row(DpoLoss::SppoHard, "sppo_hard", Each(reward::sppo_hard), Refused, false),
    row(DpoLoss::Aot, "aot", Batch(transport::aot), Honoured, false),
    row(DpoLoss::AotUnpaired, "aot_unpaired", Batch(transport::aot_unpaired), Honoured, false),
    row(DpoLoss::ApoZero, "apo_zero", Each(reward::apo_zero), Refused, false),
    row(DpoLoss::ApoDown, "apo_down", Each(reward::apo_down), Refused, false),
    row(DpoLoss::Discopop, "discopop", Each(margin::discopop), Refused, true),
    row(DpoLoss::Sft, "sft", ChosenTokens(supervised::sft), Bystander, true),
    row(DpoLoss::SigmoidNorm, "sigmoid_norm", Each(margin::sigmoid_norm), Honoured, true),
];
