//! Properties over any text.

use std::sync::OnceLock;

use proptest::prelude::*;
use zephyr_text::{
    ChatTemplate, EncodeOptions, Message, SpecialTokens, Specials, StreamDecoder, TokenOwner, Tokenizer, encode_chat,
    train_bpe,
};

use crate::folders::kinds;

/// Texts with a liking for what breaks masks: template headers, special tokens, white space, many-byte characters.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => any::<String>(),
        4 => "[a-z ]{0,12}",
        1 => Just("</s>".to_string()),
        1 => Just("<s>".to_string()),
        1 => Just("<|assistant|>\n".to_string()),
        1 => Just("\n\n ".to_string()),
        1 => Just("🦙 é\u{301}깰\u{200d}".to_string()),
        1 => Just("\u{E000}0\u{E002}".to_string()),
        1 => Just("{{ messages }}{% raw %}".to_string()),
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn answer() -> impl Strategy<Value = String> {
    text().prop_map(|t| format!("x{t}"))
}

fn conversation() -> impl Strategy<Value = Vec<Message>> {
    (prop::option::of(text()), prop::collection::vec((text(), answer()), 1..4)).prop_map(|(system, turns)| {
        let system = system.map(|s| Message::new("system", &s)).into_iter();
        system.chain(turns.iter().flat_map(|(u, a)| [Message::new("user", u), Message::new("assistant", a)])).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_mask_covers_the_answers_and_nothing_else(messages in conversation()) {
        for (name, tokenizer, template) in kinds() {
            let encoded = encode_chat(tokenizer, template, &messages, &EncodeOptions::default()).unwrap();
            let eos = tokenizer.eos().unwrap().id;
            let mut ends = 0;
            for ((id, owner), supervised) in encoded.ids.iter().zip(&encoded.owners).zip(&encoded.supervised) {
                let answer = matches!(owner, TokenOwner::Content(i) if messages[*i].role() == "assistant");
                let end = *supervised && !answer;
                ends += usize::from(end);
                prop_assert!(!end || *id == eos, "{}: a token of the template is learned", name);
                prop_assert!(!answer || *supervised, "{}: a token of an answer is not learned", name);
            }
            prop_assert_eq!(ends, messages.iter().filter(|m| m.role() == "assistant").count(), "{}", name);
            // What contents spell stays text: the only special tokens are the template's.
            let specials = encoded.ids.iter().filter(|id| **id == eos).count();
            prop_assert_eq!(specials, messages.len(), "{}", name);
            let rendered = template.render_text(&messages, false).unwrap();
            prop_assert_eq!(encoded.owners.len(), encoded.ids.len());
            if ["byte-level BPE", "bytes"].contains(name) {
                prop_assert_eq!(tokenizer.decode(&encoded.ids, false).unwrap(), rendered, "{}", name);
            }
        }
    }

    #[test]
    fn whole_texts_encode_as_in_the_tokenizers_crate(messages in conversation()) {
        for ((name, tokenizer, template), reference) in kinds().iter().zip(references()) {
            let rendered = template.render_text(&messages, false).unwrap();
            let expected = reference.encode(rendered.as_str(), false).unwrap();
            let parse = EncodeOptions { specials: Specials::Parse, ..EncodeOptions::default() };
            let encoded = encode_chat(tokenizer, template, &messages, &parse).unwrap();
            prop_assert_eq!(&encoded.ids, expected.get_ids(), "{}", name);
            prop_assert_eq!(&tokenizer.encode(&rendered, false, Specials::Parse).unwrap(), expected.get_ids());
            let spelled = messages.iter().any(|m| ["<s>", "</s>", "<unk>"].iter().any(|s| m.content().unwrap().contains(s)));
            if !spelled {
                let text = encode_chat(tokenizer, template, &messages, &EncodeOptions::default()).unwrap();
                prop_assert_eq!(&text.ids, expected.get_ids(), "{}", name);
            }
        }
    }

    #[test]
    fn plain_text_comes_back_and_streams(text in text(), noise in prop::collection::vec(0u32..300, 0..24)) {
        for (name, tokenizer, _) in kinds() {
            let mut ids = tokenizer.encode(&text, false, Specials::Text).unwrap();
            if ["bytes", "Mistral"].contains(name) {
                prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.clone(), "{}", name);
            }
            ids.extend(noise.iter().copied());
            for skip in [false, true] {
                let whole = tokenizer.decode(&ids, skip).unwrap();
                let mut stream = StreamDecoder::new(tokenizer, skip);
                let mut pieces = String::new();
                for id in &ids {
                    pieces.extend(stream.push(*id).unwrap());
                    prop_assert_eq!(&whole[..pieces.len()], &pieces, "{}", name);
                }
                pieces.extend(stream.flush().unwrap());
                prop_assert_eq!(pieces, whole, "{}", name);
            }
        }
    }

    #[test]
    fn arbitrary_files_are_refused_not_fatal(bytes in prop::collection::vec(any::<u8>(), 0..200), source in any::<String>(), messages in conversation()) {
        prop_assert!(Tokenizer::from_json(&bytes, Some(&source)).is_err());
        if let Ok(template) = ChatTemplate::from_source(&source, &SpecialTokens::default()) {
            let _ = template.render(&messages, true);
        }
    }

    #[test]
    fn damaged_tokenizer_files_are_refused_or_work(at in any::<prop::sample::Index>(), with in prop_oneof![Just(Vec::new()), prop::collection::vec(32u8..127, 1..6)], cut in any::<bool>()) {
        let mut file = SMALL.with(Clone::clone).into_bytes();
        let at = at.index(file.len());
        if cut {
            file.truncate(at);
        } else {
            let end = (at + with.len().max(1)).min(file.len());
            file.splice(at..end, with);
        }
        if let Ok(tokenizer) = Tokenizer::from_json(&file, None)
            && let Ok(ids) = tokenizer.encode("two and three</s>", true, Specials::Text)
        {
            let _ = tokenizer.decode(&ids, true);
        }
    }
}

thread_local! {
    static SMALL: String = train_bpe(["two and three and four".to_string(), "and two".into()].into_iter(), 270, &["<unk>", "<s>", "</s>"]).unwrap();
}

/// The same tokenizers in the tokenizers crate's own hands.
fn references() -> &'static [tokenizers::Tokenizer] {
    static REFERENCES: OnceLock<Vec<tokenizers::Tokenizer>> = OnceLock::new();
    REFERENCES.get_or_init(|| {
        let json = kinds().iter().map(|(_, tokenizer, _)| tokenizer.to_json().unwrap());
        json.map(|json| tokenizers::Tokenizer::from_bytes(json).unwrap()).collect()
    })
}
