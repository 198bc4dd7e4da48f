//! The backward pass, layer by layer from the top.

use std::ops::Range;

use zephyr_kernels::{attention, embedding, rms_norm, rope, swiglu};

use super::activations::{Derived, Flow, Recompute, Saved, go_on};
use super::forward::layer_forward;
use super::{Activations, Batch, attention_shape};
use crate::config::Config;
use crate::error::Result;
use crate::layout::{LayerLayout, Weights};
use crate::linear::{Group, LoraScratch};
use crate::model::Model;

/// Accumulates into `gradients` from [`Activations::d_hidden`], `[T, h]`, the gradient of the final hidden states: the
/// gradients of all weights (flat, their layout), or with an adapter those of the adapter alone (its layout).
///
/// The last [`forward`](super::forward) on this workspace must have been of the same batch with `keep`.
/// The head's own weight gradient is the caller's (it has the logits).
///
/// # Errors
/// [`Error::Aborted`](crate::Error::Aborted) when [`Activations::stop`] is set; the gradients are then a part of what they should be.
pub fn backward<'a>(
    model: impl Into<Model<'a>>,
    rope: &rope::Table,
    batch: &Batch,
    activations: &mut Activations,
    gradients: &mut [f32],
) -> Result<()> {
    assert!(activations.kept, "backward without kept activations");
    let model = model.into();
    assert_eq!(gradients.len(), model.trainable(), "gradients of what is trained");
    let weights = model.weights;
    let (config, layout) = (&weights.config, &weights.layout);
    let Activations { recompute, residuals, saved, derived, rstd_final, d_hidden, flow, lora, dropout, stop, .. } =
        activations;
    flow.d_residual.fill(0.0);
    rms_norm::backward(
        d_hidden,
        &residuals[config.layers],
        weights.vector(&layout.final_norm),
        rstd_final,
        &mut flow.d_residual,
        of_weights(model, gradients, &layout.final_norm),
    );
    for (index, layer) in layout.layers.iter().enumerate().rev() {
        go_on(stop)?;
        let saved = &mut saved[if *recompute == Recompute::Layer { 0 } else { index }];
        let derived = &mut derived[if *recompute == Recompute::None { index } else { 0 }];
        let input = &residuals[index];
        match recompute {
            Recompute::None => {}
            Recompute::NormsAndSwiglu => derive(weights, layer, input, saved, derived),
            Recompute::Layer => {
                layer_forward(model, index, rope, batch, input, saved, derived, None, *dropout, lora);
            }
        }
        layer_backward(model, index, rope, batch, input, saved, derived, flow, gradients, *dropout, lora);
    }
    if let Some(gradient) = of_weights(model, gradients, &layout.embed) {
        embedding::backward(&flow.d_residual, config.hidden_size, batch.ids, gradient);
    }
    Ok(())
}

/// The gradient of a range of the weights; none when they are frozen under an adapter.
fn of_weights<'g>(model: Model, gradients: &'g mut [f32], range: &Range<usize>) -> Option<&'g mut [f32]> {
    model.adapter.is_none().then(|| &mut gradients[range.clone()])
}

/// The elementwise results that the policy did not save, by the kernels that made them the first time.
fn derive(weights: &Weights, layer: &LayerLayout, input: &[f32], saved: &mut Saved, derived: &mut Derived) {
    let eps = weights.config.rms_norm_eps;
    rms_norm::forward(
        input,
        weights.vector(&layer.input_norm),
        eps,
        &mut derived.normed_attention,
        &mut saved.rstd_attention,
    );
    rms_norm::forward(
        &saved.residual_mid,
        weights.vector(&layer.post_norm),
        eps,
        &mut derived.normed_mlp,
        &mut saved.rstd_mlp,
    );
    swiglu::forward(&saved.gate_up, weights.config.intermediate_size, &mut derived.product);
}

fn layer_backward(
    model: Model,
    index: usize,
    rope: &rope::Table,
    batch: &Batch,
    input: &[f32],
    saved: &mut Saved,
    derived: &Derived,
    flow: &mut Flow,
    gradients: &mut [f32],
    dropout: Option<u64>,
    lora: &mut LoraScratch,
) {
    let weights = model.weights;
    let layer = &weights.layout.layers[index];
    let Config { intermediate_size: inner, heads, kv_heads, head_dim, .. } = weights.config;
    let qkv = (heads + 2 * kv_heads) * head_dim;

    // MLP: output = mid + product · downᵀ, product = silu(gate) ∘ up, [gate | up] = norm(mid) · gate_upᵀ
    model.linear(index, Group::Down).backward(
        &flow.d_residual,
        &derived.product,
        &mut flow.d_product,
        gradients,
        dropout,
        lora,
    );
    swiglu::backward(&flow.d_product, inner, &mut saved.gate_up);
    model.linear(index, Group::GateUp).backward(
        &saved.gate_up,
        &derived.normed_mlp,
        &mut flow.d_normed,
        gradients,
        dropout,
        lora,
    );
    rms_norm::backward(
        &flow.d_normed,
        &saved.residual_mid,
        weights.vector(&layer.post_norm),
        &saved.rstd_mlp,
        &mut flow.d_residual,
        of_weights(model, gradients, &layer.post_norm),
    );

    // Attention: mid = input + attended · oᵀ, attended = attention(rope(norm(input) · qkvᵀ))
    model.linear(index, Group::O).backward(
        &flow.d_residual,
        &saved.attended,
        &mut flow.d_attended,
        gradients,
        dropout,
        lora,
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
    model.linear(index, Group::Qkv).backward(
        &flow.d_qkv,
        &derived.normed_attention,
        &mut flow.d_normed,
        gradients,
        dropout,
        lora,
    );
    rms_norm::backward(
        &flow.d_normed,
        input,
        weights.vector(&layer.input_norm),
        &saved.rstd_attention,
        &mut flow.d_residual,
        of_weights(model, gradients, &layer.input_norm),
    );
}
