use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{Content, Value, write};

use super::super::{Gguf, from_gguf, keeps};
use crate::weights::load;
use crate::weights::test::{small_gguf, small_model};

/// `small_gguf` in three files as gguf-split writes them: keys in the first, which holds no tensor here.
fn split(folder: &Path, change: impl Fn(usize, &mut Vec<(String, Value)>)) -> Vec<PathBuf> {
    let mut bytes = Cursor::new(small_gguf());
    let content = Content::read(&mut bytes).unwrap();
    let mut names: Vec<String> = content.tensor_infos.keys().cloned().collect();
    names.sort();
    let groups = [&names[..0], &names[..7], &names[7..]];
    let mut paths = Vec::new();
    for (number, names) in groups.into_iter().enumerate() {
        let mut keys: Vec<(String, Value)> = vec![
            ("split.no".to_string(), Value::U16(number as u16)),
            ("split.count".to_string(), Value::U16(3)),
            ("split.tensors.count".to_string(), Value::I32(content.tensor_infos.len() as i32)),
        ];
        if number == 0 {
            keys.extend(content.metadata.clone());
        }
        change(number, &mut keys);
        let tensors: Vec<(&str, QTensor)> =
            names.iter().map(|name| (name.as_str(), content.tensor(&mut bytes, name, &Device::Cpu).unwrap())).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let keys: Vec<(&str, &Value)> = keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let path = folder.join(format!("small-{:05}-of-00003.gguf", number + 1));
        write(&mut std::fs::File::create(&path).unwrap(), &keys, &tensors).unwrap();
        paths.push(path);
    }
    paths
}

fn refusal(path: &Path) -> (&'static str, String) {
    let error = load(path).expect_err("must be refused");
    (error.code(), error.to_string())
}

#[test]
fn any_part_leads_to_the_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    for path in split(folder.path(), |_, _| {}) {
        let loaded = load(&path).unwrap();
        assert_eq!(loaded.weights.data, small_model().data);
        assert_eq!(loaded.tokenizer_gguf.unwrap()["tokenizer.ggml.tokens"][39], "token 39");
        assert!(!keeps(&path).unwrap(), "it is float32");
    }
}

#[test]
fn a_missing_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), |_, _| {});
    std::fs::remove_file(&paths[1]).unwrap();
    for path in [&paths[0], &paths[2]] {
        let (code, message) = refusal(path);
        assert_eq!(code, "ZA_SHARD_MISSING");
        assert!(message.contains("small-00002-of-00003.gguf") && message.contains("3 parts"), "{message}");
    }
    // One part alone, as bytes.
    let part = Gguf::read(std::fs::read(&paths[0]).unwrap(), &paths[0]).unwrap();
    let error = from_gguf(&part, Default::default()).unwrap_err();
    assert_eq!(error.code(), "ZA_SHARD_MISSING");
    assert!(error.to_string().contains("small-00002-of-00003.gguf"), "{error}");
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let with = |number: usize, key: &'static str, value: Value| {
        let paths = split(folder.path(), |own, keys| {
            if own == number {
                keys.retain(|(name, _)| name != key);
                keys.push((key.to_string(), value.clone()));
            }
        });
        refusal(&paths[0])
    };
    for (number, key, value, word) in [
        (1, "split.no", Value::U16(2), "by its keys part 3 of 3"),
        (2, "split.count", Value::U16(5), "of 5"),
        (0, "split.tensors.count", Value::I32(99), "not 99"),
        (0, "split.count", Value::U32(u32::MAX), "split.count"),
        (0, "split.count", Value::String("3".to_string()), "split.count"),
    ] {
        let (code, message) = with(number, key, value);
        assert_eq!(code, "ZA_MODEL_FORMAT");
        assert!(message.contains(word), "{message}");
    }
    let paths = split(folder.path(), |_, _| {});
    // The second part under the third one's name: its tensors would be there twice.
    std::fs::copy(&paths[1], &paths[2]).unwrap();
    assert!(refusal(&paths[0]).1.contains("by its name it is part 3"));
    let renamed = folder.path().join("small.gguf");
    std::fs::rename(&paths[0], &renamed).unwrap();
    let (code, message) = refusal(&renamed);
    assert_eq!(code, "ZA_MODEL_FORMAT");
    assert!(message.contains("-00001-of-00003.gguf"), "{message}");
}
