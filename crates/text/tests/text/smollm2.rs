//! A real GGUF file: tokenizer and template out of its metadata, ids as transformers gives.

use std::fs::File;
use std::path::PathBuf;

use candle_core::quantized::gguf_file::{Content, Value as Gguf};
use serde_json::{Map, Value};
use zephyr_text::{ChatTemplate, Specials, StreamDecoder, Tokenizer, encode_prompt};

use crate::folders::{golden, ids, json, messages};

fn value(value: &Gguf) -> Value {
    match value {
        Gguf::U8(x) => (*x).into(),
        Gguf::I8(x) => (*x).into(),
        Gguf::U16(x) => (*x).into(),
        Gguf::I16(x) => (*x).into(),
        Gguf::U32(x) => (*x).into(),
        Gguf::I32(x) => (*x).into(),
        Gguf::U64(x) => (*x).into(),
        Gguf::I64(x) => (*x).into(),
        Gguf::F32(x) => (*x).into(),
        Gguf::F64(x) => (*x).into(),
        Gguf::Bool(x) => (*x).into(),
        Gguf::String(x) => x.clone().into(),
        Gguf::Array(list) => list.iter().map(self::value).collect::<Vec<_>>().into(),
    }
}

fn metadata() -> Option<Map<String, Value>> {
    let folder = std::env::var_os("ZEPHYR_TEST_DATA")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/zephyr-align-test")))?;
    let path = folder.join("smollm2-135m-instruct.q4_1.gguf");
    let Ok(mut file) = File::open(&path) else {
        eprintln!("SKIPPED: {} does not exist; set ZEPHYR_TEST_DATA to its folder", path.display());
        return None;
    };
    let content = Content::read(&mut file).expect("a GGUF file");
    Some(content.metadata.iter().map(|(key, v)| (key.clone(), value(v))).collect())
}

#[test]
fn ids_of_a_gguf_tokenizer_are_those_of_transformers() {
    let (Some(golden), Some(metadata)) = (golden(), metadata()) else { return };
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let template = ChatTemplate::from_tokenizer(&tokenizer).unwrap().expect("the file has a template");
    let special: Vec<String> = (0..u32::try_from(tokenizer.vocabulary()).unwrap())
        .filter(|id| tokenizer.is_special(*id))
        .filter_map(|id| tokenizer.id_to_token(id))
        .collect();
    let golden = json(golden.join("smollm2/smollm2.json"));
    for case in golden["cases"].as_array().unwrap() {
        let (messages, expected) = (messages(&case["messages"]), ids(&case["input_ids"]));
        assert_eq!(template.render_text(&messages, true).unwrap(), case["prompt"].as_str().unwrap());
        assert_eq!(encode_prompt(&tokenizer, &template, &messages, Specials::Parse).unwrap(), expected);
        let text = encode_prompt(&tokenizer, &template, &messages, Specials::Text).unwrap();
        let spells = messages.iter().any(|m| special.iter().any(|s| m.content().unwrap().contains(s)));
        assert_eq!(text == expected, !spells, "only spelled special tokens make a difference");
        assert_eq!(tokenizer.decode(&text, false).unwrap(), case["prompt"].as_str().unwrap());
        if spells {
            let content = messages.last().unwrap().content().unwrap();
            assert!(tokenizer.decode(&text, true).unwrap().contains(content), "spelled special tokens are text");
        }
        let greedy = ids(&case["greedy"]);
        assert_eq!(tokenizer.decode(&greedy, false).unwrap(), case["greedy_text"].as_str().unwrap());
        let mut stream = StreamDecoder::new(&tokenizer, false);
        let mut pieces: String = greedy.iter().filter_map(|id| stream.push(*id).unwrap()).collect();
        pieces.extend(stream.flush().unwrap());
        assert_eq!(pieces, case["greedy_text"].as_str().unwrap());
        let continuation = tokenizer.encode(case["continuation"].as_str().unwrap(), false, Specials::Text).unwrap();
        assert_eq!(continuation, ids(&case["continuation_ids"]));
    }
}

#[test]
fn a_pre_tokenizer_that_we_lack_is_refused_by_name() {
    let Some(mut metadata) = metadata() else { return };
    metadata.insert("tokenizer.ggml.pre".into(), "exotic".into());
    let error = Tokenizer::from_gguf(&metadata).unwrap_err();
    assert_eq!(error.code(), "ZA_TOKENIZER_UNSUPPORTED");
    assert!(error.to_string().contains("exotic"), "{error}");
}
