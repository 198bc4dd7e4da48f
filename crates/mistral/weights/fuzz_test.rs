//! Arbitrary, truncated and flipped bytes: readers answer with an error or a checked header, never with a panic, and
//! never with more memory than a few times the file.

use super::allocation::peak;
use super::gguf::Gguf;
use super::safetensors::Header;
use super::test::{small_gguf, small_model};
use proptest::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Vectors grow by doubling and JSON is denser than what it becomes; the window of the GGUF reader has a fixed size.
fn allowed(file: usize) -> usize {
    (1 << 18) + 24 * file
}

/// No byte of a file belongs to two tensors.
fn check_disjoint(ranges: impl Iterator<Item = Range<u64>>) {
    let mut ranges: Vec<Range<u64>> = ranges.filter(|range| !range.is_empty()).collect();
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
}

fn check_safetensors(bytes: Vec<u8>) {
    let size = bytes.len();
    let used = peak(|| {
        if let Ok(header) = Header::read(&bytes, Path::new("fuzz.safetensors")) {
            for tensor in &header.tensors {
                assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= size as u64);
                assert!(tensor.elements() <= 8 * size, "{tensor:?}");
            }
            check_disjoint(header.tensors.iter().map(|tensor| tensor.range.clone()));
        }
    });
    assert!(used <= allowed(size), "{used} bytes for a file of {size}");
}

fn check_gguf(bytes: Vec<u8>) {
    let size = bytes.len();
    let used = peak(|| {
        if let Ok(gguf) = Gguf::read(bytes, Path::new("fuzz.gguf")) {
            for tensor in &gguf.tensors {
                assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= size as u64);
            }
            check_disjoint(gguf.tensors.iter().map(|tensor| tensor.range.clone()));
            let _ = super::gguf::from_gguf(&gguf, Default::default());
        }
    });
    // A file that still is the small model may become it: some ten thousand f32 and its vocabulary as JSON.
    assert!(used <= allowed(size) + (1 << 20), "{used} bytes for a file of {size}");
}

fn safetensors_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    super::save::save_safetensors(&small_model(), folder.path(), super::safetensors::FloatType::BF16, u64::MAX)
        .unwrap();
    std::fs::read(folder.path().join("model.safetensors")).unwrap()
}

/// Bits to flip, most of them in the header, where they matter.
fn flips() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((prop_oneof![0..64usize, 0..2048usize, 0..1usize << 20], 0..8u8), 1..6)
}

fn flip(bytes: &mut [u8], flips: &[(usize, u8)]) {
    let length = bytes.len();
    for (place, bit) in flips {
        bytes[place % length] ^= 1 << bit;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check_safetensors(bytes.clone());
        check_gguf(bytes);
    }

    #[test]
    fn arbitrary_json_headers(
        text in r#"\{("[a-c]":\{"dtype":"(F32|BF16|F4|X)","shape":\[[0-9,]{0,12}\],"data_offsets":\[[0-9]{1,20},[0-9]{1,3}\]\},?){0,4}\}"#,
        data in 0..64usize,
    ) {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        check_safetensors(bytes);
    }

    #[test]
    fn arbitrary_gguf_bodies(
        version in 2..4u32,
        tensors in prop_oneof![0..4u64, any::<u64>()],
        keys in prop_oneof![0..4u64, any::<u64>()],
        body in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => 0..16u8, 1 => any::<u8>()], 0..400),
    ) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes.extend(body);
        check_gguf(bytes);
    }

    #[test]
    fn truncated_and_flipped_safetensors(cut in any::<prop::sample::Index>(), flips in flips()) {
        let whole = safetensors_bytes();
        let mut flipped = whole.clone();
        flip(&mut flipped, &flips);
        check_safetensors(flipped.clone());
        let cut = cut.index(whole.len());
        let truncated = whole[..cut].to_vec();
        prop_assert!(Header::read(&truncated, Path::new("cut.safetensors")).is_err());
        flipped.truncate(cut);
        check_safetensors(flipped);
    }

    #[test]
    fn truncated_and_flipped_gguf(cut in any::<prop::sample::Index>(), flips in flips()) {
        let whole = small_gguf();
        let mut flipped = whole.clone();
        flip(&mut flipped, &flips);
        check_gguf(flipped.clone());
        let cut = cut.index(whole.len());
        prop_assert!(Gguf::read(whole[..cut].to_vec(), Path::new("cut.gguf")).is_err());
        flipped.truncate(cut);
        check_gguf(flipped);
    }
}

#[test]
fn a_header_of_many_small_entries_stays_in_bounds() {
    let entries: Vec<String> =
        (0..20_000).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[],"data_offsets":[{i},{}]}}"#, i + 1)).collect();
    let text = format!("{{{}}}", entries.join(","));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len() + 20_000, 0);
    check_safetensors(bytes);
}
