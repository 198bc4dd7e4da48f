//! Tensors in the types that they have in the file, repacked for the products.

use super::super::read_at::ReadAt;
use super::super::{CHUNK, arena};
use super::ggml::{self, GgmlDType, dequantised, kind};
use super::model::{deinterleave_heads, interleaved_row};
use super::{Gguf, TensorInfo};
use crate::error::{Error, Result};
use crate::storage::{Storage, Tensor};
use rayon::prelude::*;
use std::path::Path;
use zephyr_kernels::quantised::Quantised;

/// Whether a path is a GGUF file with quantised tensors, all of them of types that can be kept.
///
/// # Errors
/// Those of [`Gguf::open`].
pub fn keeps(path: &Path) -> Result<bool> {
    if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) || !path.is_file() {
        return Ok(false);
    }
    Ok(keeps_tensors(&Gguf::open(path)?.tensors))
}

/// The same of the tensors of a file.
pub(in crate::weights) fn keeps_tensors(tensors: &[TensorInfo]) -> bool {
    tensors.iter().any(|tensor| tensor.dtype.block_size() > 1) && tensors.iter().all(|tensor| ggml::kept(tensor.dtype))
}

/// Bytes in memory of a tensor that is kept as it is.
pub(in crate::weights) fn kept_bytes(tensor: &TensorInfo) -> u64 {
    let columns = tensor.shape.last().copied().unwrap_or(0).max(1);
    let values: usize = tensor.shape.iter().product();
    match kind(tensor.dtype) {
        Some(kind) if tensor.shape.len() > 1 => Quantised::bytes_of(kind, values / columns, columns) as u64,
        _ if tensor.shape.len() == 1 => 4 * values as u64,
        _ => tensor.range.end - tensor.range.start,
    }
}

/// That the tensors can be kept in that form, by their types alone.
///
/// # Errors
/// `ZA_MODEL_UNSUPPORTED`.
pub(in crate::weights) fn check_types<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = &'a TensorInfo>,
    storage: Storage,
) -> Result<()> {
    let kept = storage == Storage::Gguf;
    let known = |tensor: &TensorInfo| match tensor.dtype {
        // Norms are vectors, and f32 whatever they were.
        dtype if kept && tensor.shape.len() > 1 => ggml::kept(dtype),
        dtype => dequantised(dtype),
    };
    let unknown = tensors.into_iter().find(|tensor| !known(tensor));
    unknown.map_or(Ok(()), |tensor| Err(unsupported(path, tensor, kept)))
}

fn unsupported(path: &Path, tensor: &TensorInfo, kept: bool) -> Error {
    // Without candle there is nothing to dequantise the rest with.
    let (how, otherwise) = match (kept, cfg!(target_arch = "wasm32")) {
        (true, false) => (", kept as it is,", "Load the file as float32 or bfloat16, or take"),
        (_, true) => (" in WebAssembly", "Load the file by the native package, or take"),
        (false, false) => ("", "Take"),
    };
    Error::Unsupported {
        place: path.display().to_string(),
        what: format!("the type {} of tensor `{}`{how}", name_of(tensor.dtype), tensor.name),
        remedy: format!("{otherwise} one in F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K."),
    }
}

/// As llama.cpp spells it: Q2_K.
fn name_of(dtype: GgmlDType) -> String {
    let name = format!("{dtype:?}");
    name.strip_suffix('K').map_or(name.clone(), |bits| format!("{bits}_K"))
}

impl<R: ReadAt> Gguf<R> {
    /// A tensor as it is. `interleaved`: its rows are heads of that size in llama.cpp's order, and come out in transformers'.
    ///
    /// # Errors
    /// `ZA_MODEL_UNSUPPORTED` for a type without products, `ZA_OUT_OF_MEMORY`, `ZA_IO`.
    pub(super) fn keep(&self, tensor: &TensorInfo, interleaved: Option<usize>) -> Result<Tensor> {
        let what = || format!("Tensor `{}` of {}", tensor.name, self.path.display());
        let values: usize = tensor.shape.iter().product();
        let columns = tensor.shape.last().copied().unwrap_or(0);
        // Norms are vectors, and f32 whatever they were.
        if tensor.shape.len() == 1 || tensor.dtype == GgmlDType::F32 {
            let mut floats = arena(values, &what())?;
            self.dequantize(tensor, 0, &mut floats)?;
            if let Some(head_dim) = interleaved {
                deinterleave_heads(&mut floats, head_dim, columns);
            }
            return Ok(Tensor::F32(floats));
        }
        if matches!(tensor.dtype, GgmlDType::F16 | GgmlDType::BF16) {
            let mut halves = arena(values, &what())?;
            let read = self.rows(tensor, 2 * columns, interleaved)?;
            let rows = (CHUNK / columns.max(1)).max(1);
            halves.par_chunks_mut((rows * columns).max(1)).enumerate().try_for_each(
                |(piece, halves)| -> Result<()> {
                    let mut bytes = vec![0; 2 * halves.len()];
                    read(piece * rows, &mut bytes)?;
                    for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *half = u16::from_le_bytes(*bytes);
                    }
                    Ok(())
                },
            )?;
            return Ok(if tensor.dtype == GgmlDType::F16 { Tensor::F16(halves) } else { Tensor::Bf16(halves) });
        }
        let dtype = tensor.dtype;
        let kind = kind(dtype).ok_or_else(|| unsupported(&self.path, tensor, true))?;
        let rows = values / columns.max(1);
        // Asked for once before, and given back: a refusal is an error, not the end of the process.
        arena::<u8>(Quantised::bytes_of(kind, rows, columns), &what())?;
        let read = self.rows(tensor, kind.row_bytes(columns), interleaved)?;
        Ok(Tensor::Quantised(Quantised::pack(kind, rows, columns, read)?))
    }

    /// Reads rows of so many bytes in our order. Heads come from a copy of the tensor, as their rows lie apart.
    fn rows<'a>(
        &'a self,
        tensor: &'a TensorInfo,
        row_bytes: usize,
        interleaved: Option<usize>,
    ) -> Result<impl Fn(usize, &mut [u8]) -> Result<()> + Sync + 'a> {
        let range = tensor.range.clone();
        let (source, path) = self.source(tensor);
        let read = move |start: u64, bytes: &mut [u8]| {
            source.read_exact_at(bytes, start).map_err(|error| Error::io(path, "read", error))
        };
        let mut copy = Vec::new();
        if interleaved.is_some() {
            copy = arena((range.end - range.start) as usize, &format!("Tensor `{}`", tensor.name))?;
            copy.par_chunks_mut(CHUNK)
                .enumerate()
                .try_for_each(|(piece, bytes)| read(range.start + (piece * CHUNK) as u64, bytes))?;
        }
        Ok(move |first: usize, bytes: &mut [u8]| {
            let Some(head_dim) = interleaved else { return read(range.start + (first * row_bytes) as u64, bytes) };
            for (row, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                bytes.copy_from_slice(&copy[interleaved_row(first + row, head_dim) * row_bytes..][..row_bytes]);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod test;
