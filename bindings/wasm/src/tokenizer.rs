//! Tokenizer and chat template.

use std::rc::Rc;

use serde_json::{Map, Value};
use wasm_bindgen::prelude::wasm_bindgen;
use zephyr_text::{AnswerEnd, ChatTemplate, EncodeOptions, EncodedChat, Message, Specials, TokenOwner, Tokenizer};

use crate::failure::Failure;

/// A conversation as tokens, with the mask of supervised ones.
#[wasm_bindgen(getter_with_clone)]
pub struct WasmEncoded {
    pub ids: Vec<u32>,
    /// 1 where the token is learned.
    pub supervised: Vec<u8>,
    /// Index of the message whose content the token belongs to; −1: the template's.
    pub owners: Vec<i32>,
    pub straddling: u32,
}

impl From<EncodedChat> for WasmEncoded {
    fn from(chat: EncodedChat) -> Self {
        let owners = chat.owners.iter().map(|owner| match owner {
            TokenOwner::Template => -1,
            TokenOwner::Content(index) => *index as i32,
        });
        Self {
            owners: owners.collect(),
            supervised: chat.supervised.iter().map(|&flag| u8::from(flag)).collect(),
            ids: chat.ids,
            straddling: chat.straddling as u32,
        }
    }
}

/// A tokenizer with its chat template.
#[wasm_bindgen]
pub struct WasmTokenizer {
    pub(crate) tokenizer: Rc<Tokenizer>,
    template: ChatTemplate,
}

fn messages(json: &str) -> Result<Vec<Message>, Failure> {
    let value: Value = serde_json::from_str(json)?;
    Ok(Message::list(&value, "messages")?)
}

fn specials(parse: bool) -> Specials {
    if parse { Specials::Parse } else { Specials::Text }
}

impl WasmTokenizer {
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
        Ok(Self { tokenizer: Rc::new(tokenizer), template })
    }

    /// From the `tokenizer.*` metadata of a GGUF file.
    pub(crate) fn from_gguf(metadata: &Map<String, Value>, template: Option<&str>) -> Result<Self, Failure> {
        Self::with_template(Tokenizer::from_gguf(metadata)?, template)
    }
}

#[wasm_bindgen]
impl WasmTokenizer {
    /// From the bytes of tokenizer.json and, if there is one, tokenizer_config.json. `template`: Jinja source, `"zephyr"`,
    /// or left out for the tokenizer's own (Zephyr's when it has none).
    #[wasm_bindgen(js_name = fromJson)]
    pub fn from_json(json: &[u8], config: Option<String>, template: Option<String>) -> Result<Self, Failure> {
        Self::with_template(Tokenizer::from_json(json, config.as_deref())?, template.as_deref())
    }

    #[wasm_bindgen(getter, js_name = vocabularySize)]
    pub fn vocabulary_size(&self) -> u32 {
        self.tokenizer.vocabulary() as u32
    }

    #[wasm_bindgen(getter, js_name = bosTokenId)]
    pub fn bos_token_id(&self) -> Option<u32> {
        self.tokenizer.bos().map(|token| token.id)
    }

    #[wasm_bindgen(getter, js_name = eosTokenId)]
    pub fn eos_token_id(&self) -> Option<u32> {
        self.tokenizer.eos().map(|token| token.id)
    }

    #[wasm_bindgen(getter, js_name = chatTemplate)]
    pub fn chat_template(&self) -> String {
        self.template.source().to_owned()
    }

    pub fn encode(&self, text: &str, add_special: bool, parse_specials: bool) -> Result<Vec<u32>, Failure> {
        Ok(self.tokenizer.encode(text, add_special, specials(parse_specials))?)
    }

    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Failure> {
        Ok(self.tokenizer.decode(ids, skip_special)?)
    }

    /// The rendering of a conversation (JSON list of messages).
    pub fn render(&self, conversation: &str, add_generation_prompt: bool) -> Result<String, Failure> {
        Ok(self.template.render_text(&messages(conversation)?, add_generation_prompt)?)
    }

    /// A conversation that the assistant is to answer.
    #[wasm_bindgen(js_name = encodePrompt)]
    pub fn encode_prompt(&self, conversation: &str, parse_specials: bool) -> Result<Vec<u32>, Failure> {
        let messages = messages(conversation)?;
        Ok(zephyr_text::encode_prompt(&self.tokenizer, &self.template, &messages, specials(parse_specials))?)
    }

    /// A conversation with its mask.
    #[wasm_bindgen(js_name = encodeChat)]
    pub fn encode_chat(
        &self,
        conversation: &str,
        parse_specials: bool,
        whole_turn: bool,
    ) -> Result<WasmEncoded, Failure> {
        let messages = messages(conversation)?;
        let end = if whole_turn { AnswerEnd::Turn } else { AnswerEnd::Eos };
        let options = EncodeOptions { add_generation_prompt: false, specials: specials(parse_specials), end };
        Ok(zephyr_text::encode_chat(&self.tokenizer, &self.template, &messages, &options)?.into())
    }
}
