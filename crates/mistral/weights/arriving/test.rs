use super::super::gguf::from_gguf;
use super::super::safetensors::FloatType;
use super::super::test::{gguf_in, small_gguf, small_model};
use super::super::{gguf, load_as, safetensors, save};
use super::*;
use candle_core::quantized::GgmlDType;
use proptest::prelude::*;

const NO_LIMIT: u64 = u64::MAX;

fn arrive(mut model: Arriving, files: &[(&str, &[u8])], piece: usize) -> Result<Loaded> {
    for (name, bytes) in files {
        model.begin(name, bytes.len() as u64)?;
        for piece in bytes.chunks(piece.max(1)) {
            model.push(piece)?;
        }
    }
    model.finish()
}

fn values(loaded: &Loaded) -> Vec<f32> {
    let weights = &loaded.weights;
    let mut all = vec![0.0; weights.layout.len];
    for spec in &weights.layout.tensors {
        weights.read(spec, 0, &mut all[spec.range.clone()]);
    }
    all
}

fn folder(shard_bytes: u64) -> (tempfile::TempDir, String, Vec<(String, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    save::save_safetensors(&small_model(), folder.path(), FloatType::F32, shard_bytes).unwrap();
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let names =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    names.sort();
    let files =
        names.into_iter().map(|name| (name.clone(), std::fs::read(folder.path().join(name)).unwrap())).collect();
    (folder, config, files)
}

fn shards(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn however_it_is_cut_it_is_the_same_model(piece in prop_oneof![1..40usize, 40..100_000usize]) {
        let bytes = gguf_in(&small_model(), &[], |name| if name.contains("norm") { GgmlDType::F32 } else { GgmlDType::Q8_0 });
        for storage in [Storage::Gguf, Storage::F32, Storage::Bf16] {
            let whole = from_gguf(&Gguf::read(bytes.clone(), Path::new("m.gguf")).unwrap(), storage).unwrap();
            let pieces = arrive(Arriving::gguf(storage, false, NO_LIMIT), &[("m.gguf", &bytes)], piece).unwrap();
            prop_assert_eq!(values(&whole), values(&pieces));
            prop_assert_eq!(&whole.report, &pieces.report);
            prop_assert_eq!(whole.tokenizer_gguf, pieces.tokenizer_gguf);
            prop_assert_eq!(pieces.weights.storage(), storage);
        }
    }

    #[test]
    fn shards_arrive_one_after_the_other(piece in 1..5000usize) {
        let (folder, config, files) = folder(20_000);
        prop_assert!(files.len() > 1);
        for storage in [Storage::F32, Storage::Bf16, Storage::Nf4] {
            let whole = load_as(folder.path(), storage).unwrap();
            let model = Arriving::safetensors(&config, None, None, storage, NO_LIMIT).unwrap();
            let pieces = arrive(model, &shards(&files), piece).unwrap();
            prop_assert_eq!(values(&whole), values(&pieces));
            prop_assert_eq!(&whole.report, &pieces.report);
        }
    }
}

#[test]
fn a_quantised_file_is_kept_and_another_is_not() {
    let bytes = gguf_in(&small_model(), &[], |_| GgmlDType::Q4_0);
    let loaded = arrive(Arriving::gguf(Storage::Bf16, false, NO_LIMIT), &[("m.gguf", &bytes)], 4096).unwrap();
    assert_eq!(loaded.weights.storage(), Storage::Bf16);
    for (bytes, storage) in
        [(small_gguf(), Storage::F32), (gguf_in(&small_model(), &[], |_| GgmlDType::Q4_0), Storage::Gguf)]
    {
        let loaded = arrive(Arriving::gguf(Storage::F32, true, NO_LIMIT), &[("m.gguf", &bytes)], 4096).unwrap();
        assert_eq!(loaded.weights.storage(), storage);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_the_header_alone() {
    let bytes = small_gguf();
    let header = gguf::Gguf::read(bytes.clone(), Path::new("m.gguf")).unwrap();
    let data = header.tensors.iter().map(|tensor| tensor.range.start).min().unwrap() as usize;
    let mut model = Arriving::gguf(Storage::F32, true, 1000);
    model.begin("m.gguf", bytes.len() as u64).unwrap();
    // A look takes as much beyond the header as its reader does at a time, and comes when that may have been doubled.
    let most = 2 * (data + FIRST_LOOK);
    let error = bytes[..most.min(bytes.len())].chunks(1 << 15).find_map(|piece| model.push(piece).err());
    assert_eq!(error.unwrap().code(), "ZA_MODEL_TOO_LARGE");

    let (_folder, config, files) = folder(u64::MAX);
    let model = Arriving::safetensors(&config, None, None, Storage::F32, 1000).unwrap();
    assert_eq!(arrive(model, &shards(&files), 1 << 20).unwrap_err().code(), "ZA_MODEL_TOO_LARGE");
}

#[test]
fn what_is_cut_off_or_missing_is_said() {
    let bytes = small_gguf();
    let mut model = Arriving::gguf(Storage::F32, true, NO_LIMIT);
    model.begin("m.gguf", bytes.len() as u64).unwrap();
    model.push(&bytes[..bytes.len() - 1]).unwrap();
    let error = model.finish().unwrap_err();
    assert_eq!(error.code(), "ZA_MODEL_FORMAT");
    assert!(error.to_string().contains("cut off"), "{error}");

    let error = arrive(Arriving::gguf(Storage::F32, true, NO_LIMIT), &[("m.gguf", &bytes[..100])], 7).unwrap_err();
    assert_eq!(error.code(), "ZA_MODEL_FORMAT");
    let error = arrive(Arriving::gguf(Storage::F32, true, NO_LIMIT), &[("m.gguf", b"no model at all")], 7).unwrap_err();
    assert!(error.to_string().contains("GGUF"), "{error}");
    assert_eq!(arrive(Arriving::gguf(Storage::F32, true, NO_LIMIT), &[], 7).unwrap_err().code(), "ZA_MODEL_FORMAT");

    let (_folder, config, files) = folder(20_000);
    let model = Arriving::safetensors(&config, None, None, Storage::F32, NO_LIMIT).unwrap();
    let error = arrive(model, &shards(&files)[1..], 1 << 20).unwrap_err();
    assert_eq!(error.code(), "ZA_TENSOR_MISSING");
}

#[test]
fn bytes_are_let_go() {
    let bytes = gguf_in(&small_model(), &[], |_| GgmlDType::F32);
    let mut model = Arriving::gguf(Storage::F32, true, NO_LIMIT);
    model.begin("m.gguf", bytes.len() as u64).unwrap();
    let mut most = 0;
    for piece in bytes.chunks(64) {
        model.push(piece).unwrap();
        if model.model.is_some() {
            most = most.max(model.file.as_ref().unwrap().arrived.with(|window| window.bytes.len()));
        }
    }
    let largest = small_model().layout.tensors.iter().map(|spec| 4 * spec.range.len()).max().unwrap();
    assert!(most <= largest + 256, "{most} bytes held, the largest tensor has {largest}");
    model.finish().unwrap();
}

#[test]
fn the_tokenizer_is_there_before_the_weights() {
    let bytes = small_gguf();
    let mut model = Arriving::gguf(Storage::F32, true, NO_LIMIT);
    model.begin("m.gguf", bytes.len() as u64).unwrap();
    assert!(model.take_tokenizer().is_none());
    model.push(&bytes).unwrap();
    assert!(model.take_tokenizer().unwrap().contains_key("tokenizer.ggml.tokens"));
    assert!(model.finish().unwrap().tokenizer_gguf.is_none());
}

/// A shard as a file, with tensors of ones under these names instead of the model's.
fn stale(names: &[&str]) -> Vec<u8> {
    let model = small_model();
    let specs: Vec<_> = model.layout.tensors.iter().filter(|spec| names.contains(&spec.name.as_str())).collect();
    let mut header = safetensors::HeaderBuilder::new(&[]);
    for spec in &specs {
        assert!(header.add(&spec.name, "F32", &spec.shape, 4 * spec.range.len()));
    }
    let mut bytes = header.bytes();
    for spec in &specs {
        bytes.extend((0..spec.range.len()).flat_map(|_| 1.0f32.to_le_bytes()));
    }
    bytes
}

/// The shard with those tensors behind its own.
fn with_stale(shard: &[u8], names: &[&str]) -> Vec<u8> {
    let (own, other) = (safetensors::Header::read, stale(names));
    let mut header = safetensors::HeaderBuilder::new(&[]);
    let mut data = Vec::new();
    for bytes in [shard.to_vec(), other] {
        for tensor in own(&bytes, Path::new("shard")).unwrap().tensors {
            let length = (tensor.range.end - tensor.range.start) as usize;
            assert!(header.add(&tensor.name, "F32", &tensor.shape, length));
            data.extend_from_slice(&bytes[tensor.range.start as usize..tensor.range.end as usize]);
        }
    }
    [header.bytes(), data].concat()
}

fn index_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap()
}

#[test]
fn a_tensor_comes_from_its_own_shard_alone() {
    let (folder, config, files) = folder(20_000);
    let index = index_of(folder.path());
    let whole = load_as(folder.path(), Storage::F32).unwrap();
    let (first, last) = ("model.embed_tokens.weight", "model.norm.weight");
    let held = |place: usize, name: &str| {
        safetensors::Header::read(&files[place].1, Path::new("shard")).unwrap().tensors.iter().any(|t| t.name == name)
    };
    let end = files.len() - 1;
    let copies: Vec<(usize, &str)> = [(0, first), (end, first), (0, last), (end, last)]
        .into_iter()
        .filter(|(place, name)| !held(*place, name))
        .collect();
    assert!(copies.iter().any(|(place, _)| *place == 0) && copies.iter().any(|(place, _)| *place == end));
    for (place, name) in copies {
        let mut files = files.clone();
        files[place].1 = with_stale(&files[place].1, &[name]);
        let copy = format!("{name} (copy in {})", files[place].0);
        let given = |index| Arriving::safetensors(&config, None, index, Storage::F32, NO_LIMIT).unwrap();
        // Whatever the order.
        for turned in [false, true] {
            let mut files = shards(&files);
            if turned {
                files.reverse();
            }
            let model = given(Some(index.as_str()));
            assert_eq!(model.shards().len(), files.len());
            let loaded = arrive(model, &files, 4096).unwrap();
            assert!(values(&loaded) == values(&whole), "a stale {copy} was taken");
            assert_eq!(loaded.report.unused, [copy.as_str()]);
        }
        let error = arrive(given(None), &shards(&files), 4096).unwrap_err();
        assert_eq!(error.code(), "ZA_MODEL_FORMAT");
        assert!(error.to_string().contains(name) && error.to_string().contains("index.json"), "{error}");
    }
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_refused() {
    let (folder, config, files) = folder(20_000);
    let index = index_of(folder.path());
    let refused = |index: &str, files: &[(&str, &[u8])]| {
        let error = Arriving::safetensors(&config, None, Some(index), Storage::F32, NO_LIMIT)
            .and_then(|model| arrive(model, files, 4096))
            .expect_err("must be refused");
        (error.code(), error.to_string())
    };
    let all = shards(&files);
    let first = all[0].0;
    let swapped = |name: &str| {
        let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
        assert_ne!(index["weight_map"]["model.norm.weight"].as_str().unwrap(), first);
        index["weight_map"]["model.norm.weight"] = name.into();
        index.to_string()
    };
    let (code, message) = refused(&swapped(first), &all);
    assert_eq!(code, "ZA_TENSOR_MISSING");
    assert!(message.contains(first) && message.contains("`model.norm.weight`"), "{message}");

    let (code, message) = refused(&index.replace("model.norm.weight", "model.other.weight"), &all);
    assert_eq!(code, "ZA_TENSOR_MISSING");
    assert!(message.contains("index.json") && message.contains("`model.norm.weight`"), "{message}");

    let (code, message) = refused(&index, &all[1..]);
    assert_eq!(code, "ZA_SHARD_MISSING");
    assert!(message.contains(first), "{message}");

    let renamed: Vec<(&str, &[u8])> = all.iter().map(|(_, bytes)| ("the bytes", *bytes)).collect();
    for (files, word) in [(&renamed[..], "the bytes"), (&[all[0], all[0]], "twice")] {
        let (code, message) = refused(&index, files);
        assert_eq!(code, "ZA_MODEL_FORMAT");
        assert!(message.contains(word), "{message}");
    }
    for (index, word) in [
        ("no JSON".to_string(), "not JSON"),
        ("{}".to_string(), "weight_map"),
        (swapped(".."), "not a file name"),
        (swapped("a/b"), "not a file name"),
    ] {
        let (code, message) = refused(&index, &all);
        assert_eq!(code, "ZA_MODEL_FORMAT");
        assert!(message.contains(word), "{message}");
    }
}

/// The first piece, which holds the header; what is refused then is refused before the weights are there.
fn by_header(mut model: Arriving, name: &str, bytes: &[u8]) -> Error {
    let header = gguf::Gguf::read(bytes.to_vec(), Path::new(name)).unwrap();
    let data = header.tensors.iter().map(|tensor| tensor.range.start).min().unwrap() as usize;
    // More is announced than there is, so that the header alone decides.
    model.begin(name, bytes.len() as u64).unwrap();
    let most = (2 * (data + FIRST_LOOK)).min(bytes.len() - 1);
    bytes[..most].chunks(1 << 12).find_map(|piece| model.push(piece).err()).expect("refused by its header")
}

#[test]
fn a_part_of_a_split_file_is_refused_by_its_header() {
    use candle_core::quantized::gguf_file::Value;
    let part = [("split.no", Value::U16(0)), ("split.count", Value::U16(3))];
    let bytes = gguf_in(&wide_model(), &part, |_| GgmlDType::F32);
    for (name, word) in [("m-00001-of-00003.gguf", "m-00002-of-00003.gguf"), ("the bytes", "part 2 of 3")] {
        let error = by_header(Arriving::gguf(Storage::F32, true, NO_LIMIT), name, &bytes);
        assert_eq!(error.code(), "ZA_SHARD_MISSING");
        assert!(error.to_string().contains(word) && error.to_string().contains("--merge"), "{error}");
    }
}

#[test]
fn a_type_that_cannot_be_kept_is_refused_by_the_header() {
    let matrices = |name: &str| if name.contains("norm") { GgmlDType::F32 } else { GgmlDType::Q2K };
    let bytes = gguf_in(&wide_model(), &[], matrices);
    let error = by_header(Arriving::gguf(Storage::Gguf, false, NO_LIMIT), "m.gguf", &bytes);
    assert_eq!(error.code(), "ZA_MODEL_UNSUPPORTED");
    assert!(error.to_string().contains("Q2_K") && error.to_string().contains("token_embd.weight"), "{error}");
    // Dequantised it can be had here.
    arrive(Arriving::gguf(Storage::F32, true, NO_LIMIT), &[("m.gguf", &bytes)], 4096).unwrap();
}

/// Rows that K types have blocks for, and more bytes than a look at the header takes.
fn wide_model() -> crate::layout::Weights {
    let mut config = small_model().config;
    (config.hidden_size, config.intermediate_size, config.head_dim) = (256, 512, 64);
    crate::layout::Weights::random(config, 4)
}
