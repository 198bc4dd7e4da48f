//! Decoding one id at a time: the pieces, joined, are the decoding of the whole.

use serde_json::Value;

use super::Tokenizer;
use super::bytes::bytes_of;
use crate::error::Result;

/// How a tokenizer's decoder behaves when ids come one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streaming {
    /// Tokens are byte strings: what is valid UTF-8 is final.
    Bytes,
    /// Each token's text depends only on whether another stands before it, but for runs of byte tokens `<0xNN>`.
    Tokens,
    /// Anything else: the whole is decoded again each time.
    Whole,
}

impl Streaming {
    pub(super) fn of(file: &Value) -> Self {
        match file.get("decoder") {
            Some(Value::Object(decoder)) => match decoder.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => Self::Bytes,
                Some("Sequence") => {
                    let known =
                        decoder.get("decoders").and_then(Value::as_array).is_some_and(|list| list.iter().all(by_token));
                    if known { Self::Tokens } else { Self::Whole }
                }
                Some(_) if by_token(&Value::Object(decoder.clone())) => Self::Tokens,
                _ => Self::Whole,
            },
            _ => Self::Whole,
        }
    }
}

fn by_token(decoder: &Value) -> bool {
    let number = |name: &str| decoder.get(name).and_then(Value::as_u64);
    match decoder.get("type").and_then(Value::as_str) {
        Some("ByteFallback" | "Fuse" | "Metaspace") => true,
        // After Fuse a pattern of several characters could match across tokens.
        Some("Replace") => {
            decoder.get("pattern").and_then(|p| p.get("String")?.as_str()).is_some_and(|p| p.chars().count() == 1)
        }
        // One leading character at most: any token before shields the rest.
        Some("Strip") => number("start").is_some_and(|n| n <= 1) && number("stop") == Some(0),
        _ => false,
    }
}

/// Decodes ids as they come. U+FFFD never appears as long as the bytes can still become a character.
///
/// Runs of byte-fallback tokens are held until another token (or [`StreamDecoder::flush`]) ends them, because a broken run is
/// replaced as a whole; [`StreamDecoder::pending`] shows what is held.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The ids that later text still depends on: one already shown (the anchor), then those that are held.
    window: Vec<u32>,
    /// The bytes of a character that is not complete yet (byte-level tokenizers).
    bytes: Vec<u8>,
    /// The text of the window that has been given out already.
    shown: String,
}

impl<'a> StreamDecoder<'a> {
    /// A decoder at the start of a text. `skip_special`: leave special tokens out.
    pub fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, window: Vec::new(), bytes: Vec::new(), shown: String::new() }
    }

    /// Takes the next id and returns the text that is now certain, if any.
    ///
    /// # Errors
    /// `ZA_TOKENIZER_DECODE`, as [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(None);
        }
        let Some(token) = self.tokenizer.id_to_token(id) else { return Ok(None) };
        match self.tokenizer.streaming {
            Streaming::Bytes => {
                self.bytes.extend(bytes_of(&token));
                let certain = self.bytes.len() - open_tail(&self.bytes);
                let text = String::from_utf8_lossy(&self.bytes[..certain]).into_owned();
                self.bytes.drain(..certain);
                Ok(if text.is_empty() { None } else { Some(text) })
            }
            Streaming::Tokens => {
                self.window.push(id);
                if is_byte(&token) {
                    return Ok(None);
                }
                let text = self.tokenizer.decode(&self.window, self.skip_special)?;
                let piece = self.show(&text);
                let anchor = self.tokenizer.decode(&[id], self.skip_special)?;
                // An anchor that decodes to nothing (a space that is stripped at the start) cannot shield what follows.
                if !anchor.is_empty() {
                    self.window = vec![id];
                    self.shown = anchor;
                }
                Ok(piece)
            }
            Streaming::Whole => {
                self.window.push(id);
                let text = self.tokenizer.decode(&self.window, self.skip_special)?;
                let certain = text.trim_end_matches('\u{FFFD}').len();
                Ok(self.show(&text[..certain]))
            }
        }
    }

    /// What [`StreamDecoder::flush`] would return now: the text that is held.
    ///
    /// # Errors
    /// `ZA_TOKENIZER_DECODE`, as [`Tokenizer::decode`].
    pub fn pending(&self) -> Result<String> {
        if self.tokenizer.streaming == Streaming::Bytes {
            return Ok(String::from_utf8_lossy(&self.bytes).into_owned());
        }
        let text = self.tokenizer.decode(&self.window, self.skip_special)?;
        Ok(text.strip_prefix(self.shown.as_str()).unwrap_or_default().to_string())
    }

    /// Ends the text: returns what was held, with U+FFFD for bytes that never became a character.
    ///
    /// # Errors
    /// `ZA_TOKENIZER_DECODE`, as [`Tokenizer::decode`].
    pub fn flush(&mut self) -> Result<Option<String>> {
        let rest = self.pending()?;
        self.window.clear();
        self.bytes.clear();
        self.shown.clear();
        Ok(if rest.is_empty() { None } else { Some(rest) })
    }

    fn show(&mut self, text: &str) -> Option<String> {
        let piece = text.strip_prefix(self.shown.as_str())?.to_string();
        if piece.is_empty() {
            return None;
        }
        self.shown.push_str(&piece);
        Some(piece)
    }
}

/// How many bytes at the end are the beginning of a character that is not complete yet (0 to 3).
fn open_tail(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|n| {
            let tail = &bytes[bytes.len() - n..];
            matches!(std::str::from_utf8(tail), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none())
        })
        .unwrap_or(0)
}

fn is_byte(token: &str) -> bool {
    token.len() == 6
        && token
            .strip_prefix("<0x")
            .and_then(|t| t.strip_suffix('>'))
            .is_some_and(|hex| u8::from_str_radix(hex, 16).is_ok())
}
