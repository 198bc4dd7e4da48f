use serde_json::json;

use super::*;

fn template(source: &str) -> ChatTemplate {
    let tokens = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
    ChatTemplate::from_source(source, &tokens).unwrap()
}

fn render(source: &str) -> String {
    template(source).render_text(&[Message::new("user", " hi ")], true).unwrap()
}

#[test]
fn the_zephyr_template() {
    let messages = [Message::new("system", "s"), Message::new("user", "hi"), Message::new("assistant", "yo")];
    let zephyr = ChatTemplate::zephyr();
    assert_eq!(
        zephyr.render_text(&messages, false).unwrap(),
        "<|system|>\ns</s>\n<|user|>\nhi</s>\n<|assistant|>\nyo</s>\n"
    );
    assert_eq!(zephyr.render_text(&messages[1..2], true).unwrap(), "<|user|>\nhi</s>\n<|assistant|>\n");
}

#[test]
fn python_in_templates() {
    assert_eq!(render("{{ messages[0].content.strip() + messages[0]['content'].strip().upper() }}"), "hiHI");
    assert_eq!(
        render("{{ 'a,b'.split(',')[1] }}{{ 'ab'.startswith('a') }}{{ none }}{{ 2.0 }}{{ 7 // 2 }}"),
        "bTrueNone2.03"
    );
    assert_eq!(
        render("{% for k, v in messages[0].items() %}{{ k }}={{ v.strip() }};{% endfor %}"),
        "role=user;content=hi;"
    );
    assert_eq!(render("{{ messages[0].get('name', 'nobody') }}{{ messages[0].get('role') }}"), "nobodyuser");
    assert_eq!(render("{{ {'a': [1, 'x', none, true]} }}"), "{'a': [1, 'x', None, True]}");
    let loops = "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}";
    assert_eq!(render(loops), "4");
    assert_eq!(render("{% if tools %}x{% endif %}{% if tools is none and documents is defined %}y{% endif %}"), "y");
    assert_eq!(render("a\n{%- generation -%} b {%- endgeneration %}c{{ '{% generation %}' }}"), "abc{% generation %}");
    assert_eq!(render("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m('a') }}{{ bos_token }}"), "[a]<s>");
}

#[test]
fn json_as_python_writes_it() {
    assert_eq!(
        render("{{ [1e16, 1e-5, 0.1, 100.0, -2.5, 12345678.0] | tojson }}"),
        "[1e+16, 1e-05, 0.1, 100.0, -2.5, 12345678.0]"
    );
    assert_eq!(
        render("{{ {'b': '<&>\\'\\u00e9', 'a': {}} | tojson(sort_keys=true, indent=1) }}"),
        "{\n \"a\": {},\n \"b\": \"<&>'é\"\n}"
    );
    assert_eq!(
        render("{{ '🦙' | tojson(ensure_ascii=true) }}{{ [1, 2] | tojson(separators=(',', ':')) }}"),
        "\"\\ud83e\\udd99\"[1,2]"
    );
    assert_eq!(render("{{ [1] | tojson(indent=none) }}"), "[1]");
}

#[test]
fn dates_are_fixed_when_asked() {
    let mut template = template("{{ strftime_now('%d %b %Y, %A %j %H:%M:%S %-I%p') }}");
    template.set_now(1_709_210_096);
    assert_eq!(template.render_text(&[], false).unwrap(), "29 Feb 2024, Thursday 060 12:34:56 12PM");
    template.set_now(i64::MIN);
    assert!(template.render_text(&[], false).is_ok());
}

#[test]
fn failing_templates_name_the_line() {
    let line = |source: &str| match ChatTemplate::from_source(source, &SpecialTokens::default())
        .and_then(|t| t.render_text(&[Message::new("user", "hi")], false))
    {
        Err(Error::Template { line, reason }) => (line, reason),
        other => panic!("{source}: {other:?}"),
    };
    let (at, reason) = line("a\n{{ raise_exception('roles must alternate') }}");
    assert_eq!(at, Some(2));
    assert!(reason.contains("roles must alternate"), "{reason}");
    assert_eq!(line("a\n\n{% if %}").0, Some(3));
    line("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}");
    line("{% for i in range(9999) %}{{ 'aaaaaaaaaaaaaaaa' * 999 }}{% endfor %}");
    line("{% include 'other' %}");
    line("{{ messages[0].content + none }}");
    line("{{ strftime_now('%Q') }}");
}

#[test]
fn every_byte_has_an_owner() {
    let messages = [Message::new("user", "yes"), Message::new("assistant", "yes"), Message::new("user", "")];
    let rendering = ChatTemplate::zephyr().render(&messages, true).unwrap();
    assert_eq!(rendering.text, "<|user|>\nyes</s>\n<|assistant|>\nyes</s>\n<|user|>\n</s>\n<|assistant|>\n");
    let mut at = 0;
    for span in &rendering.spans {
        assert_eq!(span.range.start, at);
        at = span.range.end;
    }
    assert_eq!(at, rendering.text.len());
    assert_eq!(rendering.content(0), Some(9..12));
    assert_eq!(rendering.content(1), Some(31..34));
    assert_eq!(rendering.owner(12), Owner::Template { after: Some(0), before: Some(1) });
    assert_eq!(rendering.owner(31), Owner::Content(1));
}

#[test]
fn trimmed_contents_are_found() {
    let source = "{% for m in messages %}[{{ m.content | trim if m.role == 'user' else m.content }}]{% endfor %}";
    let messages = [Message::new("user", " a\n"), Message::new("assistant", " b "), Message::new("user", "  ")];
    let rendering = template(source).render(&messages, false).unwrap();
    assert_eq!(rendering.text, "[a][ b ][]");
    assert_eq!(rendering.content(0), Some(1..2));
    assert_eq!(rendering.content(1), Some(4..7));
    assert_eq!(rendering.content(2), None);
}

#[test]
fn changed_contents_are_refused_by_name() {
    for source in [
        "{{ messages[1].content | length }}",
        "{{ messages[1].content[:1] }}",
        "{{ 'x' if messages[1].content == 'ab' }}",
    ] {
        let error =
            template(source).render(&[Message::new("user", "q"), Message::new("assistant", "ab")], false).unwrap_err();
        assert_eq!(error.code(), "ZA_TEMPLATE_SPANS", "{source}");
        assert!(error.to_string().contains("messages[1].content"), "{error}");
    }
    let null = Message::new("user", "").with("content", json!(null));
    assert_eq!(ChatTemplate::zephyr().render(&[null], false).unwrap_err().code(), "ZA_MESSAGE_CONTENT");
}

#[test]
fn contents_cannot_forge_marks() {
    let forged = "\u{E000}0\u{E002}x\u{E001}0\u{E002}";
    let messages = [Message::new("user", forged), Message::new("assistant", forged)];
    let rendering = ChatTemplate::zephyr().render(&messages, false).unwrap();
    assert_eq!(&rendering.text[rendering.content(1).unwrap()], forged);
}

#[test]
fn other_keys_reach_the_template() {
    let messages =
        Message::list(&json!([{ "role": "tool", "name": "clock", "content": "12", "n": 2.0 }]), "messages").unwrap();
    let rendering = template("{{ messages[0].name }}:{{ messages[0] | tojson }}").render(&messages, false).unwrap();
    assert_eq!(rendering.text, r#"clock:{"role": "tool", "name": "clock", "content": "12", "n": 2.0}"#);
    let error = Message::list(&json!([{ "role": "user", "content": "a" }, { "content": "b" }]), "prompt").unwrap_err();
    assert!(error.to_string().contains("prompt[1].role"), "{error}");
}
