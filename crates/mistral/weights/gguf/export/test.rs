use std::fs::File;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::gguf_file::Content;
use serde_json::{Map, Value, json};

use super::{Description, FileType, export, size_label};
use crate::config::Config;
use crate::layout::{Layout, Weights};
use crate::storage::Storage;
use crate::weights::test::{small_config, small_model};
use crate::weights::{load, load_as};

const ALL: [FileType; 6] =
    [FileType::F32, FileType::F16, FileType::BF16, FileType::Q8_0, FileType::Q4_0, FileType::Q4_K];

fn tokenizer(rows: usize) -> Map<String, Value> {
    let tokens: Vec<String> = (0..rows).map(|id| format!("token {id}")).collect();
    let Value::Object(map) = json!({
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": vec![1; rows],
        "tokenizer.ggml.scores": vec![-1.5; rows],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": true,
        "tokenizer.chat_template": "{{ messages }} ▁",
    }) else {
        unreachable!()
    };
    map
}

fn write(model: &Weights, path: &Path, file_type: FileType) -> super::Exported {
    let tokenizer = tokenizer(model.config.vocab_size);
    export(model, path, file_type, &Description { name: "small", tokenizer: &tokenizer }).unwrap()
}

/// Rows of whole blocks of every type.
fn wide_config(tied: bool) -> Config {
    let text = json!({ "model_type": "mistral", "vocab_size": 60, "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "sliding_window": null, "initializer_range": 0.06,
        "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": tied });
    Config::from_json(&text.to_string(), "config.json").unwrap()
}

#[test]
fn every_type_comes_back_as_what_it_was_rounded_to() {
    let folder = tempfile::tempdir().unwrap();
    let deviation = 0.06f32;
    for tied in [false, true] {
        let model = Weights::random(wide_config(tied), 4);
        for (file_type, error) in ALL.into_iter().zip([0.0, 5e-4, 4e-3, 0.01, 0.12, 0.1]) {
            let path = folder.path().join("model.gguf");
            let written = write(&model, &path, file_type);
            assert_eq!(written.bytes, std::fs::metadata(&path).unwrap().len());
            assert_eq!(written.bytes % 32, 0);
            assert_eq!(written.notes, Vec::<String>::new());
            let loaded = load(&path).unwrap();
            assert_eq!(loaded.report.unused, Vec::<String>::new());
            for spec in &model.layout.tensors {
                let (ours, back) = (&model.data[spec.range.clone()], &loaded.weights.data[spec.range.clone()]);
                let squares: f32 = ours.iter().zip(back).map(|(a, b)| (a - b).powi(2)).sum();
                let relative = (squares / ours.len() as f32).sqrt() / deviation;
                assert!(relative <= error, "{file_type:?}, {}: {relative}", spec.name);
            }
            let (config, expected) = (&loaded.weights.config, &model.config);
            assert_eq!(config.rope_theta, expected.rope_theta);
            assert_eq!(config.rms_norm_eps, expected.rms_norm_eps);
            assert_eq!(config.tie_word_embeddings, tied);
            assert_eq!(Layout::new(config), model.layout);
            assert_eq!(loaded.tokenizer_gguf.as_ref(), Some(&tokenizer(60)), "keys of every kind, in order");
        }
    }
}

#[test]
fn candle_reads_the_file_and_its_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let model = Weights::random(wide_config(false), 4);
    for file_type in ALL {
        write(&model, &path, file_type);
        let mut file = File::open(&path).unwrap();
        let content = Content::read(&mut file).unwrap();
        assert_eq!(content.tensor_infos.len(), model.layout.tensors.len());
        assert_eq!(content.metadata["general.architecture"].to_string().unwrap(), "llama");
        assert_eq!(content.metadata["llama.attention.head_count_kv"].to_u32().unwrap(), 4);
        let loaded = load(&path).unwrap().weights;
        // Of the tensors whose rows are in the same order there.
        for (ours, theirs) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.1.self_attn.v_proj.weight", "blk.1.attn_v.weight"),
            ("model.layers.2.mlp.down_proj.weight", "blk.2.ffn_down.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            let tensor = content.tensor(&mut file, theirs, &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let spec = loaded.layout.find(ours).unwrap();
            assert!(loaded.data[spec.range.clone()] == values, "{file_type:?}, {theirs}");
        }
    }
}

#[test]
fn the_same_model_gives_the_same_bytes_in_any_storage_that_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.gguf"), folder.path().join("two.gguf"));
    let model = small_model();
    write(&model, &one, FileType::Q8_0);
    write(&model, &two, FileType::Q8_0);
    let bytes = std::fs::read(&one).unwrap();
    assert!(bytes == std::fs::read(&two).unwrap());
    // Kept as it is, and written as F32: the same values as dequantised.
    let kept = load_as(&one, Storage::Gguf).unwrap().weights;
    let written = write(&kept, &two, FileType::F32);
    assert!(written.notes.iter().any(|note| note.contains("gguf")), "{:?}", written.notes);
    assert!(load(&two).unwrap().weights.data == load(&one).unwrap().weights.data);
}

#[test]
fn a_window_is_kept_and_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/model.gguf");
    let written = write(&small_model(), &path, FileType::F32);
    assert!(written.notes[0].contains("window of 6"), "{:?}", written.notes);
    let config = load(&path).unwrap().weights.config;
    assert_eq!((config.model_type.as_str(), config.sliding_window), ("mistral", Some(6)));
    assert_eq!(config.max_position_embeddings, small_config().max_position_embeddings);
}

#[test]
fn types_are_chosen_as_llama_quantize_chooses_them() {
    let chosen = |layers: usize, hidden: usize, tied: bool, file_type: FileType| {
        let text = json!({ "model_type": "llama", "vocab_size": 16, "hidden_size": hidden, "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 2,
            "max_position_embeddings": 64, "tie_word_embeddings": tied });
        let config = Config::from_json(&text.to_string(), "config.json").unwrap();
        let names: Vec<(String, String)> = Layout::new(&config)
            .tensors
            .iter()
            .map(|spec| (spec.name.clone(), super::name_of(file_type.of(spec, &config))))
            .collect();
        move |name: &str| names.iter().find(|(own, _)| own == name).unwrap().1.clone()
    };
    let of = chosen(32, 256, false, FileType::Q4_K);
    assert_eq!((of("lm_head.weight"), of("model.embed_tokens.weight")), ("Q6_K".into(), "Q4_K".into()));
    let more: Vec<usize> =
        (0..32).filter(|layer| of(&format!("model.layers.{layer}.mlp.down_proj.weight")) == "Q6_K").collect();
    assert_eq!(more, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
    assert_eq!(of("model.layers.6.self_attn.v_proj.weight"), "Q6_K");
    assert_eq!(of("model.layers.6.self_attn.k_proj.weight"), "Q4_K");
    assert_eq!(of("model.layers.6.input_layernorm.weight"), "F32");
    let of = chosen(2, 256, true, FileType::Q4_0);
    assert_eq!(
        (of("model.embed_tokens.weight"), of("model.layers.1.mlp.down_proj.weight")),
        ("Q6_K".into(), "Q4_0".into())
    );
    // SmolLM2-135M's rows are no whole blocks of the K types.
    let of = chosen(30, 576, true, FileType::Q4_K);
    assert_eq!(
        (of("model.embed_tokens.weight"), of("model.layers.9.mlp.up_proj.weight")),
        ("Q8_0".into(), "Q5_0".into())
    );
    let of = chosen(1, 40, false, FileType::Q8_0);
    assert_eq!(of("lm_head.weight"), "F16");
    for (parameters, label) in
        [(134_515_008, "135M"), (7_241_732_096, "7.2B"), (8_030_261_248, "8.0B"), (52_000, "52K")]
    {
        assert_eq!(size_label(parameters), label);
    }
}

#[test]
fn a_failed_export_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let tokenizer = tokenizer(40);
    for (value, file_type, word) in
        [(1e6, FileType::F16, "65504"), (f32::NAN, FileType::Q8_0, "NaN"), (3e38, FileType::Q4_0, "scales")]
    {
        let mut model = small_model();
        *model.data.last_mut().unwrap() = value;
        let error = export(&model, &path, file_type, &Description { name: "", tokenizer: &tokenizer }).unwrap_err();
        assert_eq!(error.code(), "ZA_MODEL_UNSUPPORTED");
        assert!(error.to_string().contains("lm_head.weight") && error.to_string().contains(word), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
