//! Gradients and the optimizer's state in device memory, in each of its forms.
//!
//! | | f32 weights | bf16 weights |
//! |---|---|---|
//! | `adamw` | f32 moments | f32 masters and moments |
//! | `adamw-8bit` | 8-bit moments | f32 masters, 8-bit moments |
//! | `adamw-bf16` | refused | 16-bit rests, bf16 moments |
//!
//! On the host everything has the form of [`Optimizer`]: moments that are bf16 here are f32 there.

use std::ops::Range;
use std::sync::Arc;

use zephyr_kernels::adamw::cuda::{Codes, Moments, Weights, step, tables};
use zephyr_kernels::adamw::{self, BLOCK, Blocks};
use zephyr_kernels::cuda::{Arena, Bf16, Device, DeviceError, Element, Fetched, PIECE, Pointer, Reserved};
use zephyr_kernels::norm::cuda as norm;
use zephyr_mistral::device::{Decoder, Gradients, download, upload};
use zephyr_mistral::{Model, TensorSpec};

use super::super::{Optimizer, OptimizerKind, Update, decay_runs};
use crate::error::Result;

type Queued = std::result::Result<(), DeviceError>;

/// What training one model holds on a device beside the model.
pub(crate) struct Training<T: Element> {
    memory: Reserved,
    kind: OptimizerKind,
    /// Floats that are trained
    pub len: usize,
    runs: Vec<(Range<usize>, bool)>,
    pub gradients: Gradients<T>,
    state: State,
    norm: Norm,
    /// Steps were made that the host has not seen.
    pub ahead: bool,
}

/// Where the norm is measured.
#[derive(Clone, Copy)]
struct Norm {
    shares: Pointer<f64>,
    grad_scale: Pointer<f32>,
    norm: Pointer<f32>,
}

/// The norm of a gradient on its way to the host.
pub(crate) struct Measured(Fetched);

impl Measured {
    /// Waits for it; not a finite number if the gradient is none.
    pub fn wait(self) -> Result<f64> {
        let mut norm = [0.0f32];
        self.0.wait(&mut norm)?;
        Ok(f64::from(norm[0]))
    }
}

/// What the weights lack to the exact ones, and the moments.
struct State {
    exact: Exact,
    moments: Held,
}

#[derive(Clone, Copy)]
enum Exact {
    /// The weights are f32 themselves.
    Weights,
    Masters(Pointer<f32>),
    Rests(Pointer<i16>),
}

enum Held {
    Full {
        m: Pointer<f32>,
        v: Pointer<f32>,
    },
    Bf16 {
        m: Pointer<Bf16>,
        v: Pointer<Bf16>,
    },
    /// First and second of each run
    Coded {
        runs: Vec<(Codes, Codes)>,
        tables: Pointer<f32>,
    },
}

/// An array of the state, beside the host's.
#[derive(Clone, Copy)]
enum Array {
    /// The same bytes, from this address on.
    Same(u64),
    /// f32 on the host.
    Bf16(Pointer<Bf16>),
}

/// Lays the gradients.
pub(crate) fn lay_gradients<T: Element>(arena: &mut Arena, adapted: bool, len: usize) -> Gradients<T> {
    if adapted {
        Gradients::Adapter(arena.part("gradients", len))
    } else {
        Gradients::Weights(arena.part("gradients", len))
    }
}

/// Lays the optimizer's state and where the norm is measured.
fn lay_state<T: Element>(
    arena: &mut Arena,
    kind: OptimizerKind,
    runs: &[(Range<usize>, bool)],
    len: usize,
) -> (State, Norm) {
    let exact = match kind {
        _ if T::LETTER == 'f' => Exact::Weights,
        OptimizerKind::AdamWBf16 => Exact::Rests(arena.part("rests", len)),
        _ => Exact::Masters(arena.part("masters", len)),
    };
    let moments = match kind {
        OptimizerKind::AdamW => Held::Full { m: arena.part("m", len), v: arena.part("v", len) },
        OptimizerKind::AdamWBf16 => Held::Bf16 { m: arena.part("m", len), v: arena.part("v", len) },
        OptimizerKind::AdamW8bit => {
            let mut codes = |name: &str, len: usize| Codes {
                codes: arena.part(&format!("{name} codes"), len),
                scales: arena.part(&format!("{name} scales"), len.div_ceil(BLOCK)),
            };
            let runs = runs.iter().map(|(run, _)| (codes("m", run.len()), codes("v", run.len()))).collect();
            Held::Coded { runs, tables: arena.part("tables", tables().len()) }
        }
    };
    let norm = Norm {
        shares: arena.part("shares", norm::share_count(len)),
        grad_scale: arena.part("grad_scale", 1),
        norm: arena.part("norm", 1),
    };
    (State { exact, moments }, norm)
}

/// Bytes of gradients and of the optimizer's state.
pub(crate) fn plan<T: Element>(kind: OptimizerKind, tensors: &[TensorSpec], adapted: bool) -> (usize, usize) {
    let runs = decay_runs(tensors);
    let len = length(&runs);
    let gradients = Arena::measure(|arena| lay_gradients::<T>(arena, adapted, len));
    (gradients, Arena::measure(|arena| lay_state::<T>(arena, kind, &runs, len)))
}

fn length(runs: &[(Range<usize>, bool)]) -> usize {
    runs.iter().map(|(run, _)| run.end).max().unwrap_or(0)
}

impl<T: Element> Training<T> {
    /// The state after the optimizer's steps so far, for what is trained of `model`.
    pub fn new(decoder: &Decoder<T>, model: Model, optimizer: &Optimizer) -> Result<Self> {
        let kind = optimizer.kind();
        let tensors = match model.adapter {
            Some(adapter) => &adapter.layout.tensors,
            None => &model.weights.layout.tensors,
        };
        let runs = decay_runs(tensors);
        let (len, adapted) = (length(&runs), model.adapter.is_some());
        let lay = |arena: &mut Arena| {
            let gradients = lay_gradients::<T>(arena, adapted, len);
            (gradients, lay_state::<T>(arena, kind, &runs, len))
        };
        let reserved = Arena::reserve(&decoder.device, "Gradients and optimizer state", lay);
        let (memory, (gradients, (state, norm))) = reserved?;
        let training = Self { memory, kind, len, runs, gradients, state, norm, ahead: false };
        training.write(decoder, model, optimizer)?;
        training.clear_gradients(&*decoder.device)?;
        Ok(training)
    }

    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// What is trained, where the forward pass reads it.
    fn target(&self, decoder: &Decoder<T>) -> Pointer<T> {
        match self.gradients {
            Gradients::Weights(_) => decoder.weights,
            Gradients::Adapter(_) => decoder.adapted,
        }
    }

    /// Copies the exact weights and the optimizer's state to the device; a state that is there already stays.
    pub fn write(&self, decoder: &Decoder<T>, model: Model, optimizer: &Optimizer) -> Result<()> {
        Ok(self.queue_write(decoder, model, optimizer)?)
    }

    fn queue_write(&self, decoder: &Decoder<T>, model: Model, optimizer: &Optimizer) -> Queued {
        let device = &*decoder.device;
        match self.state.exact {
            Exact::Weights => {}
            Exact::Masters(masters) => upload(device, model.parameters(), masters)?,
            // Once the optimizer has made a step, the host's weights are rounded, and their rests are the optimizer's.
            Exact::Rests(_) if optimizer.steps() > 0 => {}
            Exact::Rests(rests) => {
                // By the piece: no second copy of the weights on the host.
                let mut own = vec![0; PIECE];
                for (piece, values) in model.parameters().chunks(PIECE).enumerate() {
                    let (mut values, own) = (values.to_vec(), &mut own[..values.len()]);
                    adamw::split(&mut values, own);
                    upload(device, &values, self.target(decoder).offset(piece * PIECE))?;
                    device.upload(own, rests.offset(piece * PIECE))?;
                }
            }
        }
        if let Held::Coded { tables: there, .. } = self.state.moments {
            device.upload(&tables(), there)?;
        }
        if optimizer.steps() == 0 {
            return self.clear_moments(device);
        }
        self.arrays().iter().zip(optimizer.sections()).try_for_each(|(array, section)| match *array {
            Array::Same(address) => device.write(address, &section.bytes),
            Array::Bf16(to) => upload(device, bytemuck::cast_slice(&section.bytes), to),
        })
    }

    /// Copies what was trained and its moments to the host.
    pub fn read(&self, decoder: &Decoder<T>, parameters: &mut [f32], optimizer: &mut Arc<Optimizer>) -> Result<()> {
        let mut fetched = Optimizer::sized(self.kind, optimizer.steps(), &self.runs);
        self.queue_read(decoder, parameters, &mut fetched)?;
        *optimizer = Arc::new(fetched);
        Ok(())
    }

    fn queue_read(&self, decoder: &Decoder<T>, parameters: &mut [f32], optimizer: &mut Optimizer) -> Queued {
        let device = &*decoder.device;
        match self.state.exact {
            Exact::Masters(masters) => download(device, masters, parameters)?,
            Exact::Weights | Exact::Rests(_) => download(device, self.target(decoder), parameters)?,
        }
        self.arrays().iter().zip(optimizer.sections_mut()).try_for_each(|(array, section)| match *array {
            Array::Same(address) => device.download(Pointer::new(address), section.bytes),
            Array::Bf16(from) => download(device, from, bytemuck::cast_slice_mut(section.bytes)),
        })
    }

    /// In the order of [`Optimizer::sections`].
    fn arrays(&self) -> Vec<Array> {
        let mut arrays = match &self.state.moments {
            Held::Full { m, v } => vec![Array::Same(m.address), Array::Same(v.address)],
            Held::Bf16 { m, v } => vec![Array::Bf16(*m), Array::Bf16(*v)],
            Held::Coded { runs, .. } => {
                let of = |codes: &Codes| [Array::Same(codes.codes.address), Array::Same(codes.scales.address)];
                runs.iter().flat_map(|(m, v)| [of(m), of(v)].concat()).collect()
            }
        };
        if let Exact::Rests(rests) = self.state.exact {
            arrays.push(Array::Same(rests.address));
        }
        arrays
    }

    fn clear_moments(&self, device: &dyn Device) -> Queued {
        match &self.state.moments {
            Held::Full { m, v } => [m, v].into_iter().try_for_each(|moment| device.zero(*moment, self.len)),
            Held::Bf16 { m, v } => [m, v].into_iter().try_for_each(|moment| device.zero(*moment, self.len)),
            Held::Coded { runs, .. } => runs.iter().zip(&self.runs).try_for_each(|((m, v), (run, _))| {
                for (codes, signed) in [(m, true), (v, false)] {
                    let zeros = Blocks::zeros(run.len(), signed);
                    device.upload(&zeros.codes, codes.codes)?;
                    device.upload(&zeros.scales, codes.scales)?;
                }
                Ok(())
            }),
        }
    }

    /// Queues the norm of the gradients, and the factor that clips them. Gives the norm before clipping.
    pub fn queue_norm(&self, device: &dyn Device, max_norm: Option<f64>) -> Result<Measured> {
        let Norm { shares, grad_scale, norm: to } = self.norm;
        let squares = match self.gradients {
            Gradients::Weights(gradients) => norm::shares(gradients, self.len, shares),
            Gradients::Adapter(gradients) => norm::shares(gradients, self.len, shares),
        };
        let most = max_norm.map(|most| most as f32);
        let clip = norm::clip(shares, norm::share_count(self.len), 1.0, most, grad_scale, to);
        device.run(&squares)?;
        device.run(&clip)?;
        Ok(Measured(device.fetch(to.address, size_of::<f32>())?))
    }

    /// Queues the update with that number by the gradients times the factor that [`Self::queue_norm`] makes. If the norm is
    /// not finite, the kernels change nothing.
    pub fn queue_step(&self, decoder: &Decoder<T>, number: u64, update: &Update) -> Result<()> {
        let target = self.target(decoder);
        for (index, (run, decayed)) in self.runs.iter().enumerate() {
            let (start, len) = (run.start, run.len());
            let there = target.offset(start).address;
            let weights = match self.state.exact {
                Exact::Weights => Weights::Full { params: Pointer::new(there), copy: None },
                Exact::Masters(masters) => {
                    Weights::Full { params: masters.offset(start), copy: Some(Pointer::new(there)) }
                }
                Exact::Rests(rests) => Weights::Split { weights: Pointer::new(there), rests: rests.offset(start) },
            };
            let moments = match &self.state.moments {
                Held::Full { m, v } => Moments::Full { m: m.offset(start), v: v.offset(start) },
                // Another seed in every step and run.
                Held::Bf16 { m, v } => {
                    let seed = (number as u32).wrapping_mul(0x9e37_79b9) ^ index as u32;
                    Moments::Bf16 { m: m.offset(start), v: v.offset(start), seed }
                }
                Held::Coded { runs, tables } => Moments::Coded { m: runs[index].0, v: runs[index].1, tables: *tables },
            };
            let config = update.of_step(number, *decayed, 1.0);
            let scale = self.norm.grad_scale;
            let launch = match self.gradients {
                Gradients::Weights(gradients) => step(weights, gradients.offset(start), moments, len, scale, &config),
                Gradients::Adapter(gradients) => step(weights, gradients.offset(start), moments, len, scale, &config),
            };
            decoder.device.run(&launch)?;
        }
        Ok(())
    }

    pub fn clear_gradients(&self, device: &dyn Device) -> Result<()> {
        let queued = match self.gradients {
            Gradients::Weights(gradients) => device.zero(gradients, self.len),
            Gradients::Adapter(gradients) => device.zero(gradients, self.len),
        };
        Ok(queued?)
    }
}
