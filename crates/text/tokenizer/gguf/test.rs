use serde_json::{Map, Value, json};

use super::super::test::{gguf, load, trained};
use super::super::{Specials, Tokenizer};
use super::PRE_TOKENIZERS;
use crate::error::Result;

const TEXT: &str = "The cat's 12345 dogs\r\n\n  sat—naïve 🦙</s> on the mat";

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, true, Specials::Text).unwrap()
}

/// SentencePiece's kind: byte tokens, letters, and words that scores put together.
fn sentence_piece(merges: &[(&str, &str)]) -> Value {
    let mut vocabulary = Map::new();
    let mut add = |token: String| {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(id.into());
    };
    ["<unk>", "<s>", "</s>"].into_iter().for_each(|token| add(token.to_string()));
    (0..256).for_each(|byte| add(format!("<0x{byte:02X}>")));
    merges.iter().for_each(|(left, right)| add(format!("{left}{right}")));
    "▁helowrd".chars().for_each(|letter| add(letter.to_string()));
    let special = |(id, token): (usize, &str)| json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let specials: Vec<Value> = ["<unk>", "<s>", "</s>"].into_iter().enumerate().map(special).collect();
    let pairs: Vec<Value> = merges.iter().map(|(left, right)| json!([left, right])).collect();
    json!({
        "version": "1.0",
        "added_tokens": specials,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ]},
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": pairs },
    })
}

/// In an order that scores can have: every way to make a token, one behind the other.
const MERGES: [(&str, &str); 9] = [
    ("h", "e"),
    ("l", "o"),
    ("he", "l"),
    ("hel", "lo"),
    ("▁", "hello"),
    ("w", "o"),
    ("o", "r"),
    ("wo", "r"),
    ("w", "or"),
];

const SPECIAL: &str = r#"{"bos_token":"<s>","eos_token":"</s>","unk_token":"<unk>","add_bos_token":true}"#;

fn refusal(found: Result<impl std::fmt::Debug>) -> String {
    let error = found.unwrap_err();
    assert_eq!(error.code(), "ZA_TOKENIZER_EXPORT", "{error}");
    error.to_string()
}

#[test]
fn every_byte_level_tokenizer_comes_back_under_its_name() {
    for own in &PRE_TOKENIZERS {
        let metadata = gguf(own.names[0]);
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let written = tokenizer.to_gguf("template", tokenizer.vocabulary(), &[]).unwrap();
        assert_eq!(written.notes, Vec::<String>::new());
        for (key, value) in &metadata {
            assert_eq!(&written.metadata[key], value, "{key}");
        }
        let again = Tokenizer::from_gguf(&written.metadata).unwrap();
        assert_eq!(again.to_json().unwrap(), tokenizer.to_json().unwrap(), "{}", own.names[0]);
        assert_eq!(ids(&again, TEXT), ids(&tokenizer, TEXT));
        assert_eq!(again.chat_template(), Some("template"));
    }
}

#[test]
fn tokens_special_ids_and_flags_are_written() {
    let config =
        r#"{"bos_token":"<s>","eos_token":"</s>","unk_token":"<unk>","pad_token":"</s>","add_bos_token":true}"#;
    let tokenizer = load(&trained(), Some(config)).unwrap();
    let rows = tokenizer.vocabulary() + 3;
    let written = tokenizer.to_gguf("{{ messages }}", rows, &[2, 7, 8]).unwrap();
    let get = |key: &str| &written.metadata[&format!("tokenizer.{key}")];
    assert_eq!((get("ggml.model"), get("ggml.pre")), (&json!("gpt2"), &json!("gpt-2")));
    assert_eq!(get("ggml.tokens").as_array().unwrap().len(), rows);
    assert_eq!(get("ggml.tokens")[rows - 1], format!("[PAD{}]", rows - 1));
    assert_eq!((&get("ggml.token_type")[0], &get("ggml.token_type")[rows - 1]), (&json!(3), &json!(5)));
    let names =
        ["bos_token_id", "unknown_token_id", "padding_token_id", "eos_token_id", "eot_token_id", "eom_token_id"];
    assert_eq!(names.map(|name| get(&format!("ggml.{name}")).as_u64().unwrap()), [1, 0, 2, 2, 7, 8]);
    assert_eq!((get("ggml.add_bos_token"), get("ggml.add_eos_token")), (&json!(true), &json!(false)));
    assert_eq!(get("chat_template"), "{{ messages }}");
    // Ids without a token have none again.
    let again = Tokenizer::from_gguf(&written.metadata).unwrap();
    assert_eq!(again.vocabulary(), tokenizer.vocabulary());
    assert_eq!(ids(&again, TEXT), ids(&tokenizer, TEXT));
}

#[test]
fn a_sentence_piece_tokenizer_comes_back_from_its_scores() {
    let tokenizer = load(&sentence_piece(&MERGES), Some(SPECIAL)).unwrap();
    let written = tokenizer.to_gguf("", tokenizer.vocabulary(), &[]).unwrap();
    assert_eq!(written.notes, Vec::<String>::new());
    let get = |key: &str| &written.metadata[&format!("tokenizer.ggml.{key}")];
    assert_eq!((get("model"), get("add_space_prefix")), (&json!("llama"), &json!(true)));
    assert_eq!(
        (&get("token_type")[0], &get("token_type")[1], &get("token_type")[3]),
        (&json!(2), &json!(3), &json!(6))
    );
    let score = |token: &str| get("scores")[tokenizer.token_to_id(token).unwrap() as usize].as_f64().unwrap();
    // `wor` is made in two ways, and has the score of the first.
    assert_eq!(["he", "wor", "w", "</s>"].map(score), [0.0, -7.0, 0.0, 0.0]);
    let again = Tokenizer::from_gguf(&written.metadata).unwrap();
    for text in ["hello world", "  hello\nwowor ror 🦙", "</s>", ""] {
        assert_eq!(ids(&again, text), ids(&tokenizer, text), "{text}");
        assert_eq!(again.decode(&ids(&again, text), true).unwrap(), text);
    }
    let plain = {
        let mut file = sentence_piece(&MERGES);
        file["normalizer"] = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
        load(&file, Some(SPECIAL)).unwrap().to_gguf("", 300, &[]).unwrap()
    };
    assert_eq!(plain.metadata["tokenizer.ggml.add_space_prefix"], false);
}

#[test]
fn what_llama_cpp_has_no_words_for_is_refused_by_name() {
    let written = |file: &Value| load(file, None)?.to_gguf("", 300, &[]);
    let changed = |pointer: &str, value: Value| {
        let mut file = trained();
        *file.pointer_mut(pointer).unwrap() = value;
        written(&file)
    };
    assert!(refusal(changed("/normalizer", json!({ "type": "Lowercase" }))).contains("Lowercase"));
    assert!(refusal(changed("/pre_tokenizer/add_prefix_space", json!(true))).contains("ByteLevel"));
    assert!(refusal(changed("/decoder", json!({ "type": "Fuse" }))).contains("Fuse"));
    let unigram =
        json!({ "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]], "byte_fallback": false });
    let file = json!({ "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "model": unigram });
    assert!(refusal(written(&file)).contains("Unigram"));
    let few = load(&trained(), None).unwrap().to_gguf("", 270, &[]);
    assert!(refusal(few).contains("270 rows"));
    // Scores would also make `wor` of `wo` and `r`, or of both pairs before `or`.
    let mut merges = MERGES.to_vec();
    merges.remove(7);
    assert!(refusal(written(&sentence_piece(&merges))).contains("wor"));
    let mut merges = MERGES.to_vec();
    merges.swap(6, 7);
    assert!(refusal(written(&sentence_piece(&merges))).contains("scores"));
}

#[test]
fn what_the_keys_cannot_say_is_noted() {
    let mut file = trained();
    file["added_tokens"][0]["lstrip"] = json!(true);
    let tokenizer = load(&file, Some(r#"{"eos_token":"</s>"}"#)).unwrap();
    let notes = tokenizer.to_gguf("", 300, &[4, 5, 6, 7]).unwrap().notes;
    assert_eq!(notes.len(), 2);
    assert!(notes[0].contains("<unk>") && notes[0].contains("lstrip"), "{notes:?}");
    assert!(notes[1].contains("[6, 7]"), "{notes:?}");
}
