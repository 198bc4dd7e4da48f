//! The start of a GGUF file: keys, and the table of tensors.

use super::ggml::GgmlDType;
use serde_json::Value;

use super::number_of;

/// Where tensors begin; what readers take where no key says otherwise.
pub(super) const ALIGNMENT: usize = 32;

const VERSION: u32 = 3;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Collects what stands before the values.
#[derive(Default)]
pub(super) struct HeaderBuilder {
    keys: Vec<u8>,
    key_count: u64,
    table: Vec<u8>,
    tensor_count: u64,
    /// Where the next tensor begins, from the first one on.
    end: u64,
}

impl HeaderBuilder {
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, U32).extend(value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, F32).extend(value.to_le_bytes());
    }

    pub fn text(&mut self, key: &str, value: &str) {
        text(self.key(key, TEXT), value);
    }

    /// A value of the text crate: whole numbers are unsigned, in lists signed; others are f32. Lists are of one type.
    pub fn json(&mut self, key: &str, value: &Value) {
        match value {
            Value::String(value) => self.text(key, value),
            Value::Bool(value) => self.key(key, BOOL).push(u8::from(*value)),
            Value::Array(list) => {
                let kind = match list.first() {
                    Some(Value::Number(number)) if number.is_f64() => F32,
                    Some(Value::Number(_)) => I32,
                    _ => TEXT,
                };
                let out = self.key(key, ARRAY);
                out.extend(kind.to_le_bytes());
                out.extend((list.len() as u64).to_le_bytes());
                for value in list {
                    match kind {
                        F32 => out.extend((value.as_f64().unwrap_or_default() as f32).to_le_bytes()),
                        I32 => out.extend((value.as_i64().unwrap_or_default() as i32).to_le_bytes()),
                        _ => text(out, value.as_str().unwrap_or_default()),
                    }
                }
            }
            Value::Number(number) if number.is_f64() => self.f32(key, number.as_f64().unwrap_or_default() as f32),
            value => self.u32(key, value.as_u64().unwrap_or_default() as u32),
        }
    }

    fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.key_count += 1;
        text(&mut self.keys, key);
        self.keys.extend(kind.to_le_bytes());
        &mut self.keys
    }

    /// A tensor of that many bytes behind those before it; `shape` outermost first.
    pub fn tensor(&mut self, name: &str, shape: &[usize], dtype: GgmlDType, bytes: u64) {
        self.tensor_count += 1;
        text(&mut self.table, name);
        self.table.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| self.table.extend((*size as u64).to_le_bytes()));
        self.table.extend(number_of(dtype).to_le_bytes());
        self.table.extend(self.end.to_le_bytes());
        self.end += bytes.next_multiple_of(ALIGNMENT as u64);
    }

    /// Up to the first tensor.
    pub fn bytes(self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend(self.tensor_count.to_le_bytes());
        out.extend(self.key_count.to_le_bytes());
        out.extend(self.keys);
        out.extend(self.table);
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}
