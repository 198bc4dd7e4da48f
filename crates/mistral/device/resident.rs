//! A model that stays on a device to generate and score with.

use std::sync::Arc;

use zephyr_kernels::attention::cuda::HEAD_DIMS;
use zephyr_kernels::cuda::{Bf16, Device, DeviceError, Element};

use super::{Cached, Decoder, Room};
use crate::error::{Error, Result};
use crate::generate::Network;
use crate::model::Model;

/// Weights, adapter, pages and workspace on a device. In bf16; in f32 where no bf16 kernel has the model's head dimension.
#[derive(Debug)]
pub struct Resident(Held);

#[derive(Debug)]
enum Held {
    Bf16(Decoder<Bf16>, Room<Bf16>),
    F32(Decoder<f32>, Room<f32>),
}

fn held<T: Element>(device: Arc<dyn Device>, model: Model, shortage: fn()) -> Result<(Decoder<T>, Room<T>)> {
    let make = || Decoder::new(device.clone(), model, 0);
    let decoder = match make() {
        Err(Error::Device(DeviceError::OutOfMemory { .. })) => {
            shortage();
            make()?
        }
        made => made?,
    };
    let room = Room::new(&decoder, shortage);
    Ok((decoder, room))
}

impl Resident {
    /// Copies `model` to the device; its other memory is taken as it is needed. Where there is none left, `shortage` may make
    /// others give theirs back.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn new(device: Arc<dyn Device>, model: Model, shortage: fn()) -> Result<Self> {
        if HEAD_DIMS.contains(&model.weights.config.head_dim) {
            let (decoder, room) = held(device, model, shortage)?;
            return Ok(Self(Held::Bf16(decoder, room)));
        }
        Self::exact(device, model, shortage)
    }

    /// As [`Resident::new`], in f32.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn exact(device: Arc<dyn Device>, model: Model, shortage: fn()) -> Result<Self> {
        let (decoder, room) = held(device, model, shortage)?;
        Ok(Self(Held::F32(decoder, room)))
    }

    /// Copies the values of `model`, which is of the same shape and storage. What was kept of texts is no longer true.
    ///
    /// # Errors
    /// `ZA_DEVICE_FAILS`
    pub fn write(&mut self, model: Model) -> Result<()> {
        match &mut self.0 {
            Held::Bf16(decoder, _) => decoder.write(model),
            Held::F32(decoder, _) => decoder.write(model),
        }
    }

    /// What a [`Generator`](crate::generate::Generator) drives.
    pub fn network(&mut self) -> Box<dyn Network + '_> {
        match &mut self.0 {
            Held::Bf16(decoder, room) => Box::new(Cached { decoder, room }),
            Held::F32(decoder, room) => Box::new(Cached { decoder, room }),
        }
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Held::Bf16(decoder, room) => decoder.bytes() + room.bytes(),
            Held::F32(decoder, room) => decoder.bytes() + room.bytes(),
        }
    }
}
