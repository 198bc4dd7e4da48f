//! Values of GGUF's metadata. Arrays are checked when the header is read, and decoded only when asked for: a
//! vocabulary takes many times its bytes once it is JSON.

use super::super::read_at::ReadAt;
use super::cursor::Cursor;
use crate::error::Result;
use serde_json::Value as Json;

/// A chat template is the longest string there is, with some kilobytes.
const MAX_STRING: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// `count` elements of type `kind` from byte `start` of the file.
    Array {
        kind: u32,
        count: u64,
        start: u64,
    },
}

const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of a number or boolean of GGUF type `kind`.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | BOOL => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

impl Value {
    pub(super) fn read<R: ReadAt>(cursor: &mut Cursor<R>) -> Result<Value> {
        match cursor.u32()? {
            ARRAY => {
                let kind = cursor.u32()?;
                let count = cursor.u64()?;
                let start = cursor.position();
                if kind == STRING {
                    for _ in 0..count {
                        cursor.skip_string()?;
                    }
                } else {
                    let Some(width) = width(kind) else {
                        return Err(cursor.fail(&format!("an array of elements of type {kind} stands at byte {start}")));
                    };
                    cursor.skip(count.saturating_mul(width))?;
                }
                Ok(Value::Array { kind, count, start })
            }
            kind => Value::scalar(kind, cursor),
        }
    }

    fn scalar<R: ReadAt>(kind: u32, cursor: &mut Cursor<R>) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(u8::from_le_bytes(cursor.bytes()?))),
            1 => Value::Signed(i64::from(i8::from_le_bytes(cursor.bytes()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(cursor.bytes()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(cursor.bytes()?))),
            4 => Value::Unsigned(u64::from(cursor.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(cursor.bytes()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(cursor.bytes()?))),
            BOOL => match cursor.bytes()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(cursor.fail(&format!("a boolean is {other}"))),
            },
            STRING => Value::Text(cursor.string(MAX_STRING)?),
            10 => Value::Unsigned(cursor.u64()?),
            11 => Value::Signed(i64::from_le_bytes(cursor.bytes()?)),
            12 => Value::Float(f64::from_le_bytes(cursor.bytes()?)),
            other => return Err(cursor.fail(&format!("a value of the unknown type {other}"))),
        })
    }

    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }

    /// How many values it is.
    pub(super) fn elements(&self) -> u64 {
        match self {
            Value::Array { count, .. } => *count,
            _ => 1,
        }
    }

    /// A number that is not finite becomes null, as JSON has no word for it.
    pub(super) fn to_json<R: ReadAt>(&self, cursor: &mut Cursor<R>) -> Result<Json> {
        Ok(match self {
            Value::Unsigned(value) => Json::from(*value),
            Value::Signed(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::Bool(value) => Json::from(*value),
            Value::Text(value) => Json::from(value.as_str()),
            Value::Array { kind, count, start } => {
                cursor.seek(*start);
                let mut list = Vec::with_capacity(*count as usize);
                for _ in 0..*count {
                    list.push(Value::scalar(*kind, cursor)?.to_json(cursor)?);
                }
                Json::Array(list)
            }
        })
    }
}
