//! Golden vectors: transformers' renderings and ids, TRL's rows, SentencePiece's ids.

use serde_json::{Map, Value, json};
use zephyr_text::{
    AnswerEnd, ChatTemplate, EncodeOptions, Message, Specials, TokenOwner, Tokenizer, encode_chat, encode_pair,
    encode_pair_text, encode_prompt, encode_text,
};

use crate::folders::{data, golden, ids, json, messages, read, tokenizer};

#[test]
fn conversations_render_and_encode_as_in_transformers() {
    let Some(golden) = golden() else { return };
    let tokenizer = tokenizer(golden.join("tokenizer"));
    let chat = json(golden.join("chat.json"));
    let foreign =
        ChatTemplate::from_source(chat["chat_template"].as_str().unwrap(), &tokenizer.special_tokens()).unwrap();
    let file = String::from_utf8(read(golden.join("tokenizer/chat_template.jinja"))).unwrap();
    let beside = ChatTemplate::from_tokenizer(&tokenizer.with_chat_template(file)).unwrap().unwrap();
    let tokenizer = crate::folders::tokenizer(golden.join("tokenizer"));
    for template in [ChatTemplate::zephyr(), foreign, beside] {
        for case in chat["cases"].as_array().unwrap() {
            let messages = messages(&case["messages"]);
            assert_eq!(template.render_text(&messages, false).unwrap(), case["text"].as_str().unwrap());
            let encoded = encode_chat(&tokenizer, &template, &messages, &EncodeOptions::default()).unwrap();
            assert_eq!(encoded.ids, ids(&case["input_ids"]));
            let prompt = &messages[..messages.len() - 1];
            let expected = case["generation_prompt"].as_str().unwrap();
            assert_eq!(template.render_text(prompt, true).unwrap(), expected);
            let prompt_ids = encode_prompt(&tokenizer, &template, prompt, Specials::Text).unwrap();
            assert_eq!(prompt_ids, tokenizer.encode(expected, false, Specials::Parse).unwrap());
        }
    }
}

#[test]
fn the_answers_and_their_end_are_supervised() {
    let Some(golden) = golden() else { return };
    let tokenizer = tokenizer(golden.join("tokenizer"));
    let template = ChatTemplate::zephyr();
    let eos = tokenizer.eos().unwrap().token.clone();
    for case in json(golden.join("chat.json"))["cases"].as_array().unwrap() {
        let messages = messages(&case["messages"]);
        for (end, tail) in [(AnswerEnd::Eos, ""), (AnswerEnd::Turn, "\n")] {
            let encoded =
                encode_chat(&tokenizer, &template, &messages, &EncodeOptions { end, ..EncodeOptions::default() })
                    .unwrap();
            let learned: Vec<u32> =
                encoded.ids.iter().zip(&encoded.supervised).filter(|(_, s)| **s).map(|(id, _)| *id).collect();
            let expected: String = messages
                .iter()
                .filter(|m| m.role() == "assistant")
                .map(|m| format!("{}{eos}{tail}", m.content().unwrap()))
                .collect();
            assert_eq!(tokenizer.decode(&learned, false).unwrap(), expected);
            for (i, message) in messages.iter().enumerate() {
                let own: Vec<u32> = encoded
                    .ids
                    .iter()
                    .zip(&encoded.owners)
                    .filter(|(_, o)| **o == TokenOwner::Content(i))
                    .map(|(id, _)| *id)
                    .collect();
                assert_eq!(tokenizer.decode(&own, false).unwrap(), message.content().unwrap());
            }
        }
    }
}

#[test]
fn rows_of_the_training_runs_encode_as_in_trl() {
    let Some(golden) = golden() else { return };
    let tokenizer = tokenizer(golden.join("tokenizer"));
    let template = ChatTemplate::zephyr();
    for model in ["window", "headdim"] {
        let rows = json(golden.join(model).join("data.json"));
        let expected = json(golden.join(model).join("sft_run.json"));
        let expected = expected["input_ids"].as_array().unwrap();
        assert!(!expected.is_empty());
        let all: Vec<Vec<u32>> = expected.iter().map(ids).collect();
        for (row, ids) in rows["sft"].as_array().unwrap().iter().zip(&all) {
            let encoded =
                encode_chat(&tokenizer, &template, &messages(&row["messages"]), &EncodeOptions::default()).unwrap();
            // The run cut its rows at one length, which the longest shows.
            let longest = all.iter().map(Vec::len).max().unwrap();
            assert!(encoded.ids.starts_with(ids), "{:?} {ids:?}", encoded.ids);
            assert!(encoded.ids.len() == ids.len() || ids.len() == longest);
        }
        for row in rows["dpo"].as_array().unwrap() {
            let [prompt, chosen, rejected] = ["prompt", "chosen", "rejected"].map(|name| messages(&row[name]));
            for end in [AnswerEnd::Turn, AnswerEnd::Eos] {
                let options = EncodeOptions { end, ..EncodeOptions::default() };
                let pair = encode_pair(&tokenizer, &template, &prompt, &chosen, &rejected, &options).unwrap();
                assert_eq!((pair.mismatched, pair.straddling), (0, 0));
                for (side, ids) in [(&chosen, &pair.chosen_ids), (&rejected, &pair.rejected_ids)] {
                    let conversation: Vec<Message> = prompt.iter().chain(side).cloned().collect();
                    let mut whole = encode_chat(&tokenizer, &template, &conversation, &options).unwrap();
                    if end == AnswerEnd::Eos {
                        whole.ids.pop();
                        assert_eq!(ids.last(), Some(&tokenizer.eos().unwrap().id));
                    }
                    assert_eq!([pair.prompt_ids.as_slice(), ids].concat(), whole.ids);
                }
            }
        }
    }
}

#[test]
fn the_completions_of_trl_are_ours() {
    let Some(golden) = golden() else { return };
    let tokenizer = tokenizer(golden.join("tokenizer"));
    let template = ChatTemplate::zephyr();
    for model in ["window", "headdim"] {
        let rows = json(golden.join(model).join("data.json"));
        let (mut ours, mut seen) = (Vec::new(), 0);
        for row in rows["dpo"].as_array().unwrap() {
            let [prompt, chosen, rejected] = ["prompt", "chosen", "rejected"].map(|name| messages(&row[name]));
            let options = EncodeOptions { end: AnswerEnd::Turn, ..EncodeOptions::default() };
            ours.push(encode_pair(&tokenizer, &template, &prompt, &chosen, &rejected, &options).unwrap());
        }
        for batch in json(golden.join(model).join("cpo_run.json"))["batches"].as_array().unwrap() {
            for (labels, ids) in [("chosen_labels", 0), ("rejected_labels", 1)] {
                for row in batch[labels].as_array().unwrap() {
                    let row: Vec<i64> = serde_json::from_value(row.clone()).unwrap();
                    let learned: Vec<u32> = row.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
                    // That trainer cuts long answers at the end, and closes whatever it has with one more end token.
                    let learned = learned.strip_suffix(&[tokenizer.eos().unwrap().id]).unwrap_or(&learned);
                    assert!(!learned.is_empty());
                    let found = ours.iter().any(|p| [&p.chosen_ids, &p.rejected_ids][ids].starts_with(learned));
                    assert!(found, "{model} {labels}: {learned:?}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 0);
    }
}

#[test]
fn sentencepiece_ids_of_real_answers() {
    let Some(data) = data() else { return };
    let tokenizer = tokenizer(data.join("tokenizer"));
    let rows = json(data.join("tokenizer").join("golden_ids.json"));
    let rows = rows.as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let (text, ids) = (row["text"].as_str().unwrap(), ids(&row["ids"]));
        assert_eq!(tokenizer.encode(text, false, Specials::Text).unwrap(), ids, "{text}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        let with_bos = tokenizer.encode(text, true, Specials::Text).unwrap();
        assert_eq!(with_bos[0], tokenizer.bos().unwrap().id);
        assert_eq!(with_bos[1..], ids);
    }
    assert!(tokenizer.add_bos());
}

/// The fields of a protobuf message: number, and the bytes of a length-delimited field or the number of another.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>, u64)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        value
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let (mut data, mut number) = (Vec::new(), 0);
        let take = match tag & 7 {
            0 => {
                number = varint(&mut bytes);
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).unwrap(),
            _ => 4,
        };
        data.extend(&bytes[..take]);
        bytes = &bytes[take..];
        out.push((tag >> 3, data, number));
    }
    out
}

#[test]
fn a_gguf_file_with_scores_gives_the_same_ids() {
    let Some(data) = data() else { return };
    let (mut tokens, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for (number, piece, _) in fields(&read(data.join("tokenizer").join("tokenizer.model"))) {
        if number != 1 {
            continue;
        }
        let (mut token, mut score, mut kind) = (String::new(), 0.0, 1);
        for (number, bytes, value) in fields(&piece) {
            match number {
                1 => token = String::from_utf8(bytes).unwrap(),
                2 => score = f32::from_le_bytes(bytes.try_into().unwrap()),
                3 => kind = value,
                _ => {}
            }
        }
        tokens.push(Value::from(token));
        scores.push(Value::from(score));
        kinds.push(Value::from(kind));
    }
    let metadata = Map::from_iter([
        ("tokenizer.ggml.model".to_string(), json!("llama")),
        ("tokenizer.ggml.tokens".to_string(), tokens.into()),
        ("tokenizer.ggml.scores".to_string(), scores.into()),
        ("tokenizer.ggml.token_type".to_string(), kinds.into()),
        ("tokenizer.ggml.bos_token_id".to_string(), json!(1)),
        ("tokenizer.ggml.eos_token_id".to_string(), json!(2)),
        ("tokenizer.ggml.add_bos_token".to_string(), json!(true)),
    ]);
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    for row in json(data.join("tokenizer").join("golden_ids.json")).as_array().unwrap() {
        let (text, ids) = (row["text"].as_str().unwrap(), ids(&row["ids"]));
        assert_eq!(tokenizer.encode(text, false, Specials::Text).unwrap(), ids, "{text}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }
    assert_eq!(tokenizer.encode("a", true, Specials::Text).unwrap()[0], 1);
}

#[test]
fn the_same_ids_come_back_from_scores_that_we_write() {
    let Some(data) = data() else { return };
    let tokenizer = tokenizer(data.join("tokenizer"));
    let written = tokenizer.to_gguf("", tokenizer.vocabulary(), &[]).unwrap();
    assert_eq!(written.notes, Vec::<String>::new());
    let again = Tokenizer::from_gguf(&written.metadata).unwrap();
    for row in json(data.join("tokenizer").join("golden_ids.json")).as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        assert_eq!(again.encode(text, false, Specials::Text).unwrap(), ids(&row["ids"]), "{text}");
    }
    assert_eq!(again.encode("a", true, Specials::Text).unwrap(), tokenizer.encode("a", true, Specials::Text).unwrap());
}

#[test]
fn plain_rows_end_with_the_end_token() {
    let Some(golden) = golden() else { return };
    let tokenizer = tokenizer(golden.join("tokenizer"));
    let eos = tokenizer.eos().unwrap().clone();
    let options = EncodeOptions::default();
    let text = encode_text(&tokenizer, "two and three", None, &options).unwrap();
    assert_eq!(text.ids.last(), Some(&eos.id));
    assert!(text.supervised.iter().all(|s| *s));
    let row = encode_text(&tokenizer, "two and", Some(" three"), &options).unwrap();
    let learned: Vec<u32> = row.ids.iter().zip(&row.supervised).filter(|(_, s)| **s).map(|(id, _)| *id).collect();
    assert_eq!(tokenizer.decode(&learned, false).unwrap(), format!(" three{}", eos.token));
    // TRL gives no second end token to a text that has one; here that is so only where the text may spell it.
    let spelled = format!("three{}", eos.token);
    let parsed =
        encode_text(&tokenizer, &spelled, None, &EncodeOptions { specials: Specials::Parse, ..options }).unwrap();
    assert_eq!(parsed.ids.iter().filter(|id| **id == eos.id).count(), 1);
    let kept = encode_text(&tokenizer, &spelled, None, &options).unwrap();
    assert_eq!(tokenizer.decode(&kept.ids, true).unwrap(), spelled);
    let pair = encode_pair_text(&tokenizer, "two and", " three", " five", &options).unwrap();
    assert_eq!(tokenizer.decode(&pair.chosen_ids, false).unwrap(), format!(" three{}", eos.token));
    assert_eq!(tokenizer.decode(&pair.rejected_ids, false).unwrap(), format!(" five{}", eos.token));
    assert_eq!(encode_pair_text(&tokenizer, "two", "", "b", &options).unwrap_err().code(), "ZA_EMPTY_ANSWER");
}
