//! The memory of a training on a device, known before anything is allocated.

use std::fmt;

use zephyr_kernels::cuda::{Bf16, Element, Free};
use zephyr_mistral::device::{Decoder, Sizes, plan_workspace};
use zephyr_mistral::train::Recompute;
use zephyr_mistral::{Model, Storage};

use super::SessionOptions;
use super::device::{check, training};
use crate::error::{Error, Result};

/// The type of weights and activations on a device. Sums and logits are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// To compare with the CPU; slow, as it has no tensor cores.
    F32,
    #[default]
    Bf16,
}

impl Precision {
    /// `float32`, `bfloat16`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "float32" => Some(Self::F32),
            "bfloat16" => Some(Self::Bf16),
            _ => None,
        }
    }

    /// As [`Self::parse`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// The largest micro-batch of a run.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Tokens of a packed batch
    pub tokens: usize,
    /// Rows that predict something
    pub predictions: usize,
    pub train: bool,
}

/// Bytes of device memory by what they are for; what is allocated, to the byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    pub recompute: Recompute,
    pub weights: usize,
    pub gradients: usize,
    /// Moments, and what bf16 weights lack to the exact ones
    pub states: usize,
    /// What the backward pass finds saved, and its own buffers
    pub activations: usize,
    /// The head's chunk of logits, its rows, and the batch itself
    pub workspace: usize,
}

impl MemoryPlan {
    /// The plan for a recompute policy that is given.
    pub fn new(model: Model, precision: Precision, options: &SessionOptions, work: Work) -> Self {
        match precision {
            Precision::F32 => Self::of::<f32>(model, options, work),
            Precision::Bf16 => Self::of::<Bf16>(model, options, work),
        }
    }

    fn of<T: Element>(model: Model, options: &SessionOptions, work: Work) -> Self {
        let (config, adapter) = (&model.weights.config, model.adapter);
        let tensors = adapter.map_or(&model.weights.layout.tensors, |adapter| &adapter.layout.tensors);
        let (gradients, states) = match work.train {
            true => training::plan::<T>(options.optimizer, tensors, adapter.is_some()),
            false => (0, 0),
        };
        let sizes = Sizes::of(work.tokens, work.predictions, options.head_chunk, work.train, options.recompute);
        let (activations, workspace) = plan_workspace::<T>(config, adapter.map(|adapter| &adapter.layout), &sizes);
        Self {
            recompute: options.recompute,
            weights: Decoder::<T>::plan(model, options.max_length),
            gradients,
            states,
            activations,
            workspace,
        }
    }

    /// All bytes.
    pub fn total(&self) -> usize {
        self.weights + self.gradients + self.states + self.activations + self.workspace
    }

    /// The plan for the recompute policy that is given, or for the one that computes least again and fits into what is free without
    /// the device's reserve.
    ///
    /// # Errors
    /// `ZA_DEVICE_UNSUPPORTED` for what only the CPU does; [`Error::DeviceMemory`] when nothing fits: the numbers, and what
    /// would help.
    pub fn fitting(
        model: Model,
        precision: Precision,
        options: &SessionOptions,
        work: Work,
        memory: Free,
        recompute: Option<Recompute>,
    ) -> Result<Self> {
        match precision {
            Precision::F32 => check::<f32>(model, options)?,
            Precision::Bf16 => check::<Bf16>(model, options)?,
        }
        let plan = |recompute| {
            let options = SessionOptions { recompute, ..options.clone() };
            Self::new(model, precision, &options, work)
        };
        let any = [Recompute::None, Recompute::NormsAndSwiglu, Recompute::Layer];
        let policies = recompute.map_or(any.to_vec(), |given| vec![given]);
        let mut least = None;
        for policy in policies {
            let plan = plan(policy);
            if plan.total() <= memory.plannable() {
                return Ok(plan);
            }
            least = Some(plan);
        }
        let plan = least.expect("there is a policy");
        Err(Error::DeviceMemory { plan, memory, remedy: remedy(&plan, memory, model) })
    }
}

/// What would make it fit, judged by what takes the most.
fn remedy(plan: &MemoryPlan, memory: Free, model: Model) -> &'static str {
    let (fixed, room) = (plan.weights + plan.gradients + plan.states, memory.plannable());
    if fixed <= room && plan.recompute != Recompute::Layer {
        "leave recompute out, which then is what fits, or take a smaller batchSize or maxLength"
    } else if fixed <= room {
        "take a smaller batchSize or maxLength, with gradientAccumulation for the same step"
    } else if plan.weights > room && model.weights.storage() != Storage::Nf4 {
        "load the model with quantization \"nf4\", to train a LoRA adapter or to evaluate, take a card with more memory, or end what \
         else uses this one"
    } else if plan.weights > room {
        "take a card with more memory, or end what else uses this one"
    } else {
        "train a LoRA adapter, or take optimizer adamw-8bit or adamw-bf16"
    }
}

impl fmt::Display for MemoryPlan {
    /// `weights 14.5 GB + gradients 14.5 GB + …`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gigabytes = |bytes: usize| bytes as f64 / 1e9;
        write!(
            formatter,
            "weights {:.2} GB + gradients {:.2} GB + optimizer state {:.2} GB + activations {:.2} GB + workspace {:.2} GB = {:.2} GB",
            gigabytes(self.weights),
            gigabytes(self.gradients),
            gigabytes(self.states),
            gigabytes(self.activations),
            gigabytes(self.workspace),
            gigabytes(self.total())
        )
    }
}
