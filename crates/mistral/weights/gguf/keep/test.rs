use std::path::Path;

use candle_core::quantized::GgmlDType;

use crate::config::Config;
use crate::generate::{CacheType, GenerateOptions, Generator};
use crate::layout::Weights;
use crate::model::Model;
use crate::storage::Storage;
use crate::weights::gguf::{Gguf, from_gguf};
use crate::weights::test::gguf_in;

/// Rows of one whole block of the K types.
fn config() -> Config {
    let text = r#"{"model_type":"llama","vocab_size":50,"hidden_size":256,"intermediate_size":512,
        "num_hidden_layers":3,"num_attention_heads":8,"num_key_value_heads":4,"max_position_embeddings":64,
        "rms_norm_eps":1e-05,"rope_theta":10000.0,"initializer_range":0.06,"tie_word_embeddings":false}"#;
    Config::from_json(text, "config.json").unwrap()
}

fn file(dtype: impl Fn(&str) -> GgmlDType) -> Gguf<Vec<u8>> {
    let vector = |name: &str| name.contains("norm");
    let model = Weights::random(config(), 5);
    let bytes = gguf_in(&model, &[], |name| if vector(name) { GgmlDType::F32 } else { dtype(name) });
    Gguf::read(bytes, Path::new("kept.gguf")).unwrap()
}

/// One type for all, or a mixture as llama.cpp's own are: parts of a group in several types.
fn mixtures() -> Vec<(String, Gguf<Vec<u8>>)> {
    use GgmlDType::{BF16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let mut all: Vec<_> = [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K]
        .map(|dtype| (format!("{dtype:?}"), file(|_| dtype)))
        .into();
    let mixed = |name: &str| match name {
        _ if name.contains("attn_v") => Q6K,
        _ if name.contains("attn_k") => F16,
        _ if name.contains("ffn_up") => Q5_1,
        "output.weight" => F32,
        "token_embd.weight" => Q5_0,
        _ => Q4K,
    };
    all.push(("mixed".to_string(), file(mixed)));
    all
}

#[test]
fn kept_weights_hold_the_values_of_dequantised_ones() {
    for (name, gguf) in mixtures() {
        let dequantised = from_gguf(&gguf, Storage::F32).unwrap().weights;
        let kept = from_gguf(&gguf, Storage::Gguf).unwrap().weights;
        assert_eq!((kept.storage(), kept.storage().name()), (Storage::Gguf, "gguf"));
        let back = kept.converted(Storage::F32).unwrap();
        assert!(back.data == dequantised.data, "{name}: other values");
        let file: u64 = gguf.tensors.iter().map(|tensor| tensor.range.end - tensor.range.start).sum();
        // Groups of sixteen rows; factors of the K types in whole bytes.
        let bytes = kept.bytes() as f64 / file as f64;
        assert!((0.999..1.07).contains(&bytes), "{name}: {bytes} of the file's size");
    }
}

#[test]
fn kept_weights_compute_what_their_values_do() {
    let ids: Vec<u32> = (0..40).map(|i| (i * 17 + 3) % 50).collect();
    for (name, gguf) in mixtures() {
        let dequantised = from_gguf(&gguf, Storage::F32).unwrap().weights;
        let kept = from_gguf(&gguf, Storage::Gguf).unwrap().weights;
        let expected = Generator::new(&dequantised).logits(&ids).unwrap();
        let spread = expected.iter().map(|logit| logit.abs()).fold(0.0, f32::max);
        for (cache, bound) in [(CacheType::F32, 3e-4), (CacheType::F16, 1e-3), (CacheType::Q8, 3e-2)] {
            let mut generator = Generator::new(&kept).with_cache(cache);
            let found = generator.logits(&ids).unwrap();
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= bound * spread, "{name}, {cache:?}: off by {worst} of {spread}");
            // By token, as decoding goes.
            let options = GenerateOptions { max_tokens: 12, temperature: 0.0, ..Default::default() };
            let answer = generator.generate(&ids[..9], &options, |_, _| std::ops::ControlFlow::Continue(())).unwrap();
            let scores = generator.score(&[&ids[..9], &answer.ids].concat()).unwrap();
            for (found, expected) in answer.logps.iter().zip(&scores[8..]) {
                assert!((found - expected).abs() < 2.0 * bound * spread, "{name}, {cache:?}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn what_has_no_products_is_refused_by_name() {
    for (dtype, name) in [(GgmlDType::Q2K, "Q2_K"), (GgmlDType::Q3K, "Q3_K")] {
        let gguf = file(|name| if name == "blk.1.ffn_down.weight" { dtype } else { GgmlDType::Q4_0 });
        let error = from_gguf(&gguf, Storage::Gguf).unwrap_err();
        assert_eq!(error.code(), "ZA_MODEL_UNSUPPORTED");
        assert!(error.to_string().contains(&format!("{name} of tensor `blk.1.ffn_down.weight`")), "{error}");
        from_gguf(&gguf, Storage::F32).unwrap();
    }
}

#[test]
fn kept_weights_are_not_trained() {
    let kept = from_gguf(&file(|_| GgmlDType::Q8_0), Storage::Gguf).unwrap().weights;
    let error = Model::from(&kept).check_trainable().unwrap_err();
    assert_eq!(error.code(), "ZA_MODEL_FROZEN");
    assert!(error.to_string().contains("gguf"), "{error}");
    let error = Weights::random(config(), 1).converted(Storage::Gguf).unwrap_err();
    assert_eq!(error.code(), "ZA_MODEL_UNSUPPORTED");
}
