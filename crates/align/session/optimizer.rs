//! AdamW over a flat slice of parameters: moments in the parameters' layout, decay by runs of neighbours.

use std::ops::Range;

use zephyr_kernels::adamw;
use zephyr_mistral::Weights;

/// AdamW and clipping for one step (PyTorch's AdamW, `clip_grad_norm_`). Norm weights are not decayed, as in
/// transformers' `get_decay_parameter_names`.
#[derive(Clone, Debug)]
pub struct Update {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    /// `None`: no clipping.
    pub max_grad_norm: Option<f64>,
}

/// The moments of the parameters in training, and how often they were updated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Optimizer {
    /// Optimizer steps done.
    pub(crate) steps: u64,
    /// Empty before the first step, as is the second.
    pub(crate) first_moment: Vec<f32>,
    pub(crate) second_moment: Vec<f32>,
}

impl Optimizer {
    /// Bytes of the state.
    pub fn bytes(&self) -> usize {
        (self.first_moment.capacity() + self.second_moment.capacity()) * size_of::<f32>()
    }

    /// One update of `parameters` by `gradients · grad_scale`; `runs` tells which neighbours are decayed.
    pub fn step(
        &mut self,
        parameters: &mut [f32],
        gradients: &[f32],
        runs: &[(Range<usize>, bool)],
        update: &Update,
        grad_scale: f32,
    ) {
        if self.first_moment.is_empty() {
            self.first_moment = vec![0.0; parameters.len()];
            self.second_moment = vec![0.0; parameters.len()];
        }
        self.steps += 1;
        for (range, decayed) in runs {
            adamw::step(
                &mut parameters[range.clone()],
                &gradients[range.clone()],
                &mut self.first_moment[range.clone()],
                &mut self.second_moment[range.clone()],
                &update.of_step(self.steps, *decayed, grad_scale),
            );
        }
    }
}

impl Update {
    fn of_step(&self, step: u64, decayed: bool, grad_scale: f32) -> adamw::Config {
        adamw::Config {
            lr: self.learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.epsilon,
            weight_decay: if decayed { self.weight_decay } else { 0.0 },
            step,
            grad_scale,
        }
    }
}

/// Neighbouring parameters of equal decay as one run: few kernel calls for a whole model.
pub fn decay_runs(weights: &Weights) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    for tensor in &weights.layout.tensors {
        let decayed = tensor.shape.len() > 1;
        match runs.last_mut() {
            Some((range, same)) if *same == decayed && range.end == tensor.range.start => range.end = tensor.range.end,
            _ => runs.push((tensor.range.clone(), decayed)),
        }
    }
    runs
}
