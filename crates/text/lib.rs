//! Text: tokenizers, chat templates, and which tokens of a conversation a trainer learns from.
//!
//! A conversation is rendered by its template in such a way that every byte of the text knows who wrote it (the template,
//! or the content of one message), encoded once as a whole, and the mask is read from the tokens' byte offsets.
//! Nothing is ever searched for in the text, so an answer that repeats the question cannot confuse the mask.

pub mod error;
pub mod mask;
pub mod stop;
pub mod template;
pub mod tokenizer;

pub use error::{Error, Result};
pub use mask::{
    AnswerEnd, EncodeOptions, EncodedChat, EncodedPair, Owner as TokenOwner, encode_chat, encode_pair,
    encode_pair_text, encode_prompt, encode_prompt_completion, encode_text,
};
pub use stop::StopMatcher;
pub use template::{ChatTemplate, Message, Owner, Rendering, Span, SpecialTokens};
pub use tokenizer::{GgufTokenizer, Special, Specials, StreamDecoder, Tokenizer, train_bpe};
