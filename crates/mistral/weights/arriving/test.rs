use super::super::gguf::from_gguf;
use super::super::safetensors::FloatType;
use super::super::test::{gguf_in, small_gguf, small_model};
use super::super::{gguf, load_as, save};
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
            let model = Arriving::safetensors(&config, None, storage, NO_LIMIT).unwrap();
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
    let model = Arriving::safetensors(&config, None, Storage::F32, 1000).unwrap();
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
    let model = Arriving::safetensors(&config, None, Storage::F32, NO_LIMIT).unwrap();
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
