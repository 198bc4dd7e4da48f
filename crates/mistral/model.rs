//! What is computed with and what is trained: weights alone, or frozen weights under a low-rank adapter.

use crate::error::{Error, Result};
use crate::layout::{TensorSpec, Weights};
use crate::lora::Adapter;
use crate::storage::Storage;

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
        self.adapter.map_or(self.weights.data.len(), |adapter| adapter.layout.len)
    }

    /// Where weights and adapter lie: two models with the same answer are one.
    pub fn places(&self) -> (usize, Option<usize>) {
        (self.weights.place_in_memory(), self.adapter.map(|adapter| adapter.data.as_ptr() as usize))
    }

    /// Refuses to train weights that are frozen.
    ///
    /// # Errors
    /// `ZA_MODEL_FROZEN` without an adapter over them.
    pub fn check_trainable(&self) -> Result<()> {
        match self.weights.storage() {
            Storage::F32 => Ok(()),
            _ if self.adapter.is_some() => Ok(()),
            storage => Err(Error::Frozen { storage: storage.name() }),
        }
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
        // Frozen weights have nothing that an optimizer could change.
        let tensors = if weights.data.is_empty() { &[][..] } else { &weights.layout.tensors };
        Self { data: &mut weights.data, tensors }
    }
}

impl<'a> From<&'a mut Adapter> for Parameters<'a> {
    fn from(adapter: &'a mut Adapter) -> Self {
        Self { data: &mut adapter.data, tensors: &adapter.layout.tensors }
    }
}
