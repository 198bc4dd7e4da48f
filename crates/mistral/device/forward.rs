//! The forward pass: [`crate::train::forward`]'s twin.

use zephyr_kernels::cuda::{Element, Pointer};
use zephyr_kernels::{embedding, noise, rms_norm, rope, swiglu};

use super::workspace::{Attention, Derived, Saved};
use super::{Decoder, Loaded, Workspace};
use crate::config::Config;
use crate::error::Result;
use crate::linear::Group;
use crate::train::Recompute;

impl<T: Element> Decoder<T> {
    /// Runs the layers over a batch; the final normed hidden states are in the workspace. With `keep` what the backward
    /// needs stays there. `adapted`: with the adapter, if there is one.
    ///
    /// # Errors
    /// The device's.
    pub fn forward(&self, batch: &Loaded, workspace: &Workspace<T>, keep: bool, adapted: bool) -> Result<()> {
        let Config { hidden_size: width, layers, rms_norm_eps: eps, .. } = self.config;
        let tokens = batch.tokens;
        let table = self.weight(&self.layout.embed)?;
        self.device.run(&embedding::cuda::forward(table, width, batch.ids, workspace.stream.residuals[0], tokens))?;
        if let Some((noise, reaches)) = &batch.noise {
            let embeddings = workspace.stream.residuals[0];
            self.device.run(&noise::cuda::add(noise, embeddings, *reaches, tokens, width))?;
        }
        for index in 0..layers {
            let slot = |every: bool| if keep && every { index } else { 0 };
            let saved = &workspace.stream.saved[slot(workspace.sizes.recompute != Recompute::Layer)];
            let derived = &workspace.stream.derived[slot(workspace.sizes.recompute == Recompute::None)];
            let (input, output) = if keep { (index, index + 1) } else { (index % 2, (index + 1) % 2) };
            let output = Some(workspace.stream.residuals[output]);
            self.layer_forward(
                index,
                batch,
                workspace.stream.residuals[input],
                saved,
                derived,
                output,
                workspace,
                adapted,
            )?;
        }
        let last = workspace.stream.residuals[if keep { layers } else { layers % 2 }];
        let weight = self.weight(&self.layout.final_norm)?;
        let (hidden, rstd) = (workspace.stream.hidden, workspace.stream.rstd_final);
        Ok(self.device.run(&rms_norm::cuda::forward(last, weight, eps, hidden, rstd, tokens, width))?)
    }

    /// One layer: `input` is the residual stream before it, `output` after it (left out when the backward only wants the
    /// activations again).
    pub(super) fn layer_forward(
        &self,
        index: usize,
        batch: &Loaded,
        input: Pointer<T>,
        saved: &Saved<T>,
        derived: &Derived<T>,
        output: Option<Pointer<T>>,
        workspace: &Workspace<T>,
        adapted: bool,
    ) -> Result<()> {
        let tokens = batch.tokens;
        let linear = |group, y, x, addend| self.linear_forward(index, group, y, x, addend, batch, workspace, adapted);
        self.norm_attention(index, tokens, input, saved, derived)?;
        linear(Group::Qkv, saved.qkv, derived.normed_attention, None)?;
        self.rotate(saved.qkv, batch, rope::Direction::Forward)?;
        self.attend(index, batch, saved)?;
        // The projections back into the stream add to it: no delta buffer, no extra pass.
        linear(Group::O, saved.residual_mid, saved.attended, Some(input))?;
        self.norm_mlp(index, tokens, saved, derived)?;
        linear(Group::GateUp, saved.gate_up, derived.normed_mlp, None)?;
        self.multiply_gates(tokens, saved, derived)?;
        match output {
            Some(output) => linear(Group::Down, output, derived.product, Some(saved.residual_mid)),
            None => Ok(()),
        }
    }

    fn attend(&self, index: usize, batch: &Loaded, saved: &Saved<T>) -> Result<()> {
        let Saved { qkv, attended, .. } = *saved;
        match &batch.attention {
            Attention::Packed(plan) => self.device.run(&plan.forward(batch.words, qkv, attended, saved.lse))?,
            Attention::Cached { plan, parts, lse } => {
                self.device.run(&plan.append(batch.words, index, qkv))?;
                self.device.run(&plan.attend(batch.words, index, qkv, *parts, *lse))?;
                self.device.run(&plan.combine(batch.words, *parts, *lse, attended))?;
            }
        }
        Ok(())
    }

    pub(super) fn rotate(&self, qkv: Pointer<T>, batch: &Loaded, direction: rope::Direction) -> Result<()> {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        let stride = (heads + 2 * kv_heads) * head_dim;
        let (positions, turned) = (batch.positions, heads + kv_heads);
        let launch =
            rope::cuda::apply(qkv, stride, turned, head_dim, positions, self.cos, self.sin, direction, batch.tokens);
        Ok(self.device.run(&launch)?)
    }

    pub(super) fn norm_attention(
        &self,
        index: usize,
        tokens: usize,
        input: Pointer<T>,
        saved: &Saved<T>,
        derived: &Derived<T>,
    ) -> Result<()> {
        let Config { hidden_size: width, rms_norm_eps: eps, .. } = self.config;
        let weight = self.weight(&self.layout.layers[index].input_norm)?;
        let (out, rstd) = (derived.normed_attention, saved.rstd_attention);
        Ok(self.device.run(&rms_norm::cuda::forward(input, weight, eps, out, rstd, tokens, width))?)
    }

    pub(super) fn norm_mlp(&self, index: usize, tokens: usize, saved: &Saved<T>, derived: &Derived<T>) -> Result<()> {
        let Config { hidden_size: width, rms_norm_eps: eps, .. } = self.config;
        let weight = self.weight(&self.layout.layers[index].post_norm)?;
        let (out, rstd) = (derived.normed_mlp, saved.rstd_mlp);
        Ok(self.device.run(&rms_norm::cuda::forward(saved.residual_mid, weight, eps, out, rstd, tokens, width))?)
    }

    pub(super) fn multiply_gates(&self, tokens: usize, saved: &Saved<T>, derived: &Derived<T>) -> Result<()> {
        let inner = self.config.intermediate_size;
        Ok(self.device.run(&swiglu::cuda::forward(saved.gate_up, derived.product, tokens, inner))?)
    }
}
