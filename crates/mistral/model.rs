//! What is computed with and what is trained: weights alone, or frozen weights under a low-rank adapter.

use crate::layout::{TensorSpec, Weights};
use crate::lora::Adapter;

/// A decoder as the forward pass sees it. With an adapter the weights are frozen: they get no gradient, and no memory for one.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    pub weights: &'a Weights,
    pub adapter: Option<&'a Adapter>,
}

impl<'a> Model<'a> {
    /// Frozen weights under an adapter.
    pub fn adapted(weights: &'a Weights, adapter: &'a Adapter) -> Self {
        Self { weights, adapter: Some(adapter) }
    }

    /// Floats that training changes: those of the adapter, or of all weights. Gradients and moments are of this length.
    pub fn trainable(&self) -> usize {
        self.adapter.map_or(self.weights.layout.len, |adapter| adapter.layout.len)
    }

    /// What training changes, flat.
    pub fn parameters(&self) -> &'a [f32] {
        self.adapter.map_or(&self.weights.data, |adapter| &adapter.data)
    }
}

impl<'a> From<&'a Weights> for Model<'a> {
    fn from(weights: &'a Weights) -> Self {
        Self { weights, adapter: None }
    }
}

/// What an optimizer changes: one flat slice, and the tensors in it.
#[derive(Debug)]
pub struct Parameters<'a> {
    pub data: &'a mut [f32],
    pub tensors: &'a [TensorSpec],
}

impl<'a> From<&'a mut Weights> for Parameters<'a> {
    fn from(weights: &'a mut Weights) -> Self {
        Self { data: &mut weights.data, tensors: &weights.layout.tensors }
    }
}

impl<'a> From<&'a mut Adapter> for Parameters<'a> {
    fn from(adapter: &'a mut Adapter) -> Self {
        Self { data: &mut adapter.data, tensors: &adapter.layout.tensors }
    }
}
