//! GGUF (llama.cpp's container), read with our own guards.
//!
//! candle dequantises the blocks, but does not read the header: an alignment of 0 and dimensions whose product wraps
//! get past its checks. Specification: `docs/gguf.md` of ggml.

mod cursor;
mod export;
mod ggml;
mod keep;
mod model;
mod split;
mod value;
mod write;

pub use export::{Description, Exported, FileType, export};
pub use keep::keeps;
pub(super) use keep::{check_types, keeps_tensors, kept_bytes};
pub(super) use model::Plan;
pub use model::{from_gguf, load};
pub use value::Value;

use super::read_at::ReadAt;
use crate::error::{Error, Result};
use cursor::Cursor;
use ggml::GgmlDType;
use serde_json::Map;
use std::ops::Range;
use std::path::{Path, PathBuf};
use write::ALIGNMENT;

const MAX_TENSORS: u64 = 1 << 17;
const MAX_KEYS: u64 = 1 << 14;
/// GGML_MAX_NAME is 64; some writers go above it.
const MAX_NAME: u64 = 1024;
const MAX_RANK: u32 = 4;
const MAX_ALIGNMENT: u64 = 1 << 16;
/// The largest vocabularies have some 300 000 tokens with as many types and scores, and somewhat more merges.
const MAX_DECODED: u64 = 4 << 20;

/// ggml's numbers of the types that candle can dequantise.
const TYPES: [(u32, GgmlDType); 13] = [
    (0, GgmlDType::F32),
    (1, GgmlDType::F16),
    (2, GgmlDType::Q4_0),
    (3, GgmlDType::Q4_1),
    (6, GgmlDType::Q5_0),
    (7, GgmlDType::Q5_1),
    (8, GgmlDType::Q8_0),
    (10, GgmlDType::Q2K),
    (11, GgmlDType::Q3K),
    (12, GgmlDType::Q4K),
    (13, GgmlDType::Q5K),
    (14, GgmlDType::Q6K),
    (30, GgmlDType::BF16),
];

#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: GgmlDType,
    /// Row-major, outermost first (the reverse of the file's order).
    pub shape: Vec<usize>,
    /// Bytes in the file, counted from its start.
    pub range: Range<u64>,
    /// The file, of a split model.
    part: usize,
}

/// An open GGUF file whose header has been checked, or all files of a split one.
pub struct Gguf<R> {
    /// Of the first file.
    pub path: PathBuf,
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<TensorInfo>,
    parts: Vec<(PathBuf, R)>,
}

impl<R: ReadAt> Gguf<R> {
    /// Reads and checks the header; values of arrays stay in the file until they are asked for.
    ///
    /// # Errors
    /// `ZA_MODEL_FORMAT`, `ZA_MODEL_UNSUPPORTED` (version, byte order, tensor type), `ZA_IO`.
    pub fn read(source: R, path: &Path) -> Result<Gguf<R>> {
        let mut cursor = Cursor::new(&source, path)?;
        if cursor.bytes::<4>()? != *b"GGUF" {
            return Err(cursor.fail("the file does not start with `GGUF`"));
        }
        let unsupported = |what: String, remedy: &str| Error::Unsupported {
            place: path.display().to_string(),
            what,
            remedy: remedy.to_string(),
        };
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            let what = if (2..=3).contains(&version.swap_bytes()) {
                "a GGUF file in big-endian byte order".to_string()
            } else {
                format!("version {version} of GGUF")
            };
            return Err(unsupported(what, "Convert the model again with a current llama.cpp."));
        }
        let tensor_count = cursor.u64()?;
        let key_count = cursor.u64()?;
        if tensor_count > MAX_TENSORS || key_count > MAX_KEYS {
            return Err(cursor.fail(&format!(
                "the header claims {tensor_count} tensors and {key_count} keys (limits {MAX_TENSORS} and {MAX_KEYS})"
            )));
        }
        let mut metadata: Vec<(String, Value)> = Vec::new();
        for _ in 0..key_count {
            let key = cursor.string(MAX_NAME)?;
            let value = Value::read(&mut cursor)?;
            metadata.push((key, value));
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(tensor_info(&mut cursor, &unsupported)?);
        }
        let alignment = match metadata.iter().find(|(key, _)| key == "general.alignment") {
            None => ALIGNMENT as u64,
            Some((_, value)) => value.as_u64().unwrap_or(0),
        };
        if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
            return Err(cursor
                .fail(&format!("general.alignment is {alignment}, which is no power of two up to {MAX_ALIGNMENT}")));
        }
        let data_start = cursor.position().next_multiple_of(alignment);
        place_tensors(&mut tensors, data_start, alignment, cursor.size()).map_err(|problem| cursor.fail(&problem))?;
        check_names(&metadata, &tensors).map_err(|problem| cursor.fail(&problem))?;
        Ok(Gguf { path: path.to_path_buf(), metadata, tensors, parts: vec![(path.to_path_buf(), source)] })
    }

    /// Where a tensor's bytes are.
    fn source(&self, tensor: &TensorInfo) -> (&R, &Path) {
        let (path, source) = &self.parts[tensor.part];
        (source, path)
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The `tokenizer.*` keys as JSON, for the text crate.
    ///
    /// # Errors
    /// `ZA_MODEL_FORMAT`, `ZA_IO`.
    pub fn tokenizer_metadata(&self) -> Result<Map<String, serde_json::Value>> {
        let (path, source) = &self.parts[0];
        let mut cursor = Cursor::new(source, path)?;
        let mut out = Map::new();
        let mut elements = 0;
        for (key, value) in self.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
            // A list of bytes takes seventy times its size as JSON.
            elements += value.elements();
            if elements > MAX_DECODED {
                let problem = format!("the keys up to `{key}` have {elements} elements (limit {MAX_DECODED})");
                return Err(cursor.fail(&problem));
            }
            out.insert(key.clone(), value.to_json(&mut cursor)?);
        }
        Ok(out)
    }
}

/// Reads one entry of the tensor table; its range is relative to the data, and has length and offset only.
fn tensor_info<R: ReadAt>(cursor: &mut Cursor<R>, unsupported: &impl Fn(String, &str) -> Error) -> Result<TensorInfo> {
    let name = cursor.string(MAX_NAME)?;
    let rank = cursor.u32()?;
    if rank == 0 || rank > MAX_RANK {
        return Err(cursor.fail(&format!("tensor `{name}` has {rank} dimensions (1 to {MAX_RANK} are possible)")));
    }
    let mut shape = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        let dimension = cursor.u64()?;
        shape.push(
            usize::try_from(dimension)
                .map_err(|_| cursor.fail(&format!("a dimension of tensor `{name}` is {dimension}")))?,
        );
    }
    let kind = cursor.u32()?;
    let offset = cursor.u64()?;
    let dtype = tensor_type(kind).map_err(|found| {
        unsupported(
            format!("the type {found} of tensor `{name}`"),
            "Take a file in F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K.",
        )
    })?;
    let block = dtype.block_size();
    let overflow = || cursor.fail(&format!("the size of tensor `{name}` with dimensions {shape:?} overflows"));
    let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size)).ok_or_else(overflow)?;
    if !shape[0].is_multiple_of(block) {
        return Err(cursor.fail(&format!(
            "the rows of tensor `{name}` have {} values, which is no multiple of the {block} of a {dtype:?} block",
            shape[0]
        )));
    }
    let bytes = (elements / block).checked_mul(dtype.type_size()).ok_or_else(overflow)? as u64;
    let end = offset.checked_add(bytes).ok_or_else(overflow)?;
    shape.reverse();
    Ok(TensorInfo { name, dtype, shape, range: offset..end, part: 0 })
}

/// Checks alignment, extent and overlap, and makes the ranges absolute.
fn place_tensors(
    tensors: &mut [TensorInfo],
    data_start: u64,
    alignment: u64,
    size: u64,
) -> std::result::Result<(), String> {
    for TensorInfo { name, range, .. } in tensors.iter_mut() {
        if range.start % alignment != 0 {
            return Err(format!("tensor `{name}` lies at offset {}, off the alignment of {alignment}", range.start));
        }
        let end = range.end.checked_add(data_start).filter(|end| *end <= size);
        let end = end.ok_or_else(|| {
            format!(
                "tensor `{name}` ends at byte {} of the data, but the file has {} bytes of data: it is cut off",
                range.end,
                size.saturating_sub(data_start)
            )
        })?;
        *range = range.start + data_start..end;
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().filter(|tensor| !tensor.range.is_empty()).collect();
    order.sort_by_key(|tensor| tensor.range.start);
    match order.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        Some(pair) => Err(format!("the tensors `{}` and `{}` overlap", pair[0].name, pair[1].name)),
        None => Ok(()),
    }
}

fn check_names(metadata: &[(String, Value)], tensors: &[TensorInfo]) -> std::result::Result<(), String> {
    let keys = metadata.iter().map(|(key, _)| key.as_str()).collect();
    let names = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    for (what, mut list) in [("key", keys), ("tensor name", names)] as [(&str, Vec<&str>); 2] {
        list.sort_unstable();
        if let Some(pair) = list.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("the {what} `{}` occurs twice", pair[0]));
        }
    }
    Ok(())
}

/// ggml's type number; what candle cannot dequantise comes back as its name.
fn tensor_type(kind: u32) -> std::result::Result<GgmlDType, String> {
    const OTHERS: [(u32, &str); 22] = [
        (9, "Q8_1"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (29, "IQ1_M"),
        (31, "Q4_0_4_4"),
        (32, "Q4_0_4_8"),
        (33, "Q4_0_8_8"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
        (39, "MXFP4"),
    ];
    if let Some((_, dtype)) = TYPES.iter().find(|(number, _)| *number == kind) {
        return Ok(*dtype);
    }
    let name = OTHERS.iter().find(|(number, _)| *number == kind);
    Err(name.map_or(kind.to_string(), |(_, name)| name.to_string()))
}

fn number_of(dtype: GgmlDType) -> u32 {
    let found = TYPES.iter().find(|(_, own)| *own == dtype);
    found.map_or_else(|| unreachable!("{dtype:?} is in no file"), |(number, _)| *number)
}
