use super::Config;
use crate::parallel;
use crate::simd::dispatch;

/// The scalars of one update, as PyTorch hands them to its f32 kernels.
#[derive(Clone, Copy)]
pub(super) struct Scalars {
    pub(super) grad_scale: f32,
    pub(super) decay: f32,
    pub(super) weight1: f32,
    pub(super) beta2: f32,
    pub(super) weight2: f32,
    pub(super) bias2_root: f32,
    pub(super) eps: f32,
    pub(super) step_size: f32,
}

impl Scalars {
    pub(super) fn of(config: &Config) -> Self {
        let exponent = config.step as f64;
        let bias1 = 1.0 - config.beta1.powf(exponent);
        let bias2 = 1.0 - config.beta2.powf(exponent);
        Self {
            grad_scale: config.grad_scale,
            decay: (1.0 - config.lr * config.weight_decay) as f32,
            weight1: (1.0 - config.beta1) as f32,
            beta2: config.beta2 as f32,
            weight2: (1.0 - config.beta2) as f32,
            bias2_root: bias2.sqrt() as f32,
            eps: config.eps as f32,
            step_size: (config.lr / bias1) as f32,
        }
    }
}

pub(super) fn step(params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32], config: &Config) {
    let scalars = Scalars::of(config);
    let chunk = parallel::rows_per_task(params.len(), 1);
    let tasks = params.chunks_mut(chunk).zip(grads.chunks(chunk)).zip(m.chunks_mut(chunk)).zip(v.chunks_mut(chunk));
    parallel::run(tasks, |(((params, grads), m), v)| update(params, grads, m, v, scalars));
}

dispatch! {
    /// No fused multiply-adds: PyTorch's order, operation by operation.
    pub(super) fn update(params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32], s: Scalars) {
        // torch.lerp takes the other end for weights from 0.5 on, so that weight 1 gives the end exactly.
        let from_start = s.weight1 < 0.5;
        for (((param, grad), m), v) in params.iter_mut().zip(grads).zip(m).zip(v) {
            let grad = grad * s.grad_scale;
            let difference = grad - *m;
            let moment = if from_start { *m + s.weight1 * difference } else { grad - difference * (1.0 - s.weight1) };
            let square = *v * s.beta2 + s.weight2 * grad * grad;
            let denominator = square.sqrt() / s.bias2_root + s.eps;
            *param = *param * s.decay - s.step_size * moment / denominator;
            *m = moment;
            *v = square;
        }
    }
}
