//! `manifest.json`: the proof that a checkpoint is whole.

use serde::{Deserialize, Serialize};

pub const MANIFEST: &str = "manifest.json";
pub const STATE: &str = "state.safetensors";
pub const RECORD: &str = "record.json";

/// The layout of the folder; another one is not read.
const FORMAT: u32 = 1;

/// No manifest of ours is larger; a damaged length must not cost memory.
pub const MAX_MANIFEST: u64 = 1 << 16;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    pub files: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the content, 64 lower-case hexadecimal digits.
    pub blake3: String,
}

impl Manifest {
    pub fn new(files: Vec<Entry>) -> Self {
        Self { format: FORMAT, files }
    }

    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers are JSON")
    }

    /// Reads a manifest, byte for byte as [`Self::bytes`] writes it: every byte of it is checked, so that no damage can
    /// hide in white space or in the spelling of a number.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("{MANIFEST} is damaged: {error}"))?;
        if manifest.format != FORMAT {
            return Err(format!("{MANIFEST} is of format {}, this version reads {FORMAT}", manifest.format));
        }
        if manifest.bytes() != bytes {
            return Err(format!("{MANIFEST} is damaged: it is not as it was written"));
        }
        let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
        if names != [STATE, RECORD] {
            return Err(format!("{MANIFEST} names {names:?}, not {STATE} and {RECORD}"));
        }
        Ok(manifest)
    }
}
