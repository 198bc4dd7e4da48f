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

/// Expressions of a chat template, of every kind of value, right and wrong.
fn expression() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "messages",
        "message",
        "message.content",
        "message['role']",
        "messages[0]['content']",
        "messages[-1].content",
        "messages[1:]",
        "bos_token",
        "eos_token",
        "add_generation_prompt",
        "nothing",
        "none",
        "true",
        "7",
        "-0.5",
        "'text'",
        "'é🦙\\n'",
        "[1, 'a', none]",
        "{'a': 1}",
        "loop.index0",
        "loop.last",
        "namespace(x=1)",
        "range(3)",
    ])
    .prop_map(str::to_string);
    atom.prop_recursive(3, 12, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "and", "or", "in", "not in",
        ]);
        let filter = prop::sample::select(vec![
            "trim",
            "upper",
            "lower",
            "title",
            "length",
            "tojson",
            "tojson(indent=2)",
            "list",
            "first",
            "last",
            "string",
            "int",
            "join(', ')",
            "default('d')",
            "replace('a', 'b')",
            "items",
            "safe",
            "selectattr('role')",
            "map(attribute='role')",
        ]);
        let test = prop::sample::select(vec!["defined", "none", "string", "mapping", "iterable", "odd", "not defined"]);
        let method = prop::sample::select(vec![
            "strip()",
            "split('</s>')",
            "upper()",
            "startswith('a')",
            "items()",
            "get('content', '')",
            "rstrip('\\n')",
        ]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            (inner.clone(), filter).prop_map(|(a, filter)| format!("({a} | {filter})")),
            (inner.clone(), test).prop_map(|(a, test)| format!("({a} is {test})")),
            (inner.clone(), method).prop_map(|(a, method)| format!("({a}).{method}")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            inner.clone().prop_map(|a| format!("(not {a})")),
            inner.prop_map(|a| format!("raise_exception({a})")),
        ]
    })
}

/// Templates that are well formed, whatever their values do: pieces of Jinja, one in the other.
fn template() -> impl Strategy<Value = String> {
    let mark = || prop::sample::select(vec!["", "-"]);
    let leaf = prop_oneof![
        4 => (mark(), expression(), mark()).prop_map(|(open, of, close)| format!("{{{{{open} {of} {close}}}}}")),
        2 => "[a-z<>|/ \n]{0,8}",
        1 => Just("{{ message['content'] }}".to_string()),
        1 => Just("{# a remark #}".to_string()),
        1 => Just("{% raw %}{{ }}{% endraw %}".to_string()),
        1 => expression().prop_map(|of| format!("{{% set x = {of} %}}")),
        1 => expression().prop_map(|of| format!("{{% set ns = namespace(y=0) %}}{{% set ns.y = {of} %}}{{{{ ns.y }}}}")),
    ];
    let body = leaf.prop_recursive(4, 24, 4, move |inner| {
        let body = prop::collection::vec(inner, 0..4).prop_map(|parts| parts.concat());
        prop_oneof![
            3 => (mark(), body.clone(), mark())
                .prop_map(|(open, of, close)| format!("{{%{open} for message in messages %}}{of}{{% endfor {close}%}}")),
            1 => (expression(), body.clone())
                .prop_map(|(each, of)| format!("{{% for one in {each} if one %}}{of}{{% else %}}none{{% endfor %}}")),
            2 => (expression(), body.clone(), body.clone())
                .prop_map(|(when, of, other)| format!("{{% if {when} %}}{of}{{% else %}}{other}{{% endif %}}")),
            1 => body.clone().prop_map(|of| format!("{{% macro say(it='a') %}}{of}{{% endmacro %}}{{{{ say() }}}}")),
            1 => body.clone().prop_map(|of| format!("{{% generation %}}{of}{{% endgeneration %}}")),
            1 => body.prop_map(|of| format!("{{% filter trim %}}{of}{{% endfilter %}}")),
        ]
    });
    prop::collection::vec(body, 0..5).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn templates_render_or_fail_by_name(source in template(), messages in conversation(), damage in prop::option::weighted(0.3, (any::<prop::sample::Index>(), "[{}%|( '-]"))) {
        let tokens = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
        let damaged = damage.map(|(at, with)| {
            let places: Vec<usize> = source.char_indices().map(|(place, _)| place).chain([source.len()]).collect();
            let at = places[at.index(places.len())];
            format!("{}{with}{}", &source[..at], &source[at..])
        });
        let template = match ChatTemplate::from_source(damaged.as_deref().unwrap_or(&source), &tokens) {
            Ok(template) => template,
            Err(error) => {
                prop_assert!(damaged.is_some(), "{source}: {error}");
                prop_assert_eq!(error.code(), "ZA_TEMPLATE");
                return Ok(());
            }
        };
        for prompt in [false, true] {
            match (template.render_text(&messages, prompt), template.render(&messages, prompt)) {
                (Ok(text), Ok(rendered)) => {
                    prop_assert!(text.len() <= 2 << 20);
                    // The same words, whoever asks.
                    prop_assert_eq!(&rendered.text, &text);
                }
                // Contents that are changed have no spans; the text alone can be had.
                (_, Err(error)) => prop_assert!(error.code().starts_with("ZA_TEMPLATE"), "{}", error),
                (Err(error), Ok(_)) => prop_assert!(false, "only the text fails: {}", error),
            }
        }
    }
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
