use serde_json::{Map, Value, json};

use super::*;

pub(super) fn trained() -> Value {
    let texts = ["the cat sat on the mat", "the dog sat on the cat", "a cat and a dog"].map(str::to_string);
    serde_json::from_str(&train_bpe(texts.into_iter(), 280, &["<unk>", "<s>", "</s>"]).unwrap()).unwrap()
}

pub(super) fn load(file: &Value, config: Option<&str>) -> Result<Tokenizer> {
    Tokenizer::from_json(&serde_json::to_vec(file).unwrap(), config)
}

#[test]
fn training_is_deterministic_and_numbers_the_specials_first() {
    let file = trained();
    assert_eq!(file, trained());
    let tokenizer = load(&file, None).unwrap();
    for (id, token) in (0u32..).zip(["<unk>", "<s>", "</s>"]) {
        assert_eq!(tokenizer.token_to_id(token), Some(id));
        assert!(tokenizer.is_special(id));
    }
    let text = "the 🦙 sat\n on </s>";
    let ids = tokenizer.encode(text, true, Specials::Text).unwrap();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    assert!(tokenizer.encode("the cat", false, Specials::Text).unwrap().len() < 7, "merges were learned");
    assert_eq!(tokenizer.encode("a</s>", false, Specials::Parse).unwrap().last(), Some(&2));
}

#[test]
fn training_needs_room_for_the_bytes() {
    let error = train_bpe(std::iter::empty(), 256, &["<s>"]).unwrap_err();
    assert_eq!(error.code(), "ZA_TOKENIZER_TRAIN");
    assert!(error.to_string().contains("257"), "{error}");
    assert!(train_bpe(std::iter::empty(), 300, &["<s>", "<s>"]).is_err());
}

#[test]
fn tokens_of_the_configuration_are_texts_or_objects() {
    let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null, "unk_token": "[none]",
        "add_bos_token": true, "add_eos_token": true, "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]}"#;
    let tokenizer = load(&trained(), Some(config)).unwrap();
    assert_eq!(tokenizer.bos(), Some(&Special { token: "<s>".into(), id: 1 }));
    assert_eq!(tokenizer.eos().unwrap().id, 2);
    assert_eq!((tokenizer.pad(), tokenizer.unk()), (None, None));
    assert_eq!(tokenizer.chat_template(), Some("yes"));
    assert!(tokenizer.add_bos());
    let ids = tokenizer.encode("cat", true, Specials::Text).unwrap();
    assert_eq!((ids[0], ids[ids.len() - 1]), (1, 2));
}

#[test]
fn a_special_token_that_does_not_exist_is_named() {
    let error = load(&trained(), Some(r#"{"eos_token": "<|end|>"}"#)).unwrap_err();
    assert_eq!(error.code(), "ZA_TOKENIZER_SPECIAL");
    assert!(error.to_string().contains("<|end|>"), "{error}");
    assert_eq!(load(&trained(), Some("{")).unwrap_err().code(), "ZA_TOKENIZER_CONFIG");
    assert_eq!(load(&trained(), Some(r#"{"eos_token": 3}"#)).unwrap_err().code(), "ZA_TOKENIZER_CONFIG");
}

#[test]
fn a_named_token_that_is_only_in_the_vocabulary_becomes_special() {
    let mut file = trained();
    file["added_tokens"] = json!([]);
    let tokenizer = load(&file, Some(r#"{"eos_token": "</s>"}"#)).unwrap();
    assert!(tokenizer.is_special(2));
    assert_eq!(tokenizer.encode("</s>", false, Specials::Parse).unwrap(), [2]);
    assert_ne!(tokenizer.encode("</s>", false, Specials::Text).unwrap(), [2]);
}

#[test]
fn ids_may_have_holes_and_keep_their_declared_numbers() {
    let mut file = trained();
    let added = file["added_tokens"].as_array_mut().unwrap();
    added.push(json!({ "id": 1000, "content": "<|far|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }));
    let tokenizer = load(&file, None).unwrap();
    assert_eq!(tokenizer.token_to_id("<|far|>"), Some(1000));
    assert_eq!(tokenizer.vocabulary(), 1001);
    assert_eq!(tokenizer.id_to_token(999), None);
    assert_eq!(tokenizer.decode(&[999, 1000], false).unwrap(), "<|far|>");
    assert_eq!(tokenizer.encode("<|far|>", false, Specials::Parse).unwrap(), [1000]);
    assert!(!tokenizer.encode("<|far|>", false, Specials::Text).unwrap().contains(&1000));
}

#[test]
fn contradictory_vocabularies_are_refused() {
    for id in [json!(5), json!(-1), json!("7"), json!(4_294_967_296_u64)] {
        let mut file = trained();
        file["model"]["vocab"]["twice"] = id;
        assert_eq!(load(&file, None).unwrap_err().code(), "ZA_TOKENIZER_VOCABULARY");
    }
    let mut file = trained();
    file["added_tokens"][2]["id"] = json!(1);
    assert_eq!(load(&file, None).unwrap_err().code(), "ZA_TOKENIZER_VOCABULARY");
}

#[test]
fn truncated_and_foreign_files_are_refused() {
    let bytes = serde_json::to_vec(&trained()).unwrap();
    assert_eq!(Tokenizer::from_json(&bytes[..bytes.len() / 2], None).unwrap_err().code(), "ZA_TOKENIZER_FILE");
    for file in
        [json!([]), json!({}), json!({ "model": 1 }), json!({ "model": {} }), json!({ "version": "9", "model": {} })]
    {
        assert_eq!(load(&file, None).unwrap_err().code(), "ZA_TOKENIZER_FILE", "{file}");
    }
    let mut file = trained();
    file["model"]["dropout"] = json!(0.1);
    assert!(load(&file, None).unwrap_err().to_string().contains("dropout"));
}

#[test]
fn lengths_in_the_file_do_not_cut_texts() {
    let mut file = trained();
    file["truncation"] = json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
    let tokenizer = load(&file, None).unwrap();
    assert!(tokenizer.encode("a dog and a cat", true, Specials::Text).unwrap().len() > 2);
}

#[test]
fn added_tokens_strip_and_match_words_as_in_the_crate() {
    let mut file = trained();
    let flags = |id: u32, content: &str, single_word: bool, lstrip: bool, rstrip: bool, normalized: bool| {
        json!({ "id": id, "content": content,
        "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip, "normalized": normalized, "special": false })
    };
    let added = file["added_tokens"].as_array_mut().unwrap();
    added.extend([
        flags(280, "<left>", false, true, false, false),
        flags(281, "<right>", false, false, true, false),
        flags(282, "word", true, false, false, false),
        flags(283, "wordy", false, false, false, false),
        flags(284, "Norm", false, false, false, true),
    ]);
    file["normalizer"] = json!({ "type": "Lowercase" });
    for id in 277..280 {
        let token = format!("unused{id}");
        if file["model"]["vocab"].as_object().unwrap().values().all(|v| v.as_u64() != Some(id)) {
            file["model"]["vocab"][token] = id.into();
        }
    }
    let tokenizer = load(&file, None).unwrap();
    let reference = tokenizers::Tokenizer::from_bytes(tokenizer.to_json().unwrap()).unwrap();
    for text in [
        "a  <left> b",
        "a <right>  b",
        "word words wordy a_word (word)",
        "NORM norm Norm",
        "  <right> <left>  word",
        "<right>  <left>",
        "",
    ] {
        assert_eq!(
            tokenizer.encode(text, false, Specials::Text).unwrap(),
            reference.encode(text, false).unwrap().get_ids(),
            "{text}"
        );
    }
}

pub(super) fn gguf(pre: &str) -> Map<String, Value> {
    let file = trained();
    let mut tokens: Vec<(u64, &String)> =
        file["model"]["vocab"].as_object().unwrap().iter().map(|(t, id)| (id.as_u64().unwrap(), t)).collect();
    tokens.sort();
    let kinds: Vec<u32> = tokens.iter().map(|(id, _)| if *id < 3 { 3 } else { 1 }).collect();
    let merges: Vec<String> = file["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()))
        .collect();
    let tokens: Vec<&String> = tokens.into_iter().map(|(_, t)| t).collect();
    Map::from_iter([
        ("tokenizer.ggml.model".to_string(), json!("gpt2")),
        ("tokenizer.ggml.pre".to_string(), json!(pre)),
        ("tokenizer.ggml.tokens".to_string(), json!(tokens)),
        ("tokenizer.ggml.token_type".to_string(), json!(kinds)),
        ("tokenizer.ggml.merges".to_string(), json!(merges)),
        ("tokenizer.ggml.eos_token_id".to_string(), json!(2)),
    ])
}

#[test]
fn every_pre_tokenizer_keeps_the_text() {
    let text = "The cats' 12345 dogs\r\n\n  sat—naïve 🦙</s> don't DON'T";
    let mut seen = Vec::new();
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let tokenizer = Tokenizer::from_gguf(&gguf(pre)).unwrap();
        let ids = tokenizer.encode(text, true, Specials::Text).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text, "{pre}");
        assert_eq!(tokenizer.eos().unwrap().token, "</s>");
        seen.push(ids);
    }
    // Without digits in the merges the pieces differ, the ids do not.
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn contradictory_gguf_metadata_is_refused() {
    let change = |key: &str, value: Value| {
        let mut metadata = gguf("gpt-2");
        metadata.insert(key.to_string(), value);
        Tokenizer::from_gguf(&metadata).unwrap_err().code()
    };
    assert_eq!(change("tokenizer.ggml.model", json!("rwkv")), "ZA_TOKENIZER_UNSUPPORTED");
    assert_eq!(change("tokenizer.ggml.tokens", json!(["a", "a"])), "ZA_TOKENIZER_FILE");
    assert_eq!(change("tokenizer.ggml.token_type", json!([1])), "ZA_TOKENIZER_FILE");
    assert_eq!(change("tokenizer.ggml.merges", json!(["t h e"])), "ZA_TOKENIZER_MERGE");
    assert_eq!(change("tokenizer.ggml.eos_token_id", json!(99_999)), "ZA_TOKENIZER_FILE");
    assert_eq!(Tokenizer::from_gguf(&Map::new()).unwrap_err().code(), "ZA_TOKENIZER_FILE");
}
