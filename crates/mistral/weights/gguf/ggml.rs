//! ggml's types, and the values of their blocks. candle knows all of them; WebAssembly, where its size and minutes of building
//! count, takes those that have products of our own, by the kernels that the products use: the same values bit for bit.

use zephyr_kernels::quantised::Kind;

#[cfg(not(target_arch = "wasm32"))]
pub use candle_core::quantized::GgmlDType;

/// Of the bytes given to [`blocks_to_floats`].
pub(super) const BLOCK_ALIGNMENT: usize = 8;

/// What of a file can be kept as it is.
pub(super) fn kind(dtype: GgmlDType) -> Option<Kind> {
    Some(match dtype {
        GgmlDType::Q4_0 => Kind::Q4_0,
        GgmlDType::Q4_1 => Kind::Q4_1,
        GgmlDType::Q5_0 => Kind::Q5_0,
        GgmlDType::Q5_1 => Kind::Q5_1,
        GgmlDType::Q8_0 => Kind::Q8_0,
        GgmlDType::Q4K => Kind::Q4_K,
        GgmlDType::Q5K => Kind::Q5_K,
        GgmlDType::Q6K => Kind::Q6_K,
        _ => return None,
    })
}

/// Whether a matrix of the type can be kept: a plain one, or one that has products.
pub(super) fn kept(dtype: GgmlDType) -> bool {
    dtype.block_size() == 1 || kind(dtype).is_some()
}

/// Whether [`blocks_to_floats`] knows the type.
pub(super) fn dequantised(dtype: GgmlDType) -> bool {
    cfg!(not(target_arch = "wasm32")) || kept(dtype)
}

/// The values of whole blocks.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn blocks_to_floats(dtype: GgmlDType, bytes: &[u8], elements: usize) -> candle_core::Result<Vec<f32>> {
    use candle_core::quantized::{QStorage, QTensor};
    use candle_core::{CpuStorage, Device, Storage};
    let storage = QStorage::from_data(std::borrow::Cow::Borrowed(bytes), &Device::Cpu, dtype)?;
    let tensor = QTensor::new(storage, elements)?.dequantize(&Device::Cpu)?;
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(values.clone()),
        _ => candle_core::bail!("candle gave something else than f32 on the CPU"),
    }
}

/// The values of whole blocks.
#[cfg(target_arch = "wasm32")]
pub(super) fn blocks_to_floats(dtype: GgmlDType, bytes: &[u8], elements: usize) -> Result<Vec<f32>, String> {
    use zephyr_kernels::quantised::Quantised;
    let kind = kind(dtype).ok_or_else(|| format!("{dtype:?} is not read in WebAssembly"))?;
    // A group of rows is packed together: one row of all blocks would be packed with fifteen of zeros.
    let rows = if elements.is_multiple_of(16 * kind.block_len()) { 16 } else { 1 };
    let row_bytes = bytes.len() / rows;
    let packed = Quantised::pack(kind, rows, elements / rows, |first, out: &mut [u8]| {
        out.copy_from_slice(&bytes[first * row_bytes..][..out.len()]);
        Ok::<(), String>(())
    })?;
    let mut values = vec![0.0; elements];
    packed.read(0, &mut values);
    Ok(values)
}

/// A type of ggml, under candle's names.
#[cfg(target_arch = "wasm32")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlDType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

#[cfg(target_arch = "wasm32")]
impl GgmlDType {
    /// Values of a block.
    pub fn block_size(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn type_size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q2K => 84,
            Self::Q3K => 110,
            _ => kind(self).map_or(0, Kind::block_bytes),
        }
    }
}
