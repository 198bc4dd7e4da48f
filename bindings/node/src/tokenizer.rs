//! Tokenizer and chat template.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{Int32Array, Object, Uint8Array, Uint32Array};
use napi_derive::napi;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use zephyr_text::{
    AnswerEnd, ChatTemplate, EncodeOptions, EncodedChat, EncodedPair, Message, Specials, TokenOwner, Tokenizer,
};

use crate::engine::submit;
use crate::failure::{Failure, guard};

/// A conversation or text as tokens, with the mask of supervised ones.
#[napi(object)]
pub struct NativeEncoded {
    pub ids: Uint32Array,
    /// 1 where the token is learned.
    pub supervised: Uint8Array,
    /// Index of the message whose content the token belongs to; −1: the template's.
    pub owners: Int32Array,
    pub straddling: u32,
}

/// A pair as tokens: one prompt, two completions.
#[napi(object)]
pub struct NativeEncodedPair {
    pub prompt: Uint32Array,
    pub chosen: Uint32Array,
    pub rejected: Uint32Array,
    pub straddling: u32,
}

impl From<EncodedChat> for NativeEncoded {
    fn from(chat: EncodedChat) -> Self {
        let owners = chat.owners.iter().map(|owner| match owner {
            TokenOwner::Template => -1,
            TokenOwner::Content(index) => *index as i32,
        });
        Self {
            owners: Int32Array::new(owners.collect()),
            supervised: Uint8Array::new(chat.supervised.iter().map(|&flag| u8::from(flag)).collect()),
            ids: Uint32Array::new(chat.ids),
            straddling: chat.straddling as u32,
        }
    }
}

impl From<EncodedPair> for NativeEncodedPair {
    fn from(pair: EncodedPair) -> Self {
        Self {
            prompt: Uint32Array::new(pair.prompt_ids),
            chosen: Uint32Array::new(pair.chosen_ids),
            rejected: Uint32Array::new(pair.rejected_ids),
            straddling: pair.straddling as u32,
        }
    }
}

/// A tokenizer with its chat template.
#[napi]
pub struct NativeTokenizer {
    pub(crate) tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
}

fn messages(json: &str, place: &str) -> Result<Vec<Message>, Failure> {
    let value: Value = serde_json::from_str(json)?;
    Ok(Message::list(&value, place)?)
}

fn specials(parse: bool) -> Specials {
    if parse { Specials::Parse } else { Specials::Text }
}

fn options(parse_specials: bool, whole_turn: bool) -> EncodeOptions {
    EncodeOptions {
        add_generation_prompt: false,
        specials: specials(parse_specials),
        end: if whole_turn { AnswerEnd::Turn } else { AnswerEnd::Eos },
    }
}

impl NativeTokenizer {
    /// The template asked for, else the tokenizer's own, else Zephyr's.
    fn with_template(tokenizer: Tokenizer, template: Option<&str>) -> Result<Self, Failure> {
        let tokens = tokenizer.special_tokens();
        let template = match template {
            None | Some("model") => match ChatTemplate::from_tokenizer(&tokenizer)? {
                Some(template) => template,
                None => ChatTemplate::zephyr_with(&tokens),
            },
            Some("zephyr") => ChatTemplate::zephyr_with(&tokens),
            Some(source) => ChatTemplate::from_source(source, &tokens)?,
        };
        Ok(Self { tokenizer: Arc::new(tokenizer), template })
    }
}

#[napi]
impl NativeTokenizer {
    /// From the bytes of tokenizer.json and, if there is one, tokenizer_config.json. `template`: Jinja source, `"zephyr"`,
    /// or left out for the tokenizer's own (Zephyr's when it has none).
    #[napi(factory)]
    pub fn from_json(json: Uint8Array, config: Option<String>, template: Option<String>) -> napi::Result<Self> {
        let read = guard(|| Self::with_template(Tokenizer::from_json(&json, config.as_deref())?, template.as_deref()));
        crate::memory::give_back();
        read
    }

    /// From the `tokenizer.*` metadata of a GGUF file, as JSON.
    #[napi(factory)]
    pub fn from_gguf(metadata: String, template: Option<String>) -> napi::Result<Self> {
        guard(|| {
            let metadata: Map<String, Value> = serde_json::from_str(&metadata)?;
            let read = Self::with_template(Tokenizer::from_gguf(&metadata)?, template.as_deref());
            drop(metadata);
            crate::memory::give_back();
            read
        })
    }

    /// The same tokenizer with another chat template.
    #[napi]
    pub fn with_chat_template(&self, template: String) -> napi::Result<Self> {
        guard(|| {
            let tokens = self.tokenizer.special_tokens();
            let template = match template.as_str() {
                "zephyr" => ChatTemplate::zephyr_with(&tokens),
                source => ChatTemplate::from_source(source, &tokens)?,
            };
            Ok(Self { tokenizer: self.tokenizer.clone(), template })
        })
    }

    #[napi(getter)]
    pub fn vocabulary_size(&self) -> u32 {
        self.tokenizer.vocabulary() as u32
    }

    #[napi(getter)]
    pub fn bos_token_id(&self) -> Option<u32> {
        self.tokenizer.bos().map(|token| token.id)
    }

    #[napi(getter)]
    pub fn eos_token_id(&self) -> Option<u32> {
        self.tokenizer.eos().map(|token| token.id)
    }

    #[napi(getter)]
    pub fn chat_template(&self) -> String {
        self.template.source().to_owned()
    }

    /// The text of one token as the vocabulary spells it.
    #[napi]
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// tokenizer.json.
    #[napi]
    pub fn to_json(&self) -> napi::Result<String> {
        guard(|| Ok(self.tokenizer.to_json()?))
    }

    /// tokenizer_config.json, as transformers reads it.
    #[napi]
    pub fn config_json(&self) -> napi::Result<String> {
        guard(|| {
            let tokens = self.tokenizer.special_tokens();
            let mut config = Map::new();
            config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
            config.insert("add_bos_token".into(), json!(self.tokenizer.add_bos()));
            config.insert("clean_up_tokenization_spaces".into(), json!(false));
            for (name, token) in [
                ("bos_token", tokens.bos),
                ("eos_token", tokens.eos),
                ("unk_token", tokens.unk),
                ("pad_token", tokens.pad),
            ] {
                if let Some(token) = token {
                    config.insert(name.into(), json!(token));
                }
            }
            config.insert("chat_template".into(), json!(self.template.source()));
            Ok(serde_json::to_string_pretty(&config)?)
        })
    }

    #[napi]
    pub fn encode(&self, text: String, add_special: bool, parse_specials: bool) -> napi::Result<Uint32Array> {
        guard(|| Ok(Uint32Array::new(self.tokenizer.encode(&text, add_special, specials(parse_specials))?)))
    }

    /// Several texts at once, on the compute threads.
    #[napi(ts_return_type = "Promise<Array<Uint32Array>>")]
    pub fn encode_batch<'env>(
        &self,
        env: &'env Env,
        texts: Vec<String>,
        add_special: bool,
        parse_specials: bool,
    ) -> napi::Result<Object<'env>> {
        let tokenizer = self.tokenizer.clone();
        submit(env, move || {
            let encode = |text: &String| tokenizer.encode(text, add_special, specials(parse_specials));
            let ids = texts.par_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
            Ok(ids.into_iter().map(Uint32Array::new).collect::<Vec<_>>())
        })
    }

    #[napi]
    pub fn decode(&self, ids: Uint32Array, skip_special: bool) -> napi::Result<String> {
        guard(|| Ok(self.tokenizer.decode(&ids, skip_special)?))
    }

    /// The rendering of a conversation (JSON list of messages).
    #[napi]
    pub fn render(&self, conversation: String, add_generation_prompt: bool) -> napi::Result<String> {
        guard(|| Ok(self.template.render_text(&messages(&conversation, "messages")?, add_generation_prompt)?))
    }

    /// A conversation that the assistant is to answer.
    #[napi]
    pub fn encode_prompt(&self, conversation: String, parse_specials: bool) -> napi::Result<Uint32Array> {
        guard(|| {
            let messages = messages(&conversation, "messages")?;
            let ids = zephyr_text::encode_prompt(&self.tokenizer, &self.template, &messages, specials(parse_specials))?;
            Ok(Uint32Array::new(ids))
        })
    }

    /// A conversation with its mask.
    #[napi]
    pub fn encode_chat(
        &self,
        conversation: String,
        parse_specials: bool,
        whole_turn: bool,
    ) -> napi::Result<NativeEncoded> {
        guard(|| {
            let messages = messages(&conversation, "messages")?;
            let options = options(parse_specials, whole_turn);
            Ok(zephyr_text::encode_chat(&self.tokenizer, &self.template, &messages, &options)?.into())
        })
    }

    /// A conversational pair.
    #[napi]
    pub fn encode_pair(
        &self,
        prompt: String,
        chosen: String,
        rejected: String,
        parse_specials: bool,
        whole_turn: bool,
    ) -> napi::Result<NativeEncodedPair> {
        guard(|| {
            let pair = zephyr_text::encode_pair(
                &self.tokenizer,
                &self.template,
                &messages(&prompt, "prompt")?,
                &messages(&chosen, "chosen")?,
                &messages(&rejected, "rejected")?,
                &options(parse_specials, whole_turn),
            )?;
            Ok(pair.into())
        })
    }

    /// A pair of plain texts; the end token is appended to both answers.
    #[napi]
    pub fn encode_pair_text(
        &self,
        prompt: String,
        chosen: String,
        rejected: String,
        parse_specials: bool,
    ) -> napi::Result<NativeEncodedPair> {
        guard(|| {
            let options = options(parse_specials, false);
            Ok(zephyr_text::encode_pair_text(&self.tokenizer, &prompt, &chosen, &rejected, &options)?.into())
        })
    }

    /// Plain text, all of it supervised; the end token is appended.
    #[napi]
    pub fn encode_text(&self, text: String, parse_specials: bool) -> napi::Result<NativeEncoded> {
        guard(|| Ok(zephyr_text::encode_text(&self.tokenizer, &text, None, &options(parse_specials, false))?.into()))
    }

    /// A plain prompt and its completion, which alone is supervised.
    #[napi]
    pub fn encode_prompt_completion(
        &self,
        prompt: String,
        completion: String,
        parse_specials: bool,
    ) -> napi::Result<NativeEncoded> {
        guard(|| {
            let options = options(parse_specials, false);
            Ok(zephyr_text::encode_text(&self.tokenizer, &prompt, Some(&completion), &options)?.into())
        })
    }
}

/// Trains a byte-level BPE tokenizer; returns tokenizer.json.
#[napi]
pub fn train_tokenizer(texts: Vec<String>, vocabulary_size: u32, special_tokens: Vec<String>) -> napi::Result<String> {
    guard(|| {
        let specials: Vec<&str> = special_tokens.iter().map(String::as_str).collect();
        Ok(zephyr_text::train_bpe(texts.into_iter(), vocabulary_size as usize, &specials)?)
    })
}
