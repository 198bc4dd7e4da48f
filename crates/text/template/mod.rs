//! Chat templates: Jinja as transformers runs it, and a rendering that knows who wrote each byte.

mod environment;
mod message;
mod python;
mod render;
mod time;

#[cfg(test)]
mod test;

use std::collections::BTreeMap;
use std::io;

use minijinja::{Environment, Value};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
pub use message::Message;
pub use render::{Owner, Rendering, Span};

/// The Zephyr template, as it stands in the model's tokenizer_config.json.
const ZEPHYR: &str = "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";

const NAME: &str = "chat_template";
/// Instructions a rendering may take: a conversation of a thousand turns takes some ten thousand.
const FUEL: u64 = 5_000_000;
/// A rendering may be this much larger than its messages.
const GROWTH: usize = 16;
const OUTPUT_FLOOR: usize = 1 << 20;

/// The special tokens by the names that templates use: `bos_token`, `eos_token`, `unk_token`, `pad_token`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
}

/// A chat template, parsed once and immutable but for its variables.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    variables: BTreeMap<String, Value>,
    roles: Option<&'static [&'static str]>,
    now: Option<i64>,
}

impl ChatTemplate {
    /// The Zephyr template with the tokens of Mistral (`<s>`, `</s>`).
    pub fn zephyr() -> Self {
        let tokens = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
        Self::zephyr_with(&tokens)
    }

    /// The Zephyr template with other special tokens: it writes `eos_token` after each turn.
    pub fn zephyr_with(tokens: &SpecialTokens) -> Self {
        match Self::from_source(ZEPHYR, tokens) {
            Ok(template) => template,
            Err(error) => unreachable!("the built-in template parses: {error}"),
        }
    }

    /// A template from its Jinja source, in the environment that transformers gives it: `trim_blocks`, `lstrip_blocks`, loop controls,
    /// `raise_exception`, `strftime_now`, Python's `tojson` and text methods, `{% generation %}` blocks.
    ///
    /// # Errors
    /// `ZA_TEMPLATE` with the line, when it does not parse.
    pub fn from_source(source: &str, tokens: &SpecialTokens) -> Result<Self> {
        let mut environment = environment::build();
        environment.add_template_owned(NAME, environment::without_generation_blocks(source)).map_err(|e| failed(&e))?;
        let named = [
            ("bos_token", &tokens.bos),
            ("eos_token", &tokens.eos),
            ("unk_token", &tokens.unk),
            ("pad_token", &tokens.pad),
        ];
        let variables = named
            .into_iter()
            .filter_map(|(name, token)| Some((name.to_string(), Value::from(token.as_deref()?))))
            .collect();
        // It drops messages of other roles silently: whoever reads the roles here refuses them.
        let roles: Option<&'static [&'static str]> =
            if source == ZEPHYR { Some(&["system", "user", "assistant"]) } else { None };
        Ok(Self { environment, source: source.to_string(), variables, roles, now: None })
    }

    /// The template that came with the tokenizer, if one did.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_source`].
    pub fn from_tokenizer(tokenizer: &Tokenizer) -> Result<Option<Self>> {
        tokenizer.chat_template().map(|source| Self::from_source(source, &tokenizer.special_tokens())).transpose()
    }

    /// Sets a further variable of the template, such as `enable_thinking`.
    pub fn set_variable(&mut self, name: &str, value: &serde_json::Value) {
        self.variables.insert(name.to_string(), Value::from_serialize(value));
    }

    /// Fixes the time that `strftime_now` shows (seconds since 1970, UTC), so that renderings do not change from day to day.
    pub fn set_now(&mut self, seconds: i64) {
        self.now = Some(seconds);
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The roles that the template writes, where that is known.
    pub(crate) fn roles(&self) -> Option<&'static [&'static str]> {
        self.roles
    }

    /// Renders to plain text. `add_generation_prompt`: end with the header of an answer.
    ///
    /// # Errors
    /// `ZA_TEMPLATE`: the template raised an exception, failed, ran too long or wrote too much.
    pub fn render_text(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let size: usize =
            messages.iter().flat_map(|m| m.fields().values()).map(|v| v.as_str().map_or(256, str::len)).sum();
        let mut context = self.variables.clone();
        context.insert("messages".into(), Value::from_serialize(messages));
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        // transformers passes these as None when the caller has none.
        for name in ["tools", "documents"] {
            context.entry(name.into()).or_insert_with(|| Value::from(()));
        }
        context.insert(time::VARIABLE.into(), self.now.unwrap_or_else(time::now).into());
        let mut out = Capped { bytes: Vec::new(), left: OUTPUT_FLOOR + GROWTH * size };
        let template = self.environment.get_template(NAME).map_err(|e| failed(&e))?;
        template.render_captured_to(Value::from_serialize(&context), &mut out).map_err(|e| failed(&e))?;
        String::from_utf8(out.bytes)
            .map_err(|e| Error::Template { line: None, reason: format!("wrote broken text ({e})") })
    }
}

fn failed(error: &minijinja::Error) -> Error {
    let mut reason =
        error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        reason = format!("{reason} ({inner})");
        cause = inner.source();
    }
    Error::Template { line: error.line(), reason }
}

/// Output that refuses to grow beyond all measure.
struct Capped {
    bytes: Vec<u8>,
    left: usize,
}

impl io::Write for Capped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(data.len())
            .ok_or_else(|| io::Error::other("the rendering is far larger than its messages"))?;
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
