//! AdamW over a flat slice of parameters: its state in the parameters' layout, decay by runs of neighbours.

use std::borrow::Cow;
use std::ops::Range;

use safetensors::Dtype;
use zephyr_kernels::adamw::{self, BLOCK, Blocks};
use zephyr_mistral::TensorSpec;

use crate::checkpoint::{Section, SectionMut};

/// How the optimizer holds weights and moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Everything f32: 8 bytes a parameter besides the weight.
    #[default]
    AdamW,
    /// Moments in 8 bits with a scale for each 256 neighbours: 2 bytes a parameter (bitsandbytes' `adamw_8bit`).
    AdamW8bit,
    /// The forward pass sees weights that are bf16 numbers; the 16 bits that they lack to the exact f32 are kept here, so
    /// that no update is lost, however small. The weights are rounded from the first step on: before it they are those that
    /// were loaded. Moments f32; 10 bytes a parameter here, where the weights' own memory stays that of f32.
    AdamWBf16,
}

impl OptimizerKind {
    const ALL: [(Self, &'static str); 3] =
        [(Self::AdamW, "adamw"), (Self::AdamW8bit, "adamw-8bit"), (Self::AdamWBf16, "adamw-bf16")];

    /// `adamw`, `adamw-8bit`, `adamw-bf16`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// AdamW and clipping for one step (PyTorch's AdamW, `clip_grad_norm_`). Norm weights are not decayed, as in
/// transformers' `get_decay_parameter_names`.
#[derive(Clone, Debug)]
pub struct Update {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    /// `None`: no clipping.
    pub max_grad_norm: Option<f64>,
}

/// A moment of one run of parameters.
#[derive(Clone, Debug, PartialEq)]
enum Moments {
    Full { first: Vec<f32>, second: Vec<f32> },
    Coded { first: Blocks, second: Blocks },
}

/// The state of the parameters in training, and how often they were updated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Optimizer {
    kind: OptimizerKind,
    /// Optimizer steps done.
    steps: u64,
    /// One for all parameters, or one for each run where blocks may not reach across runs; empty before the first step.
    moments: Vec<Moments>,
    /// What the bf16 weights lack; empty but for [`OptimizerKind::AdamWBf16`].
    rests: Vec<i16>,
}

impl Optimizer {
    /// An optimizer that has made no step.
    pub fn new(kind: OptimizerKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// The state after `steps` steps as zeros, for [`Self::sections_mut`] to be read into.
    pub fn sized(kind: OptimizerKind, steps: u64, runs: &[(Range<usize>, bool)]) -> Self {
        let mut optimizer = Self { kind, steps, ..Self::default() };
        if steps > 0 {
            optimizer.allocate(runs);
        }
        optimizer
    }

    /// An optimizer whose state after `steps` steps is not in the host's memory.
    pub(super) fn elsewhere(kind: OptimizerKind, steps: u64) -> Self {
        Self { kind, steps, ..Self::default() }
    }

    pub fn kind(&self) -> OptimizerKind {
        self.kind
    }

    /// Optimizer steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Bytes of the state.
    pub fn bytes(&self) -> usize {
        self.sections().iter().map(|section| section.bytes.len()).sum()
    }

    /// The f32 moments (first, second); empty before the first step, and for 8-bit ones.
    pub fn moments(&self) -> (&[f32], &[f32]) {
        match self.moments.as_slice() {
            [Moments::Full { first, second }] => (first, second),
            _ => (&[], &[]),
        }
    }

    /// The state as named arrays: `first_moment`, `second_moment`; for 8-bit moments their codes and scales of each run of
    /// parameters (`first_moment.3.codes`); for bf16 weights `weight_rest`. Nothing before the first step.
    pub fn sections(&self) -> Vec<Section<'_>> {
        fn section<'a>(name: String, dtype: Dtype, bytes: &'a [u8]) -> Section<'a> {
            Section { name, dtype, bytes: Cow::Borrowed(bytes) }
        }
        let mut sections = Vec::new();
        for (run, moments) in self.moments.iter().enumerate() {
            match moments {
                Moments::Full { first, second } => {
                    for (name, values) in [("first_moment", first), ("second_moment", second)] {
                        sections.push(section(name.to_owned(), Dtype::F32, bytemuck::cast_slice(values)));
                    }
                }
                Moments::Coded { first, second } => {
                    for (name, blocks) in [("first_moment", first), ("second_moment", second)] {
                        sections.push(section(format!("{name}.{run}.codes"), Dtype::U8, &blocks.codes));
                        let scales = bytemuck::cast_slice(&blocks.scales);
                        sections.push(section(format!("{name}.{run}.scales"), Dtype::F32, scales));
                    }
                }
            }
        }
        if !self.rests.is_empty() {
            sections.push(section("weight_rest".to_owned(), Dtype::I16, bytemuck::cast_slice(&self.rests)));
        }
        sections
    }

    /// The same arrays to be overwritten.
    pub fn sections_mut(&mut self) -> Vec<SectionMut<'_>> {
        let mut sections = Vec::new();
        for (run, moments) in self.moments.iter_mut().enumerate() {
            match moments {
                Moments::Full { first, second } => {
                    for (name, values) in [("first_moment", first), ("second_moment", second)] {
                        let bytes = bytemuck::cast_slice_mut(values);
                        sections.push(SectionMut { name: name.to_owned(), dtype: Dtype::F32, bytes });
                    }
                }
                Moments::Coded { first, second } => {
                    for (name, Blocks { codes, scales }) in [("first_moment", first), ("second_moment", second)] {
                        sections.push(SectionMut {
                            name: format!("{name}.{run}.codes"),
                            dtype: Dtype::U8,
                            bytes: codes,
                        });
                        let bytes = bytemuck::cast_slice_mut(scales);
                        sections.push(SectionMut { name: format!("{name}.{run}.scales"), dtype: Dtype::F32, bytes });
                    }
                }
            }
        }
        if !self.rests.is_empty() {
            let bytes = bytemuck::cast_slice_mut(&mut self.rests);
            sections.push(SectionMut { name: "weight_rest".to_owned(), dtype: Dtype::I16, bytes });
        }
        sections
    }

    fn allocate(&mut self, runs: &[(Range<usize>, bool)]) {
        let len = runs.iter().map(|(range, _)| range.end).max().unwrap_or(0);
        self.moments = match self.kind {
            OptimizerKind::AdamW | OptimizerKind::AdamWBf16 => {
                vec![Moments::Full { first: vec![0.0; len], second: vec![0.0; len] }]
            }
            OptimizerKind::AdamW8bit => runs
                .iter()
                .map(|(range, _)| Moments::Coded {
                    first: Blocks::zeros(range.len(), true),
                    second: Blocks::zeros(range.len(), false),
                })
                .collect(),
        };
        if self.kind == OptimizerKind::AdamWBf16 {
            self.rests = vec![0; len];
        }
    }

    /// One update of `parameters` by `gradients · grad_scale`. `runs` tile the parameters and tell which are decayed; they
    /// must be the same in every call.
    pub fn step(
        &mut self,
        parameters: &mut [f32],
        gradients: &[f32],
        runs: &[(Range<usize>, bool)],
        update: &Update,
        grad_scale: f32,
    ) {
        if self.moments.is_empty() {
            self.allocate(runs);
        }
        self.steps += 1;
        if self.kind == OptimizerKind::AdamWBf16 {
            adamw::join(parameters, &self.rests);
        }
        for (run, (range, decayed)) in runs.iter().enumerate() {
            let config = update.of_step(self.steps, *decayed, grad_scale);
            let (parameters, gradients) = (&mut parameters[range.clone()], &gradients[range.clone()]);
            // 8-bit moments lie run by run, f32 ones in one piece.
            let at = run.min(self.moments.len() - 1);
            match &mut self.moments[at] {
                Moments::Full { first, second } => {
                    let (first, second) = (&mut first[range.clone()], &mut second[range.clone()]);
                    adamw::step(parameters, gradients, first, second, &config);
                }
                Moments::Coded { first, second } => adamw::step_8bit(parameters, gradients, first, second, &config),
            }
        }
        if self.kind == OptimizerKind::AdamWBf16 {
            adamw::split(parameters, &mut self.rests);
        }
    }
}

/// Bytes of the state of that many parameters, roughly (a scale for every started block).
pub fn state_bytes(kind: OptimizerKind, parameters: usize) -> usize {
    match kind {
        OptimizerKind::AdamW => 8 * parameters,
        OptimizerKind::AdamW8bit => 2 * parameters + 8 * parameters.div_ceil(BLOCK),
        OptimizerKind::AdamWBf16 => 10 * parameters,
    }
}

impl Update {
    pub(super) fn of_step(&self, step: u64, decayed: bool, grad_scale: f32) -> adamw::Config {
        adamw::Config {
            lr: self.learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.epsilon,
            weight_decay: if decayed { self.weight_decay } else { 0.0 },
            step,
            grad_scale,
        }
    }
}

/// Neighbouring parameters of equal decay as one run: few kernel calls for a whole model.
pub fn decay_runs(tensors: &[TensorSpec]) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    for tensor in tensors {
        let decayed = tensor.shape.len() > 1;
        match runs.last_mut() {
            Some((range, same)) if *same == decayed && range.end == tensor.range.start => range.end = tensor.range.end,
            _ => runs.push((tensor.range.clone(), decayed)),
        }
    }
    runs
}
