//! The f-divergence that ties the policy to the reference (f-DPO, arXiv 2309.16240).

use super::logistic::{log_sigmoid, sigmoid};

/// Exponents above this are held there, with slope 0: e^80 is still an f32.
/// TRL holds the α-divergence's exponent at the same place; it leaves `forward_kl` to overflow (f32 infinity, then NaN).
pub const MAX_EXPONENT: f64 = 80.0;

/// TRL's distance from α = 1 below which the α-divergence is its limit, the reverse KL.
const ALPHA_LIMIT: f64 = 1e-6;

/// Score `s = f'(t)`, t = π/π_ref, written over the log ratio `d = log t`. All are 0 at d = 0.
///
/// TRL option `f_divergence_type`. TRL 1.16 writes the constants (`1 −`, `log 2 +`, `− 1`) as here; earlier ones left
/// them out. They cancel in `s_c − s_r` and matter only where scores are divided by lengths (`ipo`, `sigmoid_norm`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FDivergence {
    /// `reverse_kl`: `s = d`, standard DPO.
    ReverseKl,
    /// `forward_kl`: `s = 1 − e^−d`.
    ForwardKl,
    /// `js_divergence`: `s = log 2 + log σ(d)`.
    Js,
    /// `alpha_divergence` with TRL's `f_alpha_divergence_coef` α: `s = (e^{(α−1)d} − 1)/(α−1)`; `s = d` at α = 1.
    Alpha(f64),
}

impl FDivergence {
    /// TRL's names, in the order of the variants.
    pub const NAMES: [&'static str; 4] = ["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"];

    /// TRL's name of this divergence.
    pub fn name(&self) -> &'static str {
        match self {
            FDivergence::ReverseKl => "reverse_kl",
            FDivergence::ForwardKl => "forward_kl",
            FDivergence::Js => "js_divergence",
            FDivergence::Alpha(_) => "alpha_divergence",
        }
    }

    /// The score `s` of a log ratio `d`, and `ds/dd`.
    pub fn score(&self, d: f64) -> (f64, f64) {
        match *self {
            FDivergence::ReverseKl => (d, 1.0),
            FDivergence::ForwardKl => power(-1.0, d),
            FDivergence::Js => (std::f64::consts::LN_2 + log_sigmoid(d), sigmoid(-d)),
            FDivergence::Alpha(alpha) if (alpha - 1.0).abs() < ALPHA_LIMIT => (d, 1.0),
            FDivergence::Alpha(alpha) => power(alpha - 1.0, d),
        }
    }
}

/// `(e^{kd} − 1)/k` and its slope `e^{kd}`; k = −1 is the forward KL.
fn power(k: f64, d: f64) -> (f64, f64) {
    let exponent = k * d;
    if exponent > MAX_EXPONENT { (MAX_EXPONENT.exp_m1() / k, 0.0) } else { (exponent.exp_m1() / k, exponent.exp()) }
}
