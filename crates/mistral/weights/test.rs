use super::gguf::Gguf;
use super::safetensors::{FloatType, SafeTensorsFile};
use super::save::save_safetensors;
use super::*;
use crate::config::Config;
use crate::generate::Generator;
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use std::io::Cursor;
use std::path::PathBuf;

/// A folder of shared test material, or a loud skip.
pub(crate) fn shared(variable: &str, name: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    let folder = std::env::var_os(variable).map_or(default, PathBuf::from);
    if !folder.exists() {
        eprintln!("SKIPPED: {} does not exist; set {variable}.", folder.display());
        return None;
    }
    Some(folder)
}

pub(crate) fn small_config() -> Config {
    let text = r#"{"architectures":["MistralForCausalLM"],"model_type":"mistral","vocab_size":40,"hidden_size":32,
        "intermediate_size":64,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,
        "max_position_embeddings":64,"rms_norm_eps":1e-05,"rope_theta":10000.0,"sliding_window":6,
        "initializer_range":0.3,"tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":2,"use_cache":true}"#;
    Config::from_json(text, "config.json").unwrap()
}

pub(crate) fn small_model() -> Weights {
    Weights::random(small_config(), 3)
}

/// `small_model` without its window, as llama.cpp would write it: f32, q and k permuted.
pub(super) fn small_gguf() -> Vec<u8> {
    gguf_of(&small_model(), &[])
}

fn gguf_of(model: &Weights, extra: &[(&str, gguf_file::Value)]) -> Vec<u8> {
    gguf_in(model, extra, |_| GgmlDType::F32)
}

/// The same in types by llama.cpp's name of the tensor.
pub(crate) fn gguf_in(
    model: &Weights,
    extra: &[(&str, gguf_file::Value)],
    dtype: impl Fn(&str) -> GgmlDType,
) -> Vec<u8> {
    use gguf_file::Value::{Array, F32, String as Text, U32};
    let config = &model.config;
    let tensors: Vec<(String, QTensor)> = model
        .layout
        .tensors
        .iter()
        .map(|spec| {
            let mut values = model.data[spec.range.clone()].to_vec();
            if spec.name.contains("q_proj") || spec.name.contains("k_proj") {
                values = interleave(&values, config.head_dim, config.hidden_size);
            }
            let tensor = Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu).unwrap();
            let name = llama_name(&spec.name);
            let quantised = QTensor::quantize(&tensor, dtype(&name)).unwrap();
            (name, quantised)
        })
        .collect();
    let tokens = (0..config.vocab_size).map(|i| Text(format!("token {i}"))).collect();
    let mut keys = vec![
        ("general.architecture", Text("llama".to_string())),
        ("llama.block_count", U32(config.layers as u32)),
        ("llama.context_length", U32(config.max_position_embeddings as u32)),
        ("llama.embedding_length", U32(config.hidden_size as u32)),
        ("llama.feed_forward_length", U32(config.intermediate_size as u32)),
        ("llama.attention.head_count", U32(config.heads as u32)),
        ("llama.attention.head_count_kv", U32(config.kv_heads as u32)),
        ("llama.attention.layer_norm_rms_epsilon", F32(config.rms_norm_eps)),
        ("llama.rope.freq_base", F32(config.rope_theta as f32)),
        ("tokenizer.ggml.model", Text("gpt2".to_string())),
        ("tokenizer.ggml.tokens", Array(tokens)),
        ("tokenizer.ggml.bos_token_id", U32(1)),
        ("tokenizer.ggml.eos_token_id", U32(2)),
    ];
    for (key, value) in extra {
        keys.retain(|(name, _)| name != key);
        keys.push((key, value.clone()));
    }
    let keys: Vec<(&str, &gguf_file::Value)> = keys.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut bytes = Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &keys, &tensors).unwrap();
    bytes.into_inner()
}

/// llama.cpp's `permute` (convert_hf_to_gguf.py): row 2i + s of a head is row s·D/2 + i of transformers.
fn interleave(values: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks(head_dim * columns) {
        for pair in 0..head_dim / 2 {
            for half in 0..2 {
                out.extend_from_slice(&head[(half * head_dim / 2 + pair) * columns..][..columns]);
            }
        }
    }
    out
}

fn llama_name(name: &str) -> String {
    let mut name = name.replace("model.layers.", "blk.").replace("model.embed_tokens", "token_embd");
    for (ours, theirs) in [
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ] {
        name = name.replace(ours, theirs);
    }
    name
}

fn code(path: &Path) -> (&'static str, String) {
    let error = load(path).expect_err("must be refused");
    (error.code(), error.to_string())
}

#[test]
fn a_saved_model_loads_again() {
    let model = small_model();
    let folder = tempfile::tempdir().unwrap();
    let written = save_safetensors(&model, folder.path(), FloatType::F32, u64::MAX).unwrap();
    assert_eq!(written.len(), 3);
    let loaded = load(folder.path()).unwrap();
    assert_eq!(loaded.source, Source::HfFolder);
    assert_eq!(loaded.weights.data, model.data);
    let config = loaded.weights.config;
    assert_eq!(config.raw["use_cache"], true, "fields that we do not know are kept");
    let (raw, generation) = (model.config.raw.clone(), model.config.generation.clone());
    assert_eq!(config.generation["eos_token_id"], 2);
    assert_eq!(Config { raw, generation, ..config }, model.config);
    assert_eq!(loaded.report.unused, Vec::<String>::new());
    assert_eq!(loaded.report.dtypes, [("F32".to_string(), model.layout.tensors.len())]);
}

#[test]
fn shards_and_half_types_round_trip_and_replace_what_was_there() {
    let model = small_model();
    let folder = tempfile::tempdir().unwrap();
    save_safetensors(&model, folder.path(), FloatType::F32, u64::MAX).unwrap();
    for dtype in [FloatType::BF16, FloatType::F16] {
        let written = save_safetensors(&model, folder.path(), dtype, 8000).unwrap();
        assert!(written.len() > 5);
        assert!(!folder.path().join("model.safetensors").exists(), "readers would take the earlier save");
        let loaded = load(folder.path()).unwrap();
        for (ours, theirs) in loaded.weights.data.iter().zip(&model.data) {
            let rounded = match dtype {
                FloatType::BF16 => half::bf16::from_f32(*theirs).to_f32(),
                _ => half::f16::from_f32(*theirs).to_f32(),
            };
            assert_eq!(*ours, rounded);
        }
    }
    save_safetensors(&model, folder.path(), FloatType::F32, u64::MAX).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "generation_config.json", "model.safetensors"]);
}

#[test]
fn a_failed_save_leaves_the_earlier_one() {
    let mut model = small_model();
    let folder = tempfile::tempdir().unwrap();
    save_safetensors(&model, folder.path(), FloatType::F32, u64::MAX).unwrap();
    let before = model.data.clone();
    *model.data.last_mut().unwrap() = 1e6;
    let error = save_safetensors(&model, folder.path(), FloatType::F16, 8000).unwrap_err();
    assert_eq!(error.code(), "ZA_MODEL_UNSUPPORTED");
    assert!(error.to_string().contains("lm_head.weight"), "{error}");
    assert_eq!(load(folder.path()).unwrap().weights.data, before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "no temporary files");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named() {
    // The kernel's device that is always full.
    use std::io::Write;
    let error = std::fs::File::options().write(true).open("/dev/full").unwrap().write_all(&[0; 16]).unwrap_err();
    assert_eq!(Error::io(Path::new("model.safetensors"), "write", error).code(), "ZA_DISK_FULL");
}

#[test]
fn files_agree_with_the_safetensors_crate() {
    let folder = tempfile::tempdir().unwrap();
    save_safetensors(&small_model(), folder.path(), FloatType::BF16, u64::MAX).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let theirs = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ours = SafeTensorsFile::open(&path).unwrap();
    assert_eq!(theirs.len(), ours.tensors().len());
    for (name, view) in theirs.iter() {
        let tensor = ours.find(name).unwrap();
        assert_eq!((tensor.dtype, tensor.shape.as_slice()), (view.dtype(), view.shape()));
        assert_eq!(ours.bytes(name).unwrap(), view.data());
    }
    assert_eq!(ours.metadata(), [("format".to_string(), "pt".to_string())]);
}

#[test]
fn paths_that_hold_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(code(&path.join("nothing")).0, "ZA_MODEL_NOT_FOUND");
    let (found, message) = code(path);
    assert_eq!(found, "ZA_MODEL_NOT_FOUND");
    assert!(message.contains("config.json"), "{message}");
    std::fs::write(path.join("config.json"), small_config().to_json().to_string()).unwrap();
    let (found, message) = code(path);
    assert_eq!(found, "ZA_MODEL_NOT_FOUND");
    assert!(message.contains("model.safetensors"), "{message}");
    std::fs::write(path.join("pytorch_model.bin"), b"x").unwrap();
    for path in [path, &path.join("pytorch_model.bin")] {
        let (found, message) = code(path);
        assert_eq!(found, "ZA_MODEL_UNSUPPORTED");
        assert!(message.contains("pickle"), "{message}");
    }
    std::fs::write(path.join("model.safetensors"), b"x").unwrap();
    assert_eq!(code(path).0, "ZA_MODEL_FORMAT");
    assert_eq!(code(&path.join("config.json")).0, "ZA_MODEL_UNSUPPORTED");
}

#[test]
fn shapes_and_missing_heads_are_named() {
    let folder = tempfile::tempdir().unwrap();
    save_safetensors(&small_model(), folder.path(), FloatType::F32, u64::MAX).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut config = small_config().to_json();
        config[field] = value;
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    };
    with("intermediate_size", 60.into());
    let (found, message) = code(folder.path());
    assert_eq!(found, "ZA_TENSOR_SHAPE");
    assert!(message.contains("gate_proj") && message.contains("[64, 32]") && message.contains("[60, 32]"), "{message}");
    with("num_hidden_layers", 3.into());
    let (found, message) = code(folder.path());
    assert_eq!(found, "ZA_TENSOR_MISSING");
    assert!(message.contains("model.layers.2.input_layernorm.weight"), "{message}");
    // An absurd size meets the tensors before it meets the allocator.
    with("vocab_size", (1 << 24).into());
    assert_eq!(code(folder.path()).0, "ZA_TENSOR_SHAPE");
    with("num_hidden_layers", 1.into());
    assert_eq!(load(folder.path()).unwrap().report.unused.len(), 9);
    with("tie_word_embeddings", true.into());
    assert_eq!(load(folder.path()).unwrap().report.unused, Vec::<String>::new(), "a tied model's head may be there");
    let mut tied = small_config();
    tied.tie_word_embeddings = true;
    save_safetensors(&Weights::random(tied, 1), folder.path(), FloatType::F32, u64::MAX).unwrap();
    with("tie_word_embeddings", false.into());
    let (found, message) = code(folder.path());
    assert_eq!(found, "ZA_TENSOR_MISSING");
    assert!(message.contains("tie_word_embeddings"), "{message}");
}

#[test]
fn foreign_dtypes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    save_safetensors(&small_model(), folder.path(), FloatType::F32, u64::MAX).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&bytes[8..40_000.min(bytes.len())]).into_owned();
    let place = 8 + text.find(r#""dtype":"F32""#).unwrap() + 9;
    let mut changed = bytes.clone();
    changed[place] = b'I';
    std::fs::write(&path, changed).unwrap();
    let (found, message) = code(folder.path());
    assert_eq!(found, "ZA_TENSOR_DTYPE");
    assert!(message.contains("I32") && message.contains("model.embed_tokens.weight"), "{message}");
}

#[test]
fn an_index_cannot_leave_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), small_config().to_json().to_string()).unwrap();
    for name in ["../other.safetensors", "/etc/x", "a\\b.safetensors", "c:x", "..", ""] {
        let index = serde_json::json!({ "weight_map": { "model.norm.weight": name } });
        std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        assert_eq!(code(folder.path()).0, "ZA_MODEL_FORMAT", "{name}");
    }
}

#[test]
fn generation_config_gives_the_stop_tokens() {
    let folder = tempfile::tempdir().unwrap();
    save_safetensors(&small_model(), folder.path(), FloatType::F32, u64::MAX).unwrap();
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id":[2,7]}"#).unwrap();
    assert_eq!(load(folder.path()).unwrap().weights.config.eos_token_ids, [2, 7]);
}

#[test]
fn gguf_gives_the_model_it_was_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    std::fs::write(&path, small_gguf()).unwrap();
    let loaded = load(&path).unwrap();
    let model = small_model();
    assert_eq!(loaded.source, Source::Gguf);
    assert_eq!(loaded.weights.data, model.data);
    let config = &loaded.weights.config;
    assert_eq!((config.model_type.as_str(), config.sliding_window), ("llama", None));
    assert_eq!(config.rms_norm_eps, 1e-5);
    assert_eq!(config.eos_token_ids, [2]);
    let tokenizer = loaded.tokenizer_gguf.unwrap();
    assert_eq!(tokenizer["tokenizer.ggml.model"], "gpt2");
    assert_eq!(tokenizer["tokenizer.ggml.tokens"][39], "token 39");
    assert!(!tokenizer.contains_key("llama.block_count"));

    let windowed = gguf_of(&model, &[("llama.attention.sliding_window", gguf_file::Value::U32(6))]);
    let loaded = gguf::from_gguf(&Gguf::read(windowed, &path).unwrap(), Default::default()).unwrap();
    assert_eq!((loaded.weights.config.model_type.as_str(), loaded.weights.config.sliding_window), ("mistral", Some(6)));
}

#[test]
fn gguf_blocks_are_dequantised_as_candle_does() {
    // 3 pieces of reading, the last one short.
    let values: Vec<f32> = (0..256 * 520).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01).collect();
    let tensor = Tensor::from_vec(values, (520, 256), &Device::Cpu).unwrap();
    for dtype in [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ] {
        let quantised = QTensor::quantize(&tensor, dtype).unwrap();
        let mut bytes = Cursor::new(Vec::new());
        gguf_file::write(&mut bytes, &[], &[("x", &quantised)]).unwrap();
        let gguf = Gguf::read(bytes.into_inner(), Path::new("x.gguf")).unwrap();
        let mut out = vec![0.0; 520 * 256];
        gguf.dequantize(&gguf.tensors[0], 0, &mut out).unwrap();
        let expected = quantised.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(out, expected, "{dtype:?}");
    }
}

#[test]
fn gguf_that_we_do_not_compute_is_refused_by_name() {
    use gguf_file::Value::{F32, String as Text, U32};
    let cases = [
        ("general.architecture", Text("qwen2".to_string()), "ZA_MODEL_UNSUPPORTED", "qwen2"),
        ("llama.rope.scaling.type", Text("yarn".to_string()), "ZA_MODEL_UNSUPPORTED", "yarn"),
        ("llama.rope.scaling.factor", F32(4.0), "ZA_MODEL_UNSUPPORTED", "rope.scaling.factor"),
        ("llama.expert_count", U32(8), "ZA_MODEL_UNSUPPORTED", "experts"),
        ("llama.attention.value_length", U32(16), "ZA_MODEL_UNSUPPORTED", "value_length"),
        ("llama.attention.head_count", U32(0), "ZA_MODEL_CONFIG", "num_attention_heads"),
        ("llama.attention.head_count", Text("x".to_string()), "ZA_MODEL_CONFIG", "head_count"),
        ("llama.embedding_length", U32(u32::MAX), "ZA_MODEL_CONFIG", "hidden_size"),
        ("llama.feed_forward_length", U32(60), "ZA_TENSOR_SHAPE", "blk.0.ffn_gate.weight"),
        ("llama.block_count", U32(3), "ZA_TENSOR_MISSING", "blk.2.attn_norm.weight"),
        ("general.alignment", U32(0), "ZA_MODEL_FORMAT", "alignment"),
        ("general.alignment", U32(48), "ZA_MODEL_FORMAT", "alignment"),
    ];
    for (key, value, code, word) in cases {
        let bytes = gguf_of(&small_model(), &[(key, value)]);
        let result = Gguf::read(bytes, Path::new("x.gguf")).and_then(|gguf| gguf::from_gguf(&gguf, Default::default()));
        let error = result.expect_err(key);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn gguf_headers_that_lie_are_refused() {
    let header = |dimensions: &[u64], kind: u32, offset: u64| {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
        bytes.push(b'x');
        bytes.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.resize(256, 0);
        bytes
    };
    let read = |bytes| Gguf::read(bytes, Path::new("x.gguf")).map(|gguf| gguf.tensors);
    assert_eq!(read(header(&[4, 2], 0, 0)).unwrap()[0].shape, [2, 4]);
    for (dimensions, kind, offset, word) in [
        // Products that wrap to a small number.
        (&[(1 << 62) + 16, 4][..], 0, 0, "overflows"),
        (&[1 << 63, 2], 0, 0, "overflows"),
        (&[1 << 62], 0, 0, "overflows"),
        (&[4, 2], 0, u64::MAX - 31, "overflows"),
        (&[4, 2], 0, 1 << 40, "cut off"),
        (&[4, 2], 0, 8, "alignment"),
        (&[16], 2, 0, "block"),
        (&[], 0, 0, "dimensions"),
        (&[1, 1, 1, 1, 1], 0, 0, "dimensions"),
        (&[32], 23, 0, "IQ4_XS"),
        (&[32], 999, 0, "999"),
    ] {
        let error = read(header(dimensions, kind, offset)).expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
    }
    let mut big_endian = header(&[4], 0, 0);
    big_endian[4..8].reverse();
    assert!(read(big_endian).unwrap_err().to_string().contains("big-endian"));
}

#[test]
fn case_11_odd_but_legal_safetensors() {
    let Some(cases) = shared("ZEPHYR_CASES", "cases") else { return };
    let case = cases.join("11-safetensors-legal-oddities");
    let loaded = load(&case.join("model")).unwrap();
    assert_eq!(loaded.report.unused, ["unused.empty", "unused.empty2"]);
    check_sum(&loaded.weights, &case);
    let only = read_safetensors(&case.join("only-metadata.safetensors")).unwrap();
    assert!(only.tensors().is_empty());
    let step = only.metadata().iter().find(|(key, _)| key == "step").unwrap();
    assert_eq!(step.1, "12");
    assert!(only.metadata().iter().any(|(_, value)| !value.is_ascii()));
    let scalar = read_safetensors(&case.join("scalar.safetensors")).unwrap();
    assert_eq!(scalar.tensors()[0].shape, Vec::<usize>::new());
    assert_eq!(scalar.floats("temperature").unwrap(), [0.5]);

    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(case.join("model/config.json"), folder.path().join("config.json")).unwrap();
    std::fs::copy(case.join("only-metadata.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let (found, message) = code(folder.path());
    assert_eq!(found, "ZA_TENSOR_MISSING");
    assert!(message.contains("model.embed_tokens.weight"), "{message}");
}

#[test]
fn case_12_the_index_decides() {
    let Some(cases) = shared("ZEPHYR_CASES", "cases") else { return };
    let case = cases.join("12-index-against-shards");
    let expected = expected(&case);
    let loaded = load(&case.join("stale-copy-in-other-shard")).unwrap();
    check_sum(&loaded.weights, &case);
    assert_eq!(loaded.report.unused.len(), 1);
    assert!(loaded.report.unused[0].contains("model.embed_tokens.weight"));
    let (found, message) = code(&case.join("shard-file-missing"));
    assert_eq!(found, "ZA_SHARD_MISSING");
    assert!(message.contains(expected["missing_file"].as_str().unwrap()), "{message}");
    let (found, message) = code(&case.join("tensor-not-in-its-shard"));
    assert_eq!(found, "ZA_TENSOR_MISSING");
    assert!(message.contains(expected["missing_tensor"].as_str().unwrap()), "{message}");
    assert!(message.contains(expected["missing_file"].as_str().unwrap()), "{message}");
}

fn expected(case: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(case.join("expected.json")).unwrap()).unwrap()
}

fn check_sum(weights: &Weights, case: &Path) {
    let expected = expected(case);
    let ids: Vec<u32> = serde_json::from_value(expected["ids"].clone()).unwrap();
    let logps = Generator::new(weights).score(&ids).unwrap();
    let sum: f64 = logps.iter().map(|logp| f64::from(*logp)).sum();
    let wanted = expected["sum"].as_f64().unwrap();
    assert!((sum - wanted).abs() < 1e-4, "{sum} instead of {wanted}");
}
