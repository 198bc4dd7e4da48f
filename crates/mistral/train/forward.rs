//! The forward pass.

use zephyr_kernels::{attention, rms_norm, rope, swiglu};

use super::activations::{Derived, Saved, go_on};
use super::{Activations, Batch, attention_shape};
use crate::config::Config;
use crate::error::Result;
use crate::linear::{Group, LoraScratch};
use crate::model::Model;

/// Runs the decoder over a packed batch; the final normed hidden states are in [`Activations::hidden`], `[T, h]`.
///
/// With `keep` the activations that [`backward`](super::backward) needs are saved under the workspace's policy;
/// without, two residual buffers serve all layers. Runs on the current rayon pool.
///
/// # Errors
/// A token id outside the vocabulary, a position outside `rope`, segments that don't tile the batch, a prefix that is not there;
/// [`Error::Aborted`](crate::Error::Aborted) when [`Activations::stop`] is set.
pub fn forward<'a>(
    model: impl Into<Model<'a>>,
    rope: &rope::Table,
    batch: &Batch,
    activations: &mut Activations,
    keep: bool,
) -> Result<()> {
    let model = model.into();
    let weights = model.weights;
    let config = &weights.config;
    batch.check(config, rope.positions())?;
    activations.prepare(config, batch.tokens(), keep);
    weights.embed(batch.ids, &mut activations.residuals[0]);
    if let Some(noise) = activations.noise {
        noise.add(batch.segments, config.hidden_size, &mut activations.residuals[0]);
    }
    let dropout = activations.dropout.filter(|_| keep);
    for index in 0..config.layers {
        go_on(&activations.stop)?;
        let (saved, derived) = (activations.saved_slot(index), activations.derived_slot(index));
        let (input, output) = stream(&mut activations.residuals, index, keep);
        layer_forward(
            model,
            index,
            rope,
            batch,
            input,
            &mut activations.saved[saved],
            &mut activations.derived[derived],
            Some(output),
            dropout,
            &mut activations.lora,
        );
    }
    let last = if keep { config.layers } else { config.layers % 2 };
    rms_norm::forward(
        &activations.residuals[last],
        weights.vector(&weights.layout.final_norm),
        config.rms_norm_eps,
        &mut activations.hidden,
        &mut activations.rstd_final,
    );
    Ok(())
}

/// The residual stream into and out of a layer: consecutive buffers when kept, else two that swap.
fn stream(residuals: &mut [Vec<f32>], index: usize, keep: bool) -> (&[f32], &mut [f32]) {
    if keep {
        let (before, after) = residuals.split_at_mut(index + 1);
        return (&before[index], &mut after[0]);
    }
    let (first, second) = residuals.split_at_mut(1);
    if index.is_multiple_of(2) { (&first[0], &mut second[0]) } else { (&second[0], &mut first[0]) }
}

/// One decoder layer: `input` is the residual stream before it, `output` after it (left out when the backward only
/// wants the activations again).
pub(super) fn layer_forward(
    model: Model,
    index: usize,
    rope: &rope::Table,
    batch: &Batch,
    input: &[f32],
    saved: &mut Saved,
    derived: &mut Derived,
    output: Option<&mut [f32]>,
    dropout: Option<u64>,
    lora: &mut LoraScratch,
) {
    let weights = model.weights;
    let layer = &weights.layout.layers[index];
    let Config { intermediate_size: inner, heads, kv_heads, head_dim, rms_norm_eps: eps, .. } = weights.config;
    let qkv = (heads + 2 * kv_heads) * head_dim;

    rms_norm::forward(
        input,
        weights.vector(&layer.input_norm),
        eps,
        &mut derived.normed_attention,
        &mut saved.rstd_attention,
    );
    model.linear(index, Group::Qkv).forward(&mut saved.qkv, &derived.normed_attention, 0.0, dropout, lora);
    rope::apply(&mut saved.qkv, qkv, heads + kv_heads, head_dim, batch.positions, rope, rope::Direction::Forward);
    attention::forward(&saved.qkv, &attention_shape(&weights.config, batch), &mut saved.attended, &mut saved.lse);
    // The projections back into the stream accumulate onto it: no delta buffer, no extra pass.
    saved.residual_mid.copy_from_slice(input);
    model.linear(index, Group::O).forward(&mut saved.residual_mid, &saved.attended, 1.0, dropout, lora);
    rms_norm::forward(
        &saved.residual_mid,
        weights.vector(&layer.post_norm),
        eps,
        &mut derived.normed_mlp,
        &mut saved.rstd_mlp,
    );
    model.linear(index, Group::GateUp).forward(&mut saved.gate_up, &derived.normed_mlp, 0.0, dropout, lora);
    swiglu::forward(&saved.gate_up, inner, &mut derived.product);
    if let Some(output) = output {
        output.copy_from_slice(&saved.residual_mid);
        model.linear(index, Group::Down).forward(output, &derived.product, 1.0, dropout, lora);
    }
}
