//! Cases from other projects' bug trackers.

use zephyr_text::{
    AnswerEnd, ChatTemplate, EncodeOptions, SpecialTokens, Specials, StreamDecoder, Tokenizer, encode_chat,
};

use crate::folders::{case, ids, json, messages, read, tokenizer};

#[test]
fn case_01_tojson_writes_what_json_dumps_writes() {
    let Some(case) = case("01-tojson-in-chat-template") else { return };
    let source = String::from_utf8(read(case.join("template.jinja"))).unwrap();
    let template = ChatTemplate::from_source(&source, &SpecialTokens::default()).unwrap();
    let text = template.render_text(&messages(&json(case.join("messages.json"))), false).unwrap();
    assert_eq!(text, String::from_utf8(read(case.join("expected.txt"))).unwrap());
}

#[test]
fn case_02_an_answer_that_repeats_the_question_is_masked_by_place() {
    let Some(case) = case("02-answer-repeats-the-question") else { return };
    let tokenizer = tokenizer(case.join("tokenizer"));
    let template = ChatTemplate::from_tokenizer(&tokenizer).unwrap().unwrap();
    let rows = String::from_utf8(read(case.join("rows.jsonl"))).unwrap();
    let expected = json(case.join("expected.json"));
    let expected = expected.as_array().unwrap();
    assert_eq!(rows.lines().count(), expected.len());
    for (row, expected) in rows.lines().zip(expected) {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        let messages = messages(&row["messages"]);
        let encoded = encode_chat(&tokenizer, &template, &messages, &EncodeOptions::default()).unwrap();
        assert_eq!(encoded.ids, ids(&expected["ids"]));
        let at: Vec<u32> = (0u32..).zip(&encoded.supervised).filter(|(_, s)| **s).map(|(i, _)| i).collect();
        assert_eq!(at, ids(&expected["supervised_positions"]));
        assert_eq!(encoded.straddling, 0);
        let turn = EncodeOptions { end: AnswerEnd::Turn, ..EncodeOptions::default() };
        let turn = encode_chat(&tokenizer, &template, &messages, &turn).unwrap();
        let answers = messages.iter().filter(|m| m.role() == "assistant").count();
        assert_eq!(turn.supervised.iter().filter(|s| **s).count(), at.len() + answers);
    }
}

/// Pushes the ids one at a time; the pieces, and what the flush brought.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> (Vec<String>, String) {
    let mut decoder = StreamDecoder::new(tokenizer, false);
    let pieces: Vec<String> = ids.iter().filter_map(|id| decoder.push(*id).unwrap()).collect();
    let pending = decoder.pending().unwrap();
    let rest = decoder.flush().unwrap().unwrap_or_default();
    assert_eq!(pending, rest);
    (pieces, rest)
}

#[test]
fn case_03_byte_tokens_become_characters() {
    let Some(case) = case("03-byte-fallback-streaming") else { return };
    let tokenizer = Tokenizer::from_json(&read(case.join("tokenizer.json")), None).unwrap();
    let expected = json(case.join("expected.json"));
    for row in expected["encode"].as_array().unwrap() {
        let ids = ids(&row["ids"]);
        assert_eq!(tokenizer.encode(row["text"].as_str().unwrap(), false, Specials::Text).unwrap(), ids);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), row["decoded"].as_str().unwrap());
    }
    for row in expected["decode"].as_array().unwrap() {
        let (ids, text) = (ids(&row["ids"]), row["text"].as_str().unwrap());
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        let (pieces, rest) = stream(&tokenizer, &ids);
        assert_eq!(pieces.concat() + &rest, text, "{}", row["name"]);
        if row["name"] == "whole" {
            assert!(!pieces.concat().contains('\u{FFFD}') && !rest.contains('\u{FFFD}'));
            assert!(pieces.len() > 1, "the text comes in pieces");
        }
    }
}

#[test]
fn case_03_holds_for_byte_level_tokenizers_too() {
    let Some(case) = case("02-answer-repeats-the-question") else { return };
    let tokenizer = tokenizer(case.join("tokenizer"));
    let byte = |b: u8| 3 + u32::from(b);
    let text: Vec<u32> = "é 🦙!".bytes().map(byte).collect();
    let (pieces, rest) = stream(&tokenizer, &text);
    assert_eq!((pieces, rest.as_str()), (vec!["é".to_string(), " ".into(), "🦙".into(), "!".into()], ""));
    // Cut in the middle of a character, at the end and before a letter.
    for broken in [&[0xF0, 0x9F, 0xA6][..], &[0xE2, 0x82, b'x'], &[0x80, 0x80, 0xC3, 0xA9, 0xF0], &[0xF0, 0x80, 0x80]] {
        let ids: Vec<u32> = broken.iter().map(|b| byte(*b)).collect();
        let (pieces, rest) = stream(&tokenizer, &ids);
        assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids, false).unwrap());
    }
}

#[test]
fn case_17_merges_in_every_form() {
    let Some(case) = case("17-merges-as-pairs") else { return };
    let expected = json(case.join("expected.json"));
    for (name, rows) in expected["ids"].as_object().unwrap() {
        let tokenizer = Tokenizer::from_json(&read(case.join(format!("tokenizer-{name}.json"))), None).unwrap();
        for (text, row) in expected["texts"].as_array().unwrap().iter().zip(rows.as_array().unwrap()) {
            assert_eq!(
                tokenizer.encode(text.as_str().unwrap(), false, Specials::Text).unwrap(),
                ids(row),
                "{name}: {text}"
            );
        }
    }
    for (name, named) in [("bad-merge-out-of-vocabulary", "dw"), ("bad-merge-of-three", r#"["h","e","l"]"#)] {
        assert!(expected["refused"].get(name).is_some());
        let error = Tokenizer::from_json(&read(case.join(format!("tokenizer-{name}.json"))), None).unwrap_err();
        assert_eq!(error.code(), "ZA_TOKENIZER_MERGE");
        assert!(error.to_string().contains(named) && error.to_string().contains("model.merges[9]"), "{error}");
    }
}
