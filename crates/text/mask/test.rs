use serde_json::json;

use super::*;
use crate::template::SpecialTokens;
use crate::tokenizer::train_bpe;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn tokenizer(eos: &str) -> Tokenizer {
    let texts = ["the user asks, the assistant answers"; 3].map(str::to_string);
    let file = train_bpe(texts.into_iter(), 290, &["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]).unwrap();
    Tokenizer::from_json(file.as_bytes(), Some(&json!({ "bos_token": "<s>", "eos_token": eos }).to_string())).unwrap()
}

fn chatml(tokenizer: &Tokenizer) -> ChatTemplate {
    ChatTemplate::from_source(CHATML, &tokenizer.special_tokens()).unwrap()
}

fn turns(list: &[(&str, &str)]) -> Vec<Message> {
    list.iter().map(|(role, content)| Message::new(role, content)).collect()
}

fn learned(tokenizer: &Tokenizer, encoded: &EncodedChat) -> String {
    let ids: Vec<u32> = encoded.ids.iter().zip(&encoded.supervised).filter(|(_, s)| **s).map(|(id, _)| *id).collect();
    tokenizer.decode(&ids, false).unwrap()
}

#[test]
fn an_answer_ends_where_asked() {
    let messages = turns(&[("user", "q"), ("assistant", "one"), ("user", "q"), ("assistant", "two")]);
    // The file names the end token of the base model, the template writes another: it is still the answer's end.
    for eos in ["<|im_end|>", "</s>"] {
        let tokenizer = tokenizer(eos);
        let template = chatml(&tokenizer);
        for (end, expected) in
            [(AnswerEnd::Eos, "one<|im_end|>two<|im_end|>"), (AnswerEnd::Turn, "one<|im_end|>\ntwo<|im_end|>\n")]
        {
            let options = EncodeOptions { end, ..EncodeOptions::default() };
            let encoded = encode_chat(&tokenizer, &template, &messages, &options).unwrap();
            assert_eq!(learned(&tokenizer, &encoded), expected);
            assert_eq!(encoded.roles, ["user", "assistant", "user", "assistant"]);
        }
    }
}

#[test]
fn the_next_header_is_no_end_token() {
    let tokenizer = tokenizer("</s>");
    let source = CHATML.replace(" + '<|im_end|>'", "");
    let template = ChatTemplate::from_source(&source, &tokenizer.special_tokens()).unwrap();
    let messages = turns(&[("user", "q"), ("assistant", "one"), ("user", "q"), ("assistant", "two")]);
    let error = encode_chat(&tokenizer, &template, &messages, &EncodeOptions::default()).unwrap_err();
    assert_eq!(error.code(), "ZA_MASK_NO_EOS");
    assert!(error.to_string().contains("messages[1].content"), "{error}");
}

#[test]
fn rows_that_teach_nothing_are_refused_by_name() {
    let tokenizer = tokenizer("</s>");
    let zephyr = ChatTemplate::zephyr();
    let refuse = |messages: &[Message]| {
        let error = encode_chat(&tokenizer, &zephyr, messages, &EncodeOptions::default()).unwrap_err();
        (error.code(), error.to_string())
    };
    for (messages, code, place) in [
        (turns(&[("user", "q")]), "ZA_MASK_EMPTY", "messages"),
        (turns(&[("user", "q"), ("assistant", "")]), "ZA_EMPTY_ANSWER", "messages[1].content"),
        (turns(&[("user", "q"), ("assistant", " \n")]), "ZA_EMPTY_ANSWER", "messages[1].content"),
        (turns(&[("user", "q"), ("assistant", "a"), ("assistant", "b")]), "ZA_ROLE_ORDER", "messages[2].role"),
        (turns(&[("user", "q"), ("tool", "a"), ("assistant", "b")]), "ZA_ROLE_ORDER", "messages[1].role"),
        (turns(&[("human", "q"), ("assistant", "b")]), "ZA_ROLE_ORDER", "messages[0].role"),
        (vec![Message::new("user", "q").with("content", json!(["q"]))], "ZA_MESSAGE_CONTENT", "messages[0].content"),
    ] {
        let (found, text) = refuse(&messages);
        assert_eq!(found, code);
        assert!(text.contains(place), "{text}");
    }
    let prompt = EncodeOptions { add_generation_prompt: true, ..EncodeOptions::default() };
    assert!(encode_chat(&tokenizer, &zephyr, &turns(&[("user", "q")]), &prompt).is_ok());
}

#[test]
fn only_the_completion_is_learned() {
    let tokenizer = tokenizer("</s>");
    let prompt = turns(&[("user", "q"), ("assistant", "one"), ("user", "q")]);
    let row = encode_prompt_completion(
        &tokenizer,
        &ChatTemplate::zephyr(),
        &prompt,
        &turns(&[("assistant", "two")]),
        &EncodeOptions::default(),
    );
    assert_eq!(learned(&tokenizer, &row.unwrap()), "two</s>");
}

#[test]
fn a_pair_shares_its_prompt() {
    let tokenizer = tokenizer("<|im_end|>");
    let template = chatml(&tokenizer);
    let (prompt, good, bad) =
        (turns(&[("user", "q")]), turns(&[("assistant", "good")]), turns(&[("assistant", "bad </s>")]));
    for (end, tail) in [(AnswerEnd::Eos, "<|im_end|>"), (AnswerEnd::Turn, "<|im_end|>\n")] {
        let pair = encode_pair(
            &tokenizer,
            &template,
            &prompt,
            &good,
            &bad,
            &EncodeOptions { end, ..EncodeOptions::default() },
        )
        .unwrap();
        assert_eq!(
            tokenizer.decode(&pair.prompt_ids, false).unwrap(),
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(tokenizer.decode(&pair.chosen_ids, false).unwrap(), format!("good{tail}"));
        assert_eq!(tokenizer.decode(&pair.rejected_ids, false).unwrap(), format!("bad </s>{tail}"));
        assert!(!pair.rejected_ids.contains(&2), "a spelled end token is text");
        assert_eq!(pair.mismatched, 0);
    }
}

#[test]
fn an_edge_inside_a_token_is_counted() {
    // Here the line ends of header and answer merge into one token.
    let texts = ["a\n\n\n\nb\n\n\n\nc\n\n"; 4].map(str::to_string);
    let file = train_bpe(texts.into_iter(), 270, &["<unk>", "<s>", "</s>"]).unwrap();
    let tokenizer = Tokenizer::from_json(file.as_bytes(), Some(r#"{"eos_token": "</s>"}"#)).unwrap();
    let (prompt, good, bad) =
        (turns(&[("user", "q")]), turns(&[("assistant", "\n\n\nx")]), turns(&[("assistant", "y")]));
    let zephyr = ChatTemplate::zephyr();
    let pair = encode_pair(&tokenizer, &zephyr, &prompt, &good, &bad, &EncodeOptions::default()).unwrap();
    assert_eq!((pair.mismatched, pair.straddling), (1, 1));
    assert!(!pair.chosen_ids.is_empty());
    let conversation: Vec<Message> = prompt.iter().chain(&good).cloned().collect();
    let encoded = encode_chat(&tokenizer, &zephyr, &conversation, &EncodeOptions::default()).unwrap();
    assert_eq!(encoded.straddling, 1);
}

#[test]
fn pairs_that_are_none_are_refused_by_name() {
    let tokenizer = tokenizer("</s>");
    let zephyr = ChatTemplate::zephyr();
    let user = turns(&[("user", "q")]);
    let answer = turns(&[("assistant", "a")]);
    let pair = |prompt: &[Message], chosen: &[Message], rejected: &[Message]| {
        let error = encode_pair(&tokenizer, &zephyr, prompt, chosen, rejected, &EncodeOptions::default()).unwrap_err();
        (error.code(), error.to_string())
    };
    for ((code, text), expected, place) in [
        (pair(&user, &user, &answer), "ZA_ROLE_ORDER", "chosen[0].role"),
        (pair(&user, &answer, &[]), "ZA_EMPTY_ANSWER", "rejected"),
        (pair(&user, &answer, &turns(&[("assistant", "")])), "ZA_EMPTY_ANSWER", "rejected[0].content"),
        (pair(&user, &turns(&[("assistant", "a"), ("user", "b")]), &answer), "ZA_ROLE_ORDER", "chosen[1].role"),
        (pair(&answer, &answer, &answer), "ZA_ROLE_ORDER", "prompt[0].role"),
    ] {
        assert_eq!(code, expected, "{text}");
        assert!(text.contains(place), "{text}");
    }
    let no_end =
        ChatTemplate::from_source("{% for m in messages %}{{ m.content }}{% endfor %}", &SpecialTokens::default())
            .unwrap();
    let error = encode_pair(&tokenizer, &no_end, &user, &answer, &answer, &EncodeOptions::default()).unwrap_err();
    assert_eq!(error.code(), "ZA_MASK_NO_EOS");
    assert!(error.to_string().contains("chosen[0].content"), "{error}");
}
