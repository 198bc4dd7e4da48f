//! The language-model head without the logits: log-probabilities of given targets, and their gradient.
//!
//! Logits `hidden·Wᵀ` exist for one chunk of token rows at a time, never as `[T, V]`. A loss over log-probabilities
//! reaches the model through one number per token, its derivative with respect to that token's `logp` (`coefficient`):
//! `d_logits = coefficient · (onehot(target) − softmax(logits))`. A loss that needs the log-probabilities first calls
//! [`forward`], then [`backward`], which computes the logits again; one that does not (cross-entropy) saves that product
//! by [`forward_backward`].

#[cfg(test)]
mod test;

mod cpu;
pub mod cuda;

use crate::matrix::Matrix;

/// The output projection and how to walk it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// `[V, h]`
    pub weight: Matrix<'a>,
    /// V
    pub vocabulary: usize,
    /// h
    pub width: usize,
    /// Token rows whose logits exist at one time: `chunk · V` floats of scratch.
    pub chunk: usize,
}

/// What a row of logits says about its target. Reusable: the vectors keep their memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// `logit[target] − lse`
    pub logp: Vec<f32>,
    /// `log Σ exp(logit)`
    pub lse: Vec<f32>,
    /// `−Σ p log p`, in nats
    pub entropy: Vec<f32>,
    /// `log Σ p²`: how likely two draws are the same token (WPO's weights)
    pub log_collision: Vec<f32>,
    /// Mean of the V logits
    pub logit_mean: Vec<f32>,
    /// Whether the largest logit (the first, on ties) is the target's
    pub correct: Vec<bool>,
}

impl Stats {
    fn resize(&mut self, rows: usize) {
        for values in [&mut self.logp, &mut self.lse, &mut self.entropy, &mut self.log_collision, &mut self.logit_mean]
        {
            values.resize(rows, 0.0);
        }
        self.correct.resize(rows, false);
    }
}

/// Fills `stats` for the rows of `hidden` `[N, h]`. `scratch` grows to `min(chunk, N) · V` and is reused.
pub fn forward(head: &Head, hidden: &[f32], targets: &[u32], stats: &mut Stats, scratch: &mut Vec<f32>) {
    head.check(hidden, targets);
    stats.resize(targets.len());
    cpu::forward(head, hidden, targets, stats, scratch);
}

/// The gradients of a loss with `d loss / d logp[n] = coefficient[n]`: overwrites `d_hidden` `[N, h]`, adds to `d_weight`
/// `[V, h]`. `lse` is [`forward`]'s.
pub fn backward(
    head: &Head,
    hidden: &[f32],
    targets: &[u32],
    lse: &[f32],
    coefficient: &[f32],
    d_hidden: &mut [f32],
    d_weight: Option<&mut [f32]>,
    scratch: &mut Vec<f32>,
) {
    head.check(hidden, targets);
    head.check_gradient(hidden, targets, coefficient, d_hidden, d_weight.as_deref());
    assert_eq!(lse.len(), targets.len(), "log-sum-exps");
    cpu::backward(head, hidden, targets, lse, coefficient, d_hidden, d_weight, scratch);
}

/// [`forward`] and [`backward`] with the logits computed once, for coefficients that are known beforehand.
pub fn forward_backward(
    head: &Head,
    hidden: &[f32],
    targets: &[u32],
    coefficient: &[f32],
    d_hidden: &mut [f32],
    d_weight: Option<&mut [f32]>,
    stats: &mut Stats,
    scratch: &mut Vec<f32>,
) {
    head.check(hidden, targets);
    head.check_gradient(hidden, targets, coefficient, d_hidden, d_weight.as_deref());
    stats.resize(targets.len());
    cpu::forward_backward(head, hidden, targets, coefficient, d_hidden, d_weight, stats, scratch);
}

/// The logits themselves, `out` `[N, V]`, for decoding.
pub fn logits(head: &Head, hidden: &[f32], out: &mut [f32]) {
    head.check_weight();
    let rows = hidden.len() / head.width;
    assert_eq!(hidden.len(), rows * head.width, "hidden elements for rows of width {}", head.width);
    assert_eq!(out.len(), rows * head.vocabulary, "logits for {rows} rows");
    cpu::logits(head, hidden, out);
}

/// `log Σ exp(logit)` of one row; NaN where a logit is NaN, or +∞, or all are −∞.
pub fn log_sum_exp(logits: &[f32]) -> f32 {
    cpu::log_sum_exp(logits)
}

/// `exp((score − largest) / temperature)` of one row: probabilities before they are divided by their sum.
pub fn weights(scores: &[f32], largest: f32, temperature: f32, out: &mut Vec<f32>) {
    out.resize(scores.len(), 0.0);
    cpu::weights(scores, largest, temperature, out);
}

impl Head<'_> {
    fn check_weight(&self) {
        assert!(self.width > 0 && self.vocabulary > 0 && self.chunk > 0, "a head without width, vocabulary or chunk");
        assert_eq!(
            self.weight.len(),
            self.vocabulary * self.width,
            "weights for [{}, {}]",
            self.vocabulary,
            self.width
        );
    }

    fn check(&self, hidden: &[f32], targets: &[u32]) {
        self.check_weight();
        assert_eq!(hidden.len(), targets.len() * self.width, "hidden elements for {} rows", targets.len());
        for (row, &target) in targets.iter().enumerate() {
            assert!((target as usize) < self.vocabulary, "row {row}: target {target} of {} tokens", self.vocabulary);
        }
    }

    fn check_gradient(
        &self,
        hidden: &[f32],
        targets: &[u32],
        coefficient: &[f32],
        d_hidden: &[f32],
        d_weight: Option<&[f32]>,
    ) {
        assert_eq!(coefficient.len(), targets.len(), "coefficients");
        assert_eq!(d_hidden.len(), hidden.len(), "elements of the hidden rows' gradient");
        if let Some(d_weight) = d_weight {
            assert_eq!(d_weight.len(), self.weight.len(), "elements of the weight's gradient");
        }
    }
}
