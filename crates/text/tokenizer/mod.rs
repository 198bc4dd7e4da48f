//! A tokenizer: text to ids and back, with guards against malformed files.

mod added;
mod bytes;
mod check;
mod config;
mod encode;
mod gguf;
mod stream;
mod train;
mod words;

#[cfg(test)]
mod test;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::template::SpecialTokens;
use added::AddedTokens;
pub(crate) use encode::Encoded;
pub use gguf::GgufTokenizer;
pub use stream::StreamDecoder;
pub use train::train_bpe;
use words::Words;

/// What to do with text that spells a special token, such as `</s>` in a user's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Specials {
    /// It stays text (default).
    #[default]
    Text,
    /// It becomes that token, as transformers does by default. For comparisons with other trainers.
    Parse,
}

/// A special token and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Special {
    pub token: String,
    pub id: u32,
}

/// A tokenizer of the `tokenizer.json` kind. Cheap to share (`Send + Sync`), immutable.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    added: AddedTokens,
    words: Words,
    bos: Option<Special>,
    eos: Option<Special>,
    unk: Option<Special>,
    pad: Option<Special>,
    /// Ids before and after a text that is encoded with special tokens added.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    chat_template: Option<String>,
    vocabulary: usize,
    streaming: stream::Streaming,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocabulary", &self.vocabulary)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, if given, `tokenizer_config.json` (special tokens, chat template, add_bos_token).
    ///
    /// # Errors
    /// `ZA_TOKENIZER_*`: truncated or foreign JSON, malformed merges (named), ids given twice, special tokens that do not exist.
    pub fn from_json(bytes: &[u8], config: Option<&str>) -> Result<Self> {
        let config = config.map_or_else(|| Ok(config::Config::default()), config::Config::parse)?;
        let file: Value = serde_json::from_slice(bytes).map_err(|e| broken(format!("is not complete JSON ({e})")))?;
        Self::build(file, Some(bytes), config)
    }

    /// Builds the tokenizer that a GGUF file carries in its metadata.
    ///
    /// `metadata`: the file's key-value pairs with their GGUF names (`tokenizer.ggml.model`, `.tokens`, `.merges`, `.token_type`,
    /// `.pre`, `.scores`, `.bos_token_id`, `.eos_token_id`, `.add_bos_token`, `tokenizer.chat_template`).
    ///
    /// # Errors
    /// `ZA_TOKENIZER_UNSUPPORTED` for a model or pre-tokenizer that we do not have; else as [`Tokenizer::from_json`].
    pub fn from_gguf(metadata: &Map<String, Value>) -> Result<Self> {
        let (file, config) = gguf::convert(metadata)?;
        Self::build(file, None, config)
    }

    fn build(mut file: Value, bytes: Option<&[u8]>, config: config::Config) -> Result<Self> {
        let changed = check::prepare(&mut file, &config)?;
        let mut inner = match bytes {
            Some(bytes) if !changed => parse(bytes)?,
            _ => parse(&to_bytes(&file)?)?,
        };
        if check::declare_added(&mut file, &inner)? {
            inner = parse(&to_bytes(&file)?)?;
        }
        let added = AddedTokens::new(&inner, &file)?;
        let find = |name: &str, token: &Option<String>| -> Result<Option<Special>> {
            let Some(token) = token else { return Ok(None) };
            match inner.token_to_id(token) {
                Some(id) => Ok(Some(Special { token: token.clone(), id })),
                // An unknown or padding token that the model has no row for is of no use to us, and never written.
                None if name == "pad_token" || name == "unk_token" => Ok(None),
                None => Err(Error::TokenizerSpecial {
                    place: format!("tokenizer_config.json: {name}"),
                    token: token.clone(),
                }),
            }
        };
        let (bos, eos) = (find("bos_token", &config.bos)?, find("eos_token", &config.eos)?);
        let (unk, pad) = (find("unk_token", &config.unk)?, find("pad_token", &config.pad)?);
        let (mut prefix, mut suffix) = guarded(|| encode::affixes(&inner)).map_err(broken)?;
        let forced = |add: Option<bool>, special: &Option<Special>, affix: &mut Vec<u32>| match add {
            Some(true) => *affix = special.iter().map(|s| s.id).collect(),
            Some(false) => affix.clear(),
            None => {}
        };
        forced(config.add_bos, &bos, &mut prefix);
        forced(config.add_eos, &eos, &mut suffix);
        let vocabulary = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let streaming = stream::Streaming::of(&file);
        let words = Words::of(&file);
        Ok(Self {
            inner,
            added,
            words,
            bos,
            eos,
            unk,
            pad,
            prefix,
            suffix,
            chat_template: config.chat_template,
            vocabulary,
            streaming,
        })
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<&Special> {
        self.bos.as_ref()
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<&Special> {
        self.eos.as_ref()
    }

    /// The token for what the vocabulary cannot express.
    pub fn unk(&self) -> Option<&Special> {
        self.unk.as_ref()
    }

    /// The padding token. Batches are packed, never padded: it is here for those who write the file back.
    pub fn pad(&self) -> Option<&Special> {
        self.pad.as_ref()
    }

    /// Whether plain text is encoded with the bos token in front.
    pub fn add_bos(&self) -> bool {
        self.bos.as_ref().is_some_and(|bos| self.prefix.first() == Some(&bos.id))
    }

    /// The source of the chat template that came with the tokenizer.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The tokenizer with another chat template, such as the file `chat_template.jinja` beside it, which goes before the one in
    /// tokenizer_config.json.
    #[must_use]
    pub fn with_chat_template(mut self, source: String) -> Self {
        self.chat_template = Some(source);
        self
    }

    /// The special tokens by name, as a chat template sees them.
    pub fn special_tokens(&self) -> SpecialTokens {
        let text = |s: &Option<Special>| s.as_ref().map(|s| s.token.clone());
        SpecialTokens { bos: text(&self.bos), eos: text(&self.eos), unk: text(&self.unk), pad: text(&self.pad) }
    }

    /// The largest id + 1: what an embedding table must at least hold. Ids may have holes.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The id of a token, spelled as in the file.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, spelled as in the file; `None` for a hole.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether the id is a special token's.
    pub fn is_special(&self, id: u32) -> bool {
        self.added.is_special(id)
    }

    /// Encodes a text. `add_special`: put the bos (and eos) token around it, as the tokenizer's files say.
    ///
    /// # Errors
    /// `ZA_TOKENIZER_ENCODE` when the tokenizer's own model fails.
    pub fn encode(&self, text: &str, add_special: bool, specials: Specials) -> Result<Vec<u32>> {
        let mut ids = self.encode_owned(text, &[], specials)?.ids;
        if add_special && !(self.prefix.is_empty() && self.suffix.is_empty()) {
            ids.splice(0..0, self.prefix.iter().copied());
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    /// The ids that go before a text.
    pub(crate) fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// Decodes ids; bytes that make no character become U+FFFD, ids that the vocabulary lacks are left out.
    ///
    /// # Errors
    /// `ZA_TOKENIZER_DECODE` when the tokenizer's own decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(|| self.inner.decode(ids, skip_special))
            .map_err(|reason| Error::TokenizerDecode { count: ids.len(), reason })
    }

    /// The tokenizer as `tokenizer.json`.
    ///
    /// # Errors
    /// `ZA_TOKENIZER_FILE` when the tokenizer cannot be written.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(|e| broken(e.to_string()))
    }
}

fn broken(reason: String) -> Error {
    Error::TokenizerFile { file: "tokenizer.json", reason }
}

fn to_bytes(file: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(file).map_err(|e| broken(e.to_string()))
}

fn parse(bytes: &[u8]) -> Result<tokenizers::Tokenizer> {
    guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(broken)
}

/// Runs a call of the tokenizers crate, which indexes and unwraps freely on odd files: a panic there is an error here.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string()))
            .unwrap_or_else(|| "the tokenizer library gave up".to_string())),
    }
}
