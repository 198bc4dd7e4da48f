//! The forward pass.

use zephyr_kernels::gemm::{self, Mat, MatMut};
use zephyr_kernels::{attention, embedding, rms_norm, rope, swiglu};

use super::activations::{Derived, Saved};
use super::{Activations, Batch, attention_shape};
use crate::config::Config;
use crate::error::Result;
use crate::layout::{LayerLayout, Weights};

/// Runs the decoder over a packed batch; the final normed hidden states are in [`Activations::hidden`], `[T, h]`.
///
/// With `keep` the activations that [`backward`](super::backward) needs are saved under the workspace's policy;
/// without, two residual buffers serve all layers. Runs on the current rayon pool.
///
/// # Errors
/// A token id outside the vocabulary, a position outside `rope`, segments that don't tile the batch, a prefix that is not there.
pub fn forward(
    weights: &Weights,
    rope: &rope::Table,
    batch: &Batch,
    activations: &mut Activations,
    keep: bool,
) -> Result<()> {
    let config = &weights.config;
    batch.check(config, rope.positions())?;
    activations.prepare(config, batch.tokens(), keep);
    let table = &weights.data[weights.layout.embed.clone()];
    embedding::forward(table, config.hidden_size, batch.ids, &mut activations.residuals[0]);
    if let Some(noise) = activations.noise {
        noise.add(batch, config.hidden_size, &mut activations.residuals[0]);
    }
    for (index, layer) in weights.layout.layers.iter().enumerate() {
        let (saved, derived) = (activations.saved_slot(index), activations.derived_slot(index));
        let (input, output) = stream(&mut activations.residuals, index, keep);
        layer_forward(
            weights,
            layer,
            rope,
            batch,
            input,
            &mut activations.saved[saved],
            &mut activations.derived[derived],
            Some(output),
        );
    }
    let last = if keep { config.layers } else { config.layers % 2 };
    rms_norm::forward(
        &activations.residuals[last],
        &weights.data[weights.layout.final_norm.clone()],
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
    weights: &Weights,
    layer: &LayerLayout,
    rope: &rope::Table,
    batch: &Batch,
    input: &[f32],
    saved: &mut Saved,
    derived: &mut Derived,
    output: Option<&mut [f32]>,
) {
    let Config { hidden_size: hidden, intermediate_size: inner, heads, kv_heads, head_dim, .. } = weights.config;
    let (tokens, eps) = (batch.tokens(), weights.config.rms_norm_eps);
    let (attended, qkv) = (heads * head_dim, (heads + 2 * kv_heads) * head_dim);
    let data = &weights.data;

    rms_norm::forward(
        input,
        &data[layer.input_norm.clone()],
        eps,
        &mut derived.normed_attention,
        &mut saved.rstd_attention,
    );
    gemm::nt(
        MatMut::new(&mut saved.qkv, tokens, qkv),
        Mat::new(&derived.normed_attention, tokens, hidden),
        Mat::new(&data[layer.qkv.clone()], qkv, hidden),
        1.0,
        0.0,
    );
    rope::apply(&mut saved.qkv, qkv, heads + kv_heads, head_dim, batch.positions, rope, rope::Direction::Forward);
    attention::forward(&saved.qkv, &attention_shape(&weights.config, batch), &mut saved.attended, &mut saved.lse);
    // The projections back into the stream accumulate onto it: no delta buffer, no extra pass.
    saved.residual_mid.copy_from_slice(input);
    gemm::nt(
        MatMut::new(&mut saved.residual_mid, tokens, hidden),
        Mat::new(&saved.attended, tokens, attended),
        Mat::new(&data[layer.o.clone()], hidden, attended),
        1.0,
        1.0,
    );
    rms_norm::forward(
        &saved.residual_mid,
        &data[layer.post_norm.clone()],
        eps,
        &mut derived.normed_mlp,
        &mut saved.rstd_mlp,
    );
    gemm::nt(
        MatMut::new(&mut saved.gate_up, tokens, 2 * inner),
        Mat::new(&derived.normed_mlp, tokens, hidden),
        Mat::new(&data[layer.gate_up.clone()], 2 * inner, hidden),
        1.0,
        0.0,
    );
    swiglu::forward(&saved.gate_up, inner, &mut derived.product);
    if let Some(output) = output {
        output.copy_from_slice(&saved.residual_mid);
        gemm::nt(
            MatMut::new(output, tokens, hidden),
            Mat::new(&derived.product, tokens, inner),
            Mat::new(&data[layer.down.clone()], hidden, inner),
            1.0,
            1.0,
        );
    }
}
