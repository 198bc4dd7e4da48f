//! The Jinja environment that transformers gives a chat template.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::{FUEL, python, time};

/// An environment with the functions, filters and white-space rules of transformers' `render_jinja_template`.
/// It has no loader: a template cannot include another.
pub(super) fn build() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(print);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |state: &State, format: String| {
        let seconds = state.lookup(time::VARIABLE).and_then(|v| i64::try_from(v).ok()).unwrap_or_else(time::now);
        time::format(seconds, &format)
    });
    environment
}

/// Prints values as Python does: `True`, `None`, `2.0`, lists and mappings by their repr.
fn print(out: &mut Output, _: &State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String => {
            // Borrowed where possible: contents are the bulk of a rendering.
            match value.as_str() {
                Some(text) => out.write_str(text)?,
                None => out.write_str(&value.to_string())?,
            }
        }
        ValueKind::Undefined => {}
        ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Seq | ValueKind::Map => {
            let mut text = String::new();
            python::repr(value, &mut text)?;
            out.write_str(&text)?;
        }
        _ => out.write_str(&value.to_string())?,
    }
    Ok(())
}

/// `json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, as transformers defines the filter.
fn tojson(value: &Value, positional_ascii: Option<bool>, kwargs: Kwargs) -> Result<Value, Error> {
    let ensure_ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.or(positional_ascii).unwrap_or(false);
    let indent: Option<Value> = kwargs.get("indent")?;
    let separators: Option<Value> = kwargs.get("separators")?;
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let indent = match indent {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => Some(match value.as_str() {
            Some(text) => text.to_string(),
            None => " ".repeat(usize::try_from(i64::try_from(value)?.clamp(0, 64)).unwrap_or(0)),
        }),
    };
    let (mut item, mut key) = (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string());
    if let Some(pair) = separators.filter(|s| !s.is_none()) {
        let texts: Vec<Value> = pair.try_iter()?.collect();
        match texts.as_slice() {
            [first, second] => (item, key) = (first.to_string(), second.to_string()),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, "separators of tojson must be two texts")),
        }
    }
    let mut out = String::new();
    python::Json { ensure_ascii, indent, item, key, sort_keys }.write(value, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

/// Turns `{% generation %}` … `{% endgeneration %}` into blocks that only group, keeping their white-space marks.
///
/// transformers marks answers with them; our masks come from the contents themselves, so the marks have no effect.
pub(super) fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let close = match rest.as_bytes().get(1) {
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            Some(b'#') => "#}",
            _ => {
                out.push('{');
                rest = &rest[1..];
                continue;
            }
        };
        let end = tag_end(rest, close);
        let tag = &rest[..end];
        rest = &rest[end..];
        let inner = tag.strip_prefix("{%").and_then(|t| t.strip_suffix("%}"));
        let word = inner.map(|t| t.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim());
        match word {
            Some("generation") => out.push_str(&tag.replacen("generation", "if true", 1)),
            Some("endgeneration") => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
    }
    out.push_str(rest);
    out
}

/// Where the tag that `text` begins with ends, past texts in quotes.
fn tag_end(text: &str, close: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut quote) = (2, None);
    while at < bytes.len() {
        match quote {
            Some(q) if bytes[at] == q => quote = None,
            Some(_) if bytes[at] == b'\\' => at += 1,
            Some(_) => {}
            None if bytes[at..].starts_with(close.as_bytes()) => return at + close.len(),
            None if close != "#}" && matches!(bytes[at], b'"' | b'\'') => quote = Some(bytes[at]),
            None => {}
        }
        at += 1;
    }
    text.len()
}
