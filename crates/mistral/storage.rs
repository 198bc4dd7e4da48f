//! How weights lie in memory: one f32 arena that can be trained, or frozen in fewer bytes.
//!
//! bf16 takes half the memory. NF4 (QLoRA) keeps the projections of the layers at 4.1 bits, embeddings and head as bf16,
//! as transformers does. Of a GGUF file every tensor can stay in the type that it has there. Norms are f32 in any case.
//! Products give f32 ([`zephyr_kernels::matrix`]).

use std::ops::Range;

use rayon::prelude::*;
use zephyr_kernels::matrix::{Matrix, to_bf16};
use zephyr_kernels::nf4::{Nf4, Quantiser};
use zephyr_kernels::quantised::Quantised;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::{Layout, TensorSpec, Weights};
use crate::weights::arena;

/// The form of a model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// 4 bytes each; the only form that can be trained.
    #[default]
    F32,
    /// 2 bytes each, frozen.
    Bf16,
    /// NF4 with double quantisation, frozen.
    Nf4,
    /// As in the GGUF file that it comes from, frozen.
    Gguf,
}

/// All, in the order of the enum.
const STORAGES: [(Storage, &str); 4] =
    [(Storage::F32, "float32"), (Storage::Bf16, "bfloat16"), (Storage::Nf4, "nf4"), (Storage::Gguf, "gguf")];

impl Storage {
    /// `float32`, `bfloat16`, `nf4`, `gguf`.
    pub fn name(self) -> &'static str {
        STORAGES[self as usize].1
    }

    /// The storage of that name.
    pub fn parse(name: &str) -> Option<Self> {
        STORAGES.iter().find(|(_, own)| *own == name).map(|(storage, _)| *storage)
    }

    /// The form of one tensor in a model of this one.
    pub(crate) fn of(self, spec: &TensorSpec) -> Self {
        match self {
            _ if spec.shape.len() == 1 => Self::F32,
            Self::Nf4 if !spec.name.contains(".layers.") => Self::Bf16,
            storage => storage,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Tensor {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
    Nf4(Nf4),
    Quantised(Quantised),
}

impl Tensor {
    fn matrix(&self) -> Matrix<'_> {
        match self {
            Self::F32(values) => Matrix::F32(values),
            Self::Bf16(values) => Matrix::Bf16(values),
            Self::F16(values) => Matrix::F16(values),
            Self::Nf4(values) => Matrix::Nf4(values),
            Self::Quantised(values) => Matrix::Quantised(values),
        }
    }
}

/// Weights that are not trained, tensor by tensor in the layout's order.
#[derive(Clone, Debug)]
pub struct Frozen {
    storage: Storage,
    tensors: Vec<Tensor>,
}

/// Values of a table that are in memory as f32 at one time while it is converted; whole blocks of any quantised type.
const PIECE: usize = 1 << 20;

/// Takes the values of a tensor one part after the other: a large table in pieces, a projection at once.
fn stored(
    storage: Storage,
    spec: &TensorSpec,
    buffer: &mut Vec<f32>,
    mut read: impl FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<Tensor> {
    let len = spec.range.len();
    let piece = if spec.name.contains(".layers.") { len } else { PIECE };
    let mut tensor = match storage.of(spec) {
        Storage::F32 => {
            let mut values = vec![0.0; len];
            read(0, &mut values)?;
            return Ok(Tensor::F32(values));
        }
        Storage::Bf16 => Building::Bf16(Vec::with_capacity(len)),
        Storage::Nf4 => Building::Nf4(Quantiser::with_capacity(len)),
        Storage::Gguf => return Err(only_kept(&spec.name)),
    };
    for start in (0..len).step_by(piece.max(1)) {
        let count = piece.min(len - start);
        buffer.resize(buffer.len().max(count), 0.0);
        let values = &mut buffer[..count];
        read(start, values)?;
        match &mut tensor {
            Building::Bf16(halves) => halves.par_extend(values.par_iter().map(|&value| to_bf16(value))),
            Building::Nf4(quantiser) => quantiser.push(values),
        }
    }
    Ok(match tensor {
        Building::Bf16(halves) => Tensor::Bf16(halves),
        Building::Nf4(quantiser) => Tensor::Nf4(quantiser.finish()),
    })
}

/// Block types of GGUF are read, not made.
fn only_kept(place: &str) -> Error {
    Error::Unsupported {
        place: place.to_string(),
        what: "keeping weights as they are in a GGUF file, where they do not come from one,".to_string(),
        remedy: "Load a .gguf file, or take float32, bfloat16 or nf4.".to_string(),
    }
}

enum Building {
    Bf16(Vec<u16>),
    Nf4(Quantiser),
}

/// A model that is put together tensor by tensor, in any order.
pub(crate) struct Unfinished {
    config: Config,
    layout: Layout,
    storage: Storage,
    data: Vec<f32>,
    /// In the layout's order; empty for [`Storage::F32`].
    tensors: Vec<Option<Tensor>>,
    buffer: Vec<f32>,
}

impl Unfinished {
    /// `what` names the model in messages.
    ///
    /// # Errors
    /// `ZA_OUT_OF_MEMORY`.
    pub fn new(config: Config, layout: Layout, storage: Storage, what: &str) -> Result<Self> {
        let (data, tensors) = match storage {
            Storage::F32 => (arena(layout.len, what)?, 0),
            _ => (Vec::new(), layout.tensors.len()),
        };
        let tensors = (0..tensors).map(|_| None).collect();
        Ok(Self { config, layout, storage, data, tensors, buffer: Vec::new() })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Converts the tensor at that place of the layout. The reader is asked for parts of it (first value, values wanted): a
    /// projection at once, a large table in pieces, so that frozen weights are never whole in memory as f32.
    ///
    /// # Errors
    /// The reader's, and `ZA_MODEL_UNSUPPORTED` for [`Storage::Gguf`].
    pub fn read(&mut self, place: usize, mut read: impl FnMut(usize, &mut [f32]) -> Result<()>) -> Result<()> {
        let spec = &self.layout.tensors[place];
        if self.storage == Storage::F32 {
            return read(0, &mut self.data[spec.range.clone()]);
        }
        self.tensors[place] = Some(stored(self.storage, spec, &mut self.buffer, read)?);
        Ok(())
    }

    /// Takes a tensor as a file has it.
    pub fn keep(&mut self, place: usize, tensor: Tensor) {
        self.tensors[place] = Some(tensor);
    }

    /// The model; every tensor is there.
    pub fn finish(self) -> Weights {
        let Self { config, layout, storage, data, tensors, .. } = self;
        let tensors =
            || tensors.into_iter().map(|tensor| tensor.unwrap_or_else(|| unreachable!("a tensor is missing")));
        let frozen = (storage != Storage::F32).then(|| Frozen { storage, tensors: tensors().collect() });
        Weights { config, layout, data, frozen }
    }
}

impl Weights {
    /// Builds a model from a reader of parts of tensors (place in the layout, first value, values wanted), which is asked
    /// tensor by tensor, as [`Unfinished::read`] does.
    ///
    /// # Errors
    /// The reader's, `ZA_OUT_OF_MEMORY`, and `ZA_MODEL_UNSUPPORTED` for [`Storage::Gguf`].
    pub(crate) fn read_with(
        config: Config,
        layout: Layout,
        storage: Storage,
        what: &str,
        mut read: impl FnMut(usize, usize, &mut [f32]) -> Result<()>,
    ) -> Result<Self> {
        if storage == Storage::Gguf {
            return Err(only_kept(what));
        }
        let places = layout.tensors.len();
        let mut model = Unfinished::new(config, layout, storage, what)?;
        for place in 0..places {
            model.read(place, |start, out| read(place, start, out))?;
        }
        Ok(model.finish())
    }

    /// The same model in another form. Going to fewer bits rounds; coming back gives the rounded values.
    ///
    /// # Errors
    /// `ZA_OUT_OF_MEMORY`, and `ZA_MODEL_UNSUPPORTED` for [`Storage::Gguf`].
    pub fn converted(&self, storage: Storage) -> Result<Self> {
        let (config, layout) = (self.config.clone(), self.layout.clone());
        Self::read_with(config, layout, storage, "The converted model", |index, start, out| {
            self.read(&self.layout.tensors[index], start, out);
            Ok(())
        })
    }

    /// How the weights are kept.
    pub fn storage(&self) -> Storage {
        self.frozen.as_ref().map_or(Storage::F32, |frozen| frozen.storage)
    }

    /// The address of the first value's array.
    pub(crate) fn place_in_memory(&self) -> usize {
        self.frozen.as_ref().map_or(self.data.as_ptr() as usize, |frozen| frozen.tensors.as_ptr() as usize)
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> usize {
        let frozen = |frozen: &Frozen| {
            let bytes = frozen.tensors.iter().map(|tensor| match tensor {
                Tensor::F32(values) => size_of_val(&values[..]),
                Tensor::Bf16(values) | Tensor::F16(values) => size_of_val(&values[..]),
                Tensor::Nf4(values) => values.bytes(),
                Tensor::Quantised(values) => values.bytes(),
            });
            bytes.sum()
        };
        self.frozen.as_ref().map_or(size_of_val(&self.data[..]), frozen)
    }

    /// A norm's weight. `range` is a tensor of the layout.
    pub(crate) fn vector(&self, range: &Range<usize>) -> &[f32] {
        match self.matrix(range) {
            Matrix::F32(values) => values,
            _ => unreachable!("norms are f32 in every storage"),
        }
    }

    /// A whole tensor of the layout.
    pub fn matrix(&self, range: &Range<usize>) -> Matrix<'_> {
        match &self.frozen {
            None => Matrix::F32(&self.data[range.clone()]),
            Some(frozen) => frozen.tensors[self.layout.places(range).start].matrix(),
        }
    }

    /// The output projection, `[V, h]`.
    pub fn head(&self) -> Matrix<'_> {
        self.matrix(&self.layout.lm_head)
    }

    /// A range of neighbouring tensors with one row length, as one matrix or as several from top to bottom.
    pub(crate) fn matrices(&self, range: &Range<usize>) -> impl Iterator<Item = Matrix<'_>> {
        let places = match &self.frozen {
            None => 0..1,
            Some(_) => self.layout.places(range),
        };
        places.map(move |place| match &self.frozen {
            None => Matrix::F32(&self.data[range.clone()]),
            Some(frozen) => frozen.tensors[place].matrix(),
        })
    }

    /// Rows of the embedding, `[T, h]`.
    pub(crate) fn embed(&self, ids: &[u32], out: &mut [f32]) {
        let (width, table) = (self.config.hidden_size, self.matrix(&self.layout.embed));
        out.par_chunks_mut(width).zip(ids).for_each(|(out, &id)| table.read(id as usize * width, out));
    }

    /// The values `[start, start + out.len())` of a tensor of the layout, as f32.
    pub fn read(&self, spec: &TensorSpec, start: usize, out: &mut [f32]) {
        self.matrix(&spec.range).read(start, out);
    }
}

#[cfg(test)]
mod test;
