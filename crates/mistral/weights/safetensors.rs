//! The safetensors container: a guarded reader of header and values.
//!
//! The rules are those of the `safetensors` crate (offsets contiguous from 0, the whole file covered, so that no
//! second file hides in a hole; header up to 100 MB; no duplicate names), and caps on counts, names and ranks, so
//! that a hostile header costs no more memory than a few times the file.

use super::CHUNK;
use super::read_at::ReadAt;
use crate::error::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
pub use safetensors::Dtype;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

const MAX_HEADER: u64 = 100_000_000;
const MAX_TENSORS: usize = 1 << 18;
const MAX_METADATA: usize = 1 << 14;
const MAX_NAME: usize = 1024;
const MAX_RANK: usize = 8;

/// The types that can be read as weights.
pub const WEIGHT_DTYPES: &str = "F32, F16, BF16";

/// The start of a file that is being written: what lies where.
#[derive(Debug, Default)]
pub struct HeaderBuilder {
    entries: Map<String, Value>,
    /// Bytes of all values so far.
    end: usize,
}

impl HeaderBuilder {
    /// A header with that metadata; without any it has no entry for it.
    pub fn new(metadata: &[(&str, &str)]) -> Self {
        let mut header = Self::default();
        if !metadata.is_empty() {
            let words: Map<String, Value> = metadata.iter().map(|&(key, word)| (key.to_owned(), json!(word))).collect();
            header.entries.insert("__metadata__".to_owned(), Value::Object(words));
        }
        header
    }

    /// A tensor of that many bytes behind those before it. Returns whether its name is new.
    pub fn add(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: usize) -> bool {
        let start = self.end;
        self.end += bytes;
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, self.end] });
        self.entries.insert(name.to_owned(), entry).is_none()
    }

    /// Its length and text, padded so that the values start at a multiple of 8 bytes.
    pub fn bytes(self) -> Vec<u8> {
        let mut text = Value::Object(self.entries).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text);
        bytes
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes in the file, counted from its start.
    pub range: Range<u64>,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Header {
    /// In the order of the header.
    pub tensors: Vec<TensorInfo>,
    /// `__metadata__`, in the order of the header.
    pub metadata: Vec<(String, String)>,
}

impl Header {
    /// Reads and checks a header; `place` names the file in messages.
    ///
    /// # Errors
    /// `ZA_MODEL_FORMAT`, `ZA_IO`.
    pub fn read(source: &impl ReadAt, place: &Path) -> Result<Header> {
        let name = place.display().to_string();
        let fail = |problem: String| Error::format(&name, problem);
        let io = |error| Error::io(place, "read", error);
        let size = source.size().map_err(io)?;
        if size < 8 {
            return Err(fail(format!("{size} bytes are too few for a safetensors file")));
        }
        let mut length = [0u8; 8];
        source.read_exact_at(&mut length, 0).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > size - 8 {
            return Err(fail(format!(
                "the header claims {length} bytes, the file has {size} (and {MAX_HEADER} is the limit): this is no safetensors file, or it is cut off"
            )));
        }
        let mut text = vec![0u8; length as usize];
        source.read_exact_at(&mut text, 8).map_err(io)?;
        if text.first() != Some(&b'{') {
            return Err(fail("the header does not start with `{`".to_string()));
        }
        let mut header: Header =
            serde_json::from_slice(&text).map_err(|error| fail(format!("the header cannot be read ({error})")))?;
        header.check(8 + length, size).map_err(fail)?;
        Ok(header)
    }

    /// Checks extents against shapes and the file, and makes ranges absolute.
    fn check(&mut self, data_start: u64, size: u64) -> std::result::Result<(), String> {
        let data_length = size - data_start;
        for tensor in &self.tensors {
            let name = &tensor.name;
            let bits = tensor
                .shape
                .iter()
                .try_fold(1usize, |product, dimension| product.checked_mul(*dimension))
                .and_then(|elements| (elements as u64).checked_mul(tensor.dtype.bitsize() as u64))
                .ok_or_else(|| format!("the size of tensor `{name}` with shape {:?} overflows", tensor.shape))?;
            let Range { start, end } = tensor.range;
            if start > end || end > data_length {
                return Err(format!(
                    "tensor `{name}` lies at bytes {start}..{end} of {data_length} bytes of data: the file is cut off, or the header is wrong"
                ));
            }
            if bits % 8 != 0 || bits / 8 != end - start {
                return Err(format!(
                    "tensor `{name}` has {} bytes, but {} of shape {:?} needs {}",
                    end - start,
                    tensor.dtype,
                    tensor.shape,
                    bits.div_ceil(8)
                ));
            }
        }
        let mut order: Vec<&TensorInfo> = self.tensors.iter().collect();
        order.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
        let mut covered = 0;
        for tensor in order {
            if tensor.range.start != covered {
                let what = if tensor.range.start < covered {
                    "overlaps the tensor before it"
                } else {
                    "leaves a hole before it"
                };
                return Err(format!("tensor `{}` {what} (byte {})", tensor.name, tensor.range.start));
            }
            covered = tensor.range.end;
        }
        if covered != data_length {
            return Err(format!("the tensors cover {covered} bytes, the file has {data_length} bytes of data"));
        }
        let mut names: Vec<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("the tensor name `{}` occurs twice", pair[0]));
        }
        for tensor in &mut self.tensors {
            tensor.range = data_start + tensor.range.start..data_start + tensor.range.end;
        }
        Ok(())
    }
}

/// An open file: what it holds, and its values on request.
#[derive(Debug)]
pub struct SafeTensorsFile {
    pub path: PathBuf,
    pub header: Header,
    /// Places in the header.
    by_name: HashMap<String, usize>,
    file: File,
}

impl SafeTensorsFile {
    pub fn open(path: &Path) -> Result<SafeTensorsFile> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::ModelNotFound { path: path.to_path_buf(), problem: "there is no such file".to_string() }
            }
            _ => Error::io(path, "open it", error),
        })?;
        let header = Header::read(&file, path)?;
        let by_name = header.tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
        Ok(SafeTensorsFile { path: path.to_path_buf(), header, by_name, file })
    }

    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    pub fn metadata(&self) -> &[(String, String)] {
        &self.header.metadata
    }

    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|place| &self.header.tensors[*place])
    }

    /// The values of an F32, F16 or BF16 tensor.
    ///
    /// # Errors
    /// `ZA_TENSOR_MISSING`, `ZA_TENSOR_DTYPE`, `ZA_IO`.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.require(name)?;
        let mut out = super::arena(tensor.elements(), name)?;
        self.read_into(tensor, &mut out)?;
        Ok(out)
    }

    /// The stored little-endian bytes of a tensor of any type.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let range = &self.require(name)?.range;
        let mut out = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut out, range.start).map_err(|error| Error::io(&self.path, "read", error))?;
        Ok(out)
    }

    /// Reads a tensor into `out`, which has its number of elements.
    pub fn read_into(&self, tensor: &TensorInfo, out: &mut [f32]) -> Result<()> {
        self.read_part(tensor, 0, out)
    }

    /// Reads the elements `[start, start + out.len())` of a tensor.
    pub fn read_part(&self, tensor: &TensorInfo, start: usize, out: &mut [f32]) -> Result<()> {
        let dtype = FloatType::of(tensor.dtype).ok_or_else(|| Error::TensorDtype {
            place: self.path.display().to_string(),
            tensor: tensor.name.clone(),
            found: tensor.dtype.to_string(),
            accepted: WEIGHT_DTYPES,
        })?;
        let first = tensor.range.start + (start * dtype.bytes()) as u64;
        read_floats(&self.file, dtype, first, out).map_err(|error| Error::io(&self.path, "read", error))
    }

    fn require(&self, name: &str) -> Result<&TensorInfo> {
        self.find(name).ok_or_else(|| Error::TensorMissing {
            place: self.path.display().to_string(),
            tensor: name.to_string(),
            remedy: "Check the file and the name.".to_string(),
        })
    }
}

/// The three storage types of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    F32,
    F16,
    BF16,
}

impl FloatType {
    pub fn of(dtype: Dtype) -> Option<FloatType> {
        match dtype {
            Dtype::F32 => Some(FloatType::F32),
            Dtype::F16 => Some(FloatType::F16),
            Dtype::BF16 => Some(FloatType::BF16),
            _ => None,
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::BF16 => 2,
        }
    }
}

/// Reads `out.len()` little-endian values at `offset`, in parallel pieces; no second copy of the tensor.
pub(crate) fn read_floats(source: &impl ReadAt, dtype: FloatType, offset: u64, out: &mut [f32]) -> io::Result<()> {
    let width = dtype.bytes();
    out.par_chunks_mut(CHUNK).enumerate().try_for_each(|(index, out)| {
        let mut bytes = vec![0u8; out.len() * width];
        source.read_exact_at(&mut bytes, offset + (index * CHUNK * width) as u64)?;
        match dtype {
            FloatType::F32 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            FloatType::BF16 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = bf16::from_le_bytes(*bytes).to_f32();
                }
            }
            FloatType::F16 => {
                // In slices, as the half crate chooses the processor's conversion once per slice.
                let halves: Vec<f16> =
                    bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
                halves.convert_to_f32_slice(out);
            }
        }
        Ok(())
    })
}

struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Shape;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                write!(formatter, "a shape of up to {MAX_RANK} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dimension) = sequence.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(A::Error::custom(format!("a tensor has more than {MAX_RANK} dimensions")));
                    }
                    shape.push(dimension);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Visit)
    }
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Metadata(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Metadata;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_unit<E>(self) -> std::result::Result<Metadata, E> {
                Ok(Metadata(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Metadata, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == MAX_METADATA {
                        return Err(A::Error::custom(format!("more than {MAX_METADATA} metadata entries")));
                    }
                    entries.push(entry);
                }
                Ok(Metadata(entries))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Header;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut tensors = Vec::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if metadata.is_some() {
                            return Err(A::Error::custom("__metadata__ occurs twice"));
                        }
                        metadata = Some(map.next_value::<Metadata>()?.0);
                        continue;
                    }
                    if name.len() > MAX_NAME {
                        return Err(A::Error::custom(format!("a tensor name of {} bytes", name.len())));
                    }
                    if tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    let Entry { dtype, shape, data_offsets } = map.next_value()?;
                    tensors.push(TensorInfo { name, dtype, shape: shape.0, range: data_offsets.0..data_offsets.1 });
                }
                Ok(Header { tensors, metadata: metadata.unwrap_or_default() })
            }
        }
        deserializer.deserialize_map(Visit)
    }
}
