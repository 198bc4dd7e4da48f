//! The backward pass, layer by layer from the top.

use zephyr_kernels::gemm::{self, Mat, MatMut};
use zephyr_kernels::{attention, embedding, rms_norm, rope, swiglu};

use super::activations::{Derived, Flow, Recompute, Saved};
use super::forward::layer_forward;
use super::{Activations, Batch, attention_shape};
use crate::config::Config;
use crate::layout::{LayerLayout, Weights};

/// Accumulates the gradients of all parameters into `gradients` (flat, the weights' layout) from
/// [`Activations::d_hidden`], `[T, h]`, the gradient of the final hidden states.
///
/// The last [`forward`](super::forward) on this workspace must have been of the same batch with `keep`.
/// The head's own weight gradient is the caller's (it has the logits).
pub fn backward(
    weights: &Weights,
    rope: &rope::Table,
    batch: &Batch,
    activations: &mut Activations,
    gradients: &mut [f32],
) {
    assert!(activations.kept, "backward without kept activations");
    let (config, layout) = (&weights.config, &weights.layout);
    let Activations { recompute, residuals, saved, derived, rstd_final, d_hidden, flow, .. } = activations;
    flow.d_residual.fill(0.0);
    rms_norm::backward(
        d_hidden,
        &residuals[config.layers],
        &weights.data[layout.final_norm.clone()],
        rstd_final,
        &mut flow.d_residual,
        Some(&mut gradients[layout.final_norm.clone()]),
    );
    for (index, layer) in layout.layers.iter().enumerate().rev() {
        let saved = &mut saved[if *recompute == Recompute::Layer { 0 } else { index }];
        let derived = &mut derived[if *recompute == Recompute::None { index } else { 0 }];
        let input = &residuals[index];
        match recompute {
            Recompute::None => {}
            Recompute::NormsAndSwiglu => derive(weights, layer, input, saved, derived),
            Recompute::Layer => layer_forward(weights, layer, rope, batch, input, saved, derived, None),
        }
        layer_backward(weights, layer, rope, batch, input, saved, derived, flow, gradients);
    }
    embedding::backward(&flow.d_residual, config.hidden_size, batch.ids, &mut gradients[layout.embed.clone()]);
}

/// The elementwise results that the policy did not save, by the kernels that made them the first time.
fn derive(weights: &Weights, layer: &LayerLayout, input: &[f32], saved: &mut Saved, derived: &mut Derived) {
    let eps = weights.config.rms_norm_eps;
    rms_norm::forward(
        input,
        &weights.data[layer.input_norm.clone()],
        eps,
        &mut derived.normed_attention,
        &mut saved.rstd_attention,
    );
    rms_norm::forward(
        &saved.residual_mid,
        &weights.data[layer.post_norm.clone()],
        eps,
        &mut derived.normed_mlp,
        &mut saved.rstd_mlp,
    );
    swiglu::forward(&saved.gate_up, weights.config.intermediate_size, &mut derived.product);
}

fn layer_backward(
    weights: &Weights,
    layer: &LayerLayout,
    rope: &rope::Table,
    batch: &Batch,
    input: &[f32],
    saved: &mut Saved,
    derived: &Derived,
    flow: &mut Flow,
    gradients: &mut [f32],
) {
    let Config { hidden_size: hidden, intermediate_size: inner, heads, kv_heads, head_dim, .. } = weights.config;
    let tokens = batch.tokens();
    let (attended, qkv) = (heads * head_dim, (heads + 2 * kv_heads) * head_dim);
    let data = &weights.data;

    // MLP: output = mid + product · downᵀ, product = silu(gate) ∘ up, [gate | up] = norm(mid) · gate_upᵀ
    linear_backward(
        Mat::new(&flow.d_residual, tokens, hidden),
        Mat::new(&derived.product, tokens, inner),
        &data[layer.down.clone()],
        &mut gradients[layer.down.clone()],
        &mut flow.d_product,
    );
    swiglu::backward(&flow.d_product, inner, &mut saved.gate_up);
    linear_backward(
        Mat::new(&saved.gate_up, tokens, 2 * inner),
        Mat::new(&derived.normed_mlp, tokens, hidden),
        &data[layer.gate_up.clone()],
        &mut gradients[layer.gate_up.clone()],
        &mut flow.d_normed,
    );
    rms_norm::backward(
        &flow.d_normed,
        &saved.residual_mid,
        &data[layer.post_norm.clone()],
        &saved.rstd_mlp,
        &mut flow.d_residual,
        Some(&mut gradients[layer.post_norm.clone()]),
    );

    // Attention: mid = input + attended · oᵀ, attended = attention(rope(norm(input) · qkvᵀ))
    linear_backward(
        Mat::new(&flow.d_residual, tokens, hidden),
        Mat::new(&saved.attended, tokens, attended),
        &data[layer.o.clone()],
        &mut gradients[layer.o.clone()],
        &mut flow.d_attended,
    );
    attention::backward(
        &flow.d_attended,
        &saved.qkv,
        &saved.attended,
        &saved.lse,
        &attention_shape(&weights.config, batch),
        &mut flow.d_qkv,
    );
    rope::apply(&mut flow.d_qkv, qkv, heads + kv_heads, head_dim, batch.positions, rope, rope::Direction::Backward);
    linear_backward(
        Mat::new(&flow.d_qkv, tokens, qkv),
        Mat::new(&derived.normed_attention, tokens, hidden),
        &data[layer.qkv.clone()],
        &mut gradients[layer.qkv.clone()],
        &mut flow.d_normed,
    );
    rms_norm::backward(
        &flow.d_normed,
        input,
        &data[layer.input_norm.clone()],
        &saved.rstd_attention,
        &mut flow.d_residual,
        Some(&mut gradients[layer.input_norm.clone()]),
    );
}

/// `y = x · Wᵀ` backwards: `d_weight[out, in] += d_yᵀ · x`, `d_x[T, in] = d_y · W` (overwritten).
fn linear_backward(d_y: Mat, x: Mat, weight: &[f32], d_weight: &mut [f32], d_x: &mut [f32]) {
    let (tokens, outputs, inputs) = (d_y.rows, d_y.cols, x.cols);
    gemm::tn(MatMut::new(d_weight, outputs, inputs), d_y, x, 1.0, 1.0);
    gemm::nn(MatMut::new(d_x, tokens, inputs), d_y, Mat::new(weight, outputs, inputs), 1.0, 0.0);
}
