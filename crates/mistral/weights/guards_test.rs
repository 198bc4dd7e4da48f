//! The guards of both containers, one by one: each file here is whole but for the one thing that is refused.

use super::gguf::Gguf;
use super::safetensors::Header;
use crate::error::Error;
use std::path::Path;

const U32: u32 = 4;
const TEXT: u32 = 8;

/// A GGUF file, field by field; what the header claims can be set apart from what is there.
#[derive(Default)]
struct File {
    keys: Vec<u8>,
    tensors: Vec<u8>,
    counts: [u64; 2],
    claimed: [Option<u64>; 2],
    data: usize,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl File {
    fn key(mut self, name: &str, value: u32) -> Self {
        text(&mut self.keys, name);
        self.keys.extend(U32.to_le_bytes());
        self.keys.extend(value.to_le_bytes());
        self.counts[1] += 1;
        self
    }

    /// Eight values of F32 at that offset: 32 bytes, an alignment.
    fn tensor(mut self, name: &str, offset: u64) -> Self {
        text(&mut self.tensors, name);
        self.tensors.extend(1u32.to_le_bytes());
        self.tensors.extend(8u64.to_le_bytes());
        self.tensors.extend(0u32.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.counts[0] += 1;
        self.data = self.data.max(offset as usize + 32);
        self
    }

    fn claims(mut self, tensors: Option<u64>, keys: Option<u64>) -> Self {
        self.claimed = [tensors, keys];
        self
    }

    fn read(&self) -> Result<Gguf<Vec<u8>>, Error> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        for (own, claimed) in self.counts.iter().zip(self.claimed) {
            bytes.extend(claimed.unwrap_or(*own).to_le_bytes());
        }
        bytes.extend(&self.keys);
        bytes.extend(&self.tensors);
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        Gguf::read(bytes, Path::new("x.gguf"))
    }
}

#[test]
fn gguf() {
    let new = File::default;
    let whole = new().key("a", 1).key("general.alignment", 32).tensor("x", 0).tensor("y", 32).read().unwrap();
    assert_eq!((whole.metadata.len(), whole.tensors.len()), (2, 2));
    // The caps themselves are allowed.
    new().tensor(&"n".repeat(1024), 0).key(&"k".repeat(1024), 1).read().unwrap();
    let mut long = new();
    text(&mut long.keys, "template");
    long.keys.extend(TEXT.to_le_bytes());
    long.keys.extend(((16u64 << 20) + 1).to_le_bytes());
    long.keys.resize(17 << 20, b' ');
    long.counts[1] = 1;
    for (what, file, word) in [
        ("two tensors at one offset", new().tensor("x", 0).tensor("y", 0), "`x` and `y` overlap"),
        ("an overlap", new().key("general.alignment", 8).tensor("x", 0).tensor("y", 24), "`x` and `y` overlap"),
        ("one name twice", new().tensor("x", 0).tensor("x", 32), "tensor name `x` occurs twice"),
        ("one key twice", new().key("a", 1).key("a", 1).tensor("x", 0), "key `a` occurs twice"),
        ("too many tensors", new().claims(Some((1 << 17) + 1), None), "131073 tensors"),
        ("too many keys", new().claims(None, Some((1 << 14) + 1)), "16385 keys"),
        ("more tensors than are there", new().tensor("x", 0).claims(Some(1 << 17), None), "dimensions"),
        ("more keys than are there", new().key("a", 1).claims(None, Some(1 << 14)), "cut off"),
        ("a long name", new().tensor(&"n".repeat(1025), 0), "1025 bytes"),
        ("a long key", new().key(&"k".repeat(1025), 1), "1025 bytes"),
        ("a long text", long, "16777217 bytes"),
        ("alignment 0", new().key("general.alignment", 0).tensor("x", 0), "general.alignment is 0"),
        ("alignment 24", new().key("general.alignment", 24).tensor("x", 0), "general.alignment is 24"),
        ("a large alignment", new().key("general.alignment", 1 << 17).tensor("x", 0), "general.alignment is 131072"),
        ("off the alignment", new().tensor("x", 0).tensor("y", 40), "off the alignment"),
    ] {
        let error = file.read().err().expect(what);
        assert_eq!(error.code(), "ZA_MODEL_FORMAT", "{what}: {error}");
        assert!(error.to_string().contains(word), "{what}: {error}");
    }
}

/// A file with that header and so many bytes of data.
fn safetensors_of(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn safetensors() {
    let read = |bytes: &Vec<u8>| Header::read(bytes, Path::new("x.safetensors"));
    let tensor = |name: &str, shape: &str, start: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{start},{end}]}}"#)
    };
    let two = |a: &str, b: &str| format!("{{{a},{b}}}");
    let x = tensor("x", "2", 0, 8);
    let whole = safetensors_of(&two(&x, &tensor("y", "1,1,1,1,1,1,1,2", 8, 16)), 16);
    assert_eq!(read(&whole).unwrap().tensors.len(), 2);
    let words = r#""__metadata__":{"a":"b"}"#;
    let many: Vec<String> = (0..=1 << 14).map(|entry| format!(r#""{entry}":"""#)).collect();
    for (what, header, data, word) in [
        ("an overlap", two(&x, &tensor("y", "2", 4, 12)), 12, "`y` overlaps"),
        ("two tensors at one offset", two(&x, &tensor("y", "2", 0, 8)), 8, "overlaps"),
        ("a hole", two(&x, &tensor("y", "2", 12, 20)), 20, "`y` leaves a hole"),
        ("a hole at the beginning", format!("{{{}}}", tensor("x", "2", 4, 12)), 12, "`x` leaves a hole"),
        ("an uncovered tail", format!("{{{x}}}"), 9, "cover 8 bytes"),
        ("a cut file", format!("{{{x}}}"), 7, "cut off"),
        ("one name twice", two(&x, &tensor("x", "2", 8, 16)), 16, "`x` occurs twice"),
        ("one empty name twice", two(&tensor("x", "0", 0, 0), &tensor("x", "0", 0, 0)), 0, "`x` occurs twice"),
        ("rank 9", format!("{{{}}}", tensor("x", "1,1,1,1,1,1,1,1,2", 0, 8)), 8, "more than 8 dimensions"),
        // 2^64 values are 0, and 2^62 of 4 bytes are too, for who does not look.
        ("a product that wraps", format!("{{{}}}", tensor("x", "9223372036854775808,2", 0, 0)), 0, "overflows"),
        ("bytes that wrap", format!("{{{}}}", tensor("x", "4611686018427387904", 0, 0)), 0, "overflows"),
        ("a shape of other length", format!("{{{}}}", tensor("x", "3", 0, 8)), 8, "needs 12"),
        ("ends before it begins", format!("{{{}}}", tensor("x", "2", 8, 0)), 8, "bytes 8..0"),
        ("metadata twice", two(words, words), 0, "__metadata__ occurs twice"),
        ("much metadata", format!(r#"{{"__metadata__":{{{}}}}}"#, many.join(",")), 0, "16384 metadata"),
        ("a long name", format!("{{{}}}", tensor(&"n".repeat(1025), "2", 0, 8)), 8, "1025 bytes"),
        ("no object", "[1]".to_string(), 0, "does not start with `{`"),
    ] {
        let error = read(&safetensors_of(&header, data)).expect_err(what);
        assert_eq!(error.code(), "ZA_MODEL_FORMAT", "{what}: {error}");
        assert!(error.to_string().contains(word), "{what}: {error}");
    }
}

/// A file of that many bytes, of which only the first are there: nothing behind them is ever read.
struct Sparse(Vec<u8>, u64);

impl super::read_at::ReadAt for Sparse {
    fn size(&self) -> std::io::Result<u64> {
        Ok(self.1)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let bytes = self.0.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[test]
fn a_header_longer_than_the_cap_is_not_read() {
    let length = 100_000_001u64;
    let file = Sparse(length.to_le_bytes().to_vec(), 1 << 40);
    let mut error = None;
    let used = super::allocation::peak(|| error = Header::read(&file, Path::new("x.safetensors")).err());
    let error = error.unwrap();
    assert_eq!(error.code(), "ZA_MODEL_FORMAT", "{error}");
    assert!(error.to_string().contains("100000001 bytes"), "{error}");
    assert!(used < 1 << 16, "{used} bytes");
    // As many bytes as the file has, but beyond its end.
    let error = Header::read(&Sparse(100u64.to_le_bytes().to_vec(), 107), Path::new("x.safetensors")).unwrap_err();
    assert_eq!(error.code(), "ZA_MODEL_FORMAT", "{error}");
}
