//! The backward pass, layer by layer from the top: [`crate::train::backward`]'s twin.

use std::ops::Range;

use zephyr_kernels::cuda::{Element, Pointer};
use zephyr_kernels::{embedding, rms_norm, rope, swiglu};

use super::workspace::{Attention, Derived, Saved};
use super::{Decoder, Gradients, Loaded, Workspace};
use crate::config::Config;
use crate::error::Result;
use crate::linear::Group;
use crate::train::Recompute;

impl<T: Element> Decoder<T> {
    /// Adds to the gradients from the gradient of the final hidden states, which the head has left in the workspace.
    ///
    /// The last [`forward`](Self::forward) on this workspace must have been of the same batch with `keep`.
    ///
    /// # Errors
    /// The device's.
    pub fn backward(&self, batch: &Loaded, workspace: &Workspace<T>, gradients: Gradients<T>) -> Result<()> {
        let Config { hidden_size: width, layers, .. } = self.config;
        let (tokens, recompute) = (batch.tokens, workspace.sizes.recompute);
        let d_residual = workspace.stream.flow.d_residual;
        let adapted = matches!(gradients, Gradients::Adapter(_));
        self.device.zero(d_residual, tokens * width)?;
        let last = workspace.stream.residuals[layers];
        let rstd = workspace.stream.rstd_final;
        let norm = &self.layout.final_norm;
        self.norm_backward(workspace.stream.d_hidden, last, norm, rstd, tokens, workspace, gradients)?;
        for index in (0..layers).rev() {
            let saved = &workspace.stream.saved[if recompute == Recompute::Layer { 0 } else { index }];
            let derived = &workspace.stream.derived[if recompute == Recompute::None { index } else { 0 }];
            let input = workspace.stream.residuals[index];
            match recompute {
                Recompute::None => {}
                Recompute::NormsAndSwiglu => {
                    self.norm_attention(index, tokens, input, saved, derived)?;
                    self.norm_mlp(index, tokens, saved, derived)?;
                    self.multiply_gates(tokens, saved, derived)?;
                }
                Recompute::Layer => {
                    self.layer_forward(index, batch, input, saved, derived, None, workspace, adapted)?;
                }
            }
            self.layer_backward(index, batch, input, saved, derived, workspace, gradients)?;
        }
        if let Some(gradient) = of_weights(gradients, &self.layout.embed) {
            self.device.run(&embedding::cuda::backward(d_residual, width, batch.ids, gradient, tokens))?;
        }
        Ok(())
    }

    fn layer_backward(
        &self,
        index: usize,
        batch: &Loaded,
        input: Pointer<T>,
        saved: &Saved<T>,
        derived: &Derived<T>,
        workspace: &Workspace<T>,
        gradients: Gradients<T>,
    ) -> Result<()> {
        let (tokens, flow, layer) = (batch.tokens, &workspace.stream.flow, &self.layout.layers[index]);
        let linear = |group, d_y, x, d_x| self.linear_backward(index, group, d_y, x, d_x, batch, workspace, gradients);

        // MLP: output = mid + product · downᵀ, product = silu(gate) ∘ up, [gate | up] = norm(mid) · gate_upᵀ
        linear(Group::Down, flow.d_residual, derived.product, flow.d_product)?;
        let inner = self.config.intermediate_size;
        self.device.run(&swiglu::cuda::backward(flow.d_product, saved.gate_up, tokens, inner))?;
        linear(Group::GateUp, saved.gate_up, derived.normed_mlp, flow.d_normed)?;
        let (mid, rstd) = (saved.residual_mid, saved.rstd_mlp);
        self.norm_backward(flow.d_normed, mid, &layer.post_norm, rstd, tokens, workspace, gradients)?;

        // Attention: mid = input + attended · oᵀ, attended = attention(rope(norm(input) · qkvᵀ))
        linear(Group::O, flow.d_residual, saved.attended, flow.d_attended)?;
        let (d_attended, row_sums, d_qkv) = (flow.d_attended, flow.row_sums, flow.d_qkv);
        let Saved { qkv, attended, lse, .. } = *saved;
        let Attention::Packed(plan) = &batch.attention else { unreachable!("nothing is trained over pages") };
        for launch in plan.backward(batch.words, d_attended, qkv, attended, lse, row_sums, d_qkv) {
            self.device.run(&launch)?;
        }
        self.rotate(d_qkv, batch, rope::Direction::Backward)?;
        linear(Group::Qkv, d_qkv, derived.normed_attention, flow.d_normed)?;
        let rstd = saved.rstd_attention;
        self.norm_backward(flow.d_normed, input, &layer.input_norm, rstd, tokens, workspace, gradients)
    }

    /// Adds to the gradient of the residual stream, and to that of the norm's weight unless it is frozen.
    fn norm_backward(
        &self,
        d_out: Pointer<T>,
        x: Pointer<T>,
        norm: &Range<usize>,
        rstd: Pointer<f32>,
        tokens: usize,
        workspace: &Workspace<T>,
        gradients: Gradients<T>,
    ) -> Result<()> {
        let width = self.config.hidden_size;
        let gradient = of_weights(gradients, norm);
        let shares = gradient.map(|_| workspace.stream.flow.shares);
        let (weight, d_x) = (self.weight(norm)?, workspace.stream.flow.d_residual);
        self.device.run(&rms_norm::cuda::backward(d_out, x, weight, rstd, d_x, shares, tokens, width))?;
        if let Some(gradient) = gradient {
            let launch = rms_norm::cuda::weight_gradient(workspace.stream.flow.shares, gradient, tokens, width);
            self.device.run(&launch)?;
        }
        Ok(())
    }
}

/// The gradient of a range of the weights; none when they are frozen under an adapter.
pub(super) fn of_weights<T>(gradients: Gradients<T>, range: &Range<usize>) -> Option<Pointer<T>> {
    match gradients {
        Gradients::Weights(gradients) => Some(gradients.offset(range.start)),
        Gradients::Adapter(_) => None,
    }
}
