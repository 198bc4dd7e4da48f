//! Weights in device memory.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use zephyr_kernels::attention::cuda::HEAD_DIMS;
use zephyr_kernels::cuda::{Arena, Device, DeviceError, Element, PIECE, Pointer, Reserved};
use zephyr_kernels::matrix::Matrix;
use zephyr_kernels::{nf4, rope};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::{Layout, TensorSpec, Weights};
use crate::linear::Group;
use crate::lora::AdapterLayout;
use crate::model::Model;
use crate::storage::Storage;
use crate::train::rope_table;

/// Values of a piece that a thread unpacks at one time: whole blocks of every storage.
const PART: usize = 1 << 15;

/// A model on a device: its weights, frozen or not, the adapter over them if there is one, and the rotary table.
#[derive(Debug)]
pub struct Decoder<T: Element> {
    pub device: Arc<dyn Device>,
    pub config: Config,
    pub layout: Layout,
    pub adapter: Option<AdapterLayout>,
    /// All parameters in the layout's order, but those that are packed
    pub weights: Pointer<T>,
    /// Where each tensor of the layout lies
    places: Vec<Place<T>>,
    /// What the next product reads of packed tensors
    unpacked: Pointer<T>,
    /// Every A and B in their layout's order
    pub adapted: Pointer<T>,
    pub(super) cos: Pointer<f32>,
    pub(super) sin: Pointer<f32>,
    /// Of the longest document of a batch
    pub(super) positions: usize,
    memory: Reserved,
}

/// Where a tensor lies.
#[derive(Debug)]
enum Place<T> {
    Values(Pointer<T>),
    /// As NF4, and unpacked whenever a product reads it
    Packed(nf4::cuda::Parts),
}

/// Where gradients are added up: of the adapter in f32, else of all weights in their own type. Each in its layout's order.
#[derive(Clone, Copy, Debug)]
pub enum Gradients<T> {
    Weights(Pointer<T>),
    Adapter(Pointer<f32>),
}

impl<T: Element> Decoder<T> {
    /// Copies `model` to the device, for batches with documents of up to `positions` tokens; sequences that it is to continue may
    /// be as long as the model's context. bf16 weights are rounded. Those that are kept as NF4 stay packed, and a product unpacks what
    /// it reads; those in the types of a GGUF file are unpacked here.
    ///
    /// # Errors
    /// `ZA_DEVICE_UNSUPPORTED` for sizes that no kernel exists for, `ZA_OUT_OF_MEMORY`, `ZA_DEVICE_FAILS`.
    pub fn new(device: Arc<dyn Device>, model: Model, positions: usize) -> Result<Self> {
        let weights = model.weights;
        check_config::<T>(&weights.config)?;
        let table = table(&weights.config, positions);
        let adapter = model.adapter.map(|adapter| adapter.layout.clone());
        let (memory, laid) =
            Arena::reserve(&device, "The model", |arena| lay(arena, weights, adapter.as_ref(), &table))?;
        let mut decoder = Self {
            config: weights.config.clone(),
            layout: weights.layout.clone(),
            adapter,
            weights: laid.weights,
            places: laid.places,
            unpacked: laid.unpacked,
            adapted: laid.adapted,
            cos: laid.cos,
            sin: laid.sin,
            positions,
            memory,
            device,
        };
        decoder.device.upload(&table.cos, laid.cos)?;
        decoder.device.upload(&table.sin, laid.sin)?;
        if let Some(tables) = laid.tables {
            decoder.device.upload(&nf4::cuda::tables(), tables)?;
        }
        decoder.write(model)?;
        Ok(decoder)
    }

    /// Copies the values of `model`, which is of the same shape and storage.
    ///
    /// # Errors
    /// `ZA_DEVICE_FAILS`
    pub fn write(&mut self, model: Model) -> Result<()> {
        let weights = model.weights;
        let mut buffer = Vec::new();
        for (spec, place) in weights.layout.tensors.iter().zip(&mut self.places) {
            let matrix = weights.matrix(&spec.range);
            let to = match (place, matrix) {
                (Place::Values(to), _) => *to,
                (Place::Packed(parts), Matrix::Nf4(values)) => {
                    parts.write(&*self.device, values)?;
                    continue;
                }
                (Place::Packed(_), _) => unreachable!("{} was NF4", spec.name),
            };
            for start in (0..spec.range.len()).step_by(PIECE) {
                buffer.resize(PIECE.min(spec.range.len() - start), 0.0);
                let parts = buffer.par_chunks_mut(PART).enumerate();
                parts.for_each(|(part, values)| matrix.read(start + part * PART, values));
                upload(&*self.device, &buffer, to.offset(start))?;
            }
        }
        if let Some(adapter) = model.adapter {
            upload(&*self.device, &adapter.data, self.adapted)?;
        }
        Ok(())
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// The bytes that a model will take.
    pub fn plan(model: Model, positions: usize) -> usize {
        let weights = model.weights;
        let table = table(&weights.config, positions);
        let adapter = model.adapter.map(|adapter| &adapter.layout);
        Arena::measure(|arena| lay::<T>(arena, weights, adapter, &table))
    }

    /// Where a range of the layout lies as values, one tensor behind the other. What is packed is unpacked for it, behind all that is
    /// queued and always to one place: it stays there until another packed range is asked for.
    pub(super) fn weight(&self, range: &Range<usize>) -> Result<Pointer<T>> {
        let tensors = self.layout.places(range);
        if let Place::Values(values) = self.places[tensors.start] {
            return Ok(values);
        }
        for (place, spec) in self.places[tensors.clone()].iter().zip(&self.layout.tensors[tensors]) {
            let Place::Packed(parts) = place else { unreachable!("tensors of one product have one storage") };
            let out = self.unpacked.offset(spec.range.start - range.start);
            self.device.run(&nf4::cuda::dequantise(parts, 0, spec.range.len(), out))?;
        }
        Ok(self.unpacked)
    }
}

fn table(config: &Config, positions: usize) -> rope::Table {
    rope_table(config, positions.max(config.max_position_embeddings))
}

struct Laid<T> {
    weights: Pointer<T>,
    places: Vec<Place<T>>,
    /// NF4's, where a tensor is packed
    tables: Option<Pointer<f32>>,
    unpacked: Pointer<T>,
    adapted: Pointer<T>,
    cos: Pointer<f32>,
    sin: Pointer<f32>,
}

fn lay<T: Element>(
    arena: &mut Arena,
    model: &Weights,
    adapter: Option<&AdapterLayout>,
    table: &rope::Table,
) -> Laid<T> {
    let layout = &model.layout;
    let is_packed = |spec: &TensorSpec| model.storage().of(spec) == Storage::Nf4;
    let packed: usize = layout.tensors.iter().filter(|spec| is_packed(spec)).map(|spec| spec.range.len()).sum();
    let weights = arena.part("weights", layout.len - packed);
    let tables = (packed > 0).then(|| arena.part("tables", nf4::cuda::tables().len()));
    let groups = layout.layers.iter().flat_map(|layer| Group::ALL.map(|group| group.range(layer).len()));
    let unpacked = arena.part("unpacked", tables.and(groups.max()).unwrap_or(0));
    let mut next = weights;
    let place = |spec: &TensorSpec| match tables {
        Some(tables) if is_packed(spec) => {
            Place::Packed(nf4::cuda::Parts::lay(arena, &spec.name, spec.range.len(), tables))
        }
        _ => {
            let values = next;
            next = next.offset(spec.range.len());
            Place::Values(values)
        }
    };
    Laid {
        weights,
        places: layout.tensors.iter().map(place).collect(),
        tables,
        unpacked,
        adapted: arena.part("adapter", adapter.map_or(0, |layout| layout.len)),
        cos: arena.part("cos", table.cos.len()),
        sin: arena.part("sin", table.sin.len()),
    }
}

/// Refuses what no kernel exists for.
///
/// # Errors
/// `ZA_DEVICE_UNSUPPORTED`
pub fn check_config<T: Element>(config: &Config) -> Result<()> {
    let refuse = |what: String, remedy: &'static str| Err(Error::DeviceUnsupported { what, remedy });
    let Config { hidden_size, head_dim, .. } = *config;
    // Every tensor then begins at a multiple of 16 bytes.
    if !hidden_size.is_multiple_of(8) {
        return refuse(format!("hidden_size {hidden_size}, no multiple of 8,"), "Take the CPU for this model.");
    }
    let widest = 2048 * T::PACK as usize;
    if hidden_size > widest {
        return refuse(format!("hidden_size {hidden_size} above {widest}"), "Take the CPU for this model.");
    }
    if T::LETTER == 'b' && !HEAD_DIMS.contains(&head_dim) {
        return refuse(format!("head_dim {head_dim} in bfloat16"), "Take precision float32, or the CPU.");
    }
    if head_dim > 128 {
        return refuse(format!("head_dim {head_dim} above 128"), "Take the CPU for this model.");
    }
    Ok(())
}

/// Copies f32 values to the device, rounded to its type.
pub fn upload<T: Element>(device: &dyn Device, values: &[f32], to: Pointer<T>) -> std::result::Result<(), DeviceError> {
    let mut rounded = Vec::new();
    for (piece, values) in values.chunks(PIECE).enumerate() {
        values.par_iter().map(|&value| T::from_f32(value)).collect_into_vec(&mut rounded);
        device.upload(&rounded, to.offset(piece * PIECE))?;
    }
    Ok(())
}

/// Waits for them, then copies values of the device as f32: a piece is converted while the next is on its way.
pub fn download<T: Element>(
    device: &dyn Device,
    from: Pointer<T>,
    values: &mut [f32],
) -> std::result::Result<(), DeviceError> {
    let mut held = Vec::new();
    device.download_with(from, values.len(), |range, fetched| {
        held.resize(range.len(), T::default());
        fetched.wait(&mut held)?;
        values[range].par_iter_mut().zip(&held).for_each(|(value, held)| *value = held.to_f32());
        Ok(())
    })
}
