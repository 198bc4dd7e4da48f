//! Buffered forward reading in which no length is believed before it is compared with the file's.

use super::super::read_at::ReadAt;
use crate::error::{Error, Result};
use std::path::Path;

const WINDOW: u64 = 1 << 16;

pub(super) struct Cursor<'a, R> {
    source: &'a R,
    path: &'a Path,
    size: u64,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a, R: ReadAt> Cursor<'a, R> {
    pub fn new(source: &'a R, path: &'a Path) -> Result<Self> {
        let size = source.size().map_err(|error| Error::io(path, "read", error))?;
        Ok(Cursor { source, path, size, position: 0, window: Vec::new(), window_start: 0 })
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }

    pub fn fail(&self, problem: &str) -> Error {
        Error::format(&self.path.display().to_string(), problem)
    }

    fn require(&self, length: u64) -> Result<()> {
        if length > self.size.saturating_sub(self.position) {
            return Err(self.fail(&format!(
                "{length} bytes are expected at byte {}, but the file has only {}: it is cut off, or its header is wrong",
                self.position, self.size
            )));
        }
        Ok(())
    }

    pub fn skip(&mut self, length: u64) -> Result<()> {
        self.require(length)?;
        self.position += length;
        Ok(())
    }

    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        let length = out.len() as u64;
        self.require(length)?;
        let io = |error| Error::io(self.path, "read", error);
        if length >= WINDOW {
            self.source.read_exact_at(out, self.position).map_err(io)?;
        } else {
            let window_end = self.window_start + self.window.len() as u64;
            if self.position < self.window_start || self.position + length > window_end {
                let take = WINDOW.min(self.size - self.position);
                self.window.resize(take as usize, 0);
                self.source.read_exact_at(&mut self.window, self.position).map_err(io)?;
                self.window_start = self.position;
            }
            let start = (self.position - self.window_start) as usize;
            out.copy_from_slice(&self.window[start..start + out.len()]);
        }
        self.position += length;
        Ok(())
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A length-prefixed string of up to `max` bytes. Bytes that are not UTF-8 are replaced, as llama.cpp's own
    /// vocabularies hold such.
    pub fn string(&mut self, max: u64) -> Result<String> {
        let length = self.u64()?;
        if length > max {
            return Err(
                self.fail(&format!("a string of {length} bytes stands at byte {} (limit {max})", self.position))
            );
        }
        self.require(length)?;
        let mut out = vec![0; length as usize];
        self.fill(&mut out)?;
        Ok(String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    pub fn skip_string(&mut self) -> Result<()> {
        let length = self.u64()?;
        self.skip(length)
    }
}
