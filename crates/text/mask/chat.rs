//! Conversations for supervised fine-tuning, and prompts for generation.

use super::{EncodeOptions, EncodedChat, Owner, Text, check_messages};
use crate::error::{Error, Result};
use crate::template::{ChatTemplate, Message};
use crate::tokenizer::{Specials, Tokenizer};

/// Encodes a conversation whole, as transformers' `apply_chat_template(tokenize=True)`, and marks the tokens of every answer.
///
/// The ids are the reference's, but that contents which spell special tokens stay text (see [`Specials`]).
///
/// # Errors
/// `ZA_ROLE_ORDER`, `ZA_MESSAGE_CONTENT`, `ZA_EMPTY_ANSWER` naming `messages[i]`; `ZA_TEMPLATE*`; `ZA_MASK_NO_EOS` when no end token
/// follows an answer; `ZA_MASK_EMPTY` when there is no answer (unless a generation prompt is asked for).
pub fn encode_chat(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    options: &EncodeOptions,
) -> Result<EncodedChat> {
    encode_from(tokenizer, template, messages, 0, options)
}

/// Encodes a conversational `{prompt, completion}` row: one conversation, of which only the completion's answers are learned.
///
/// # Errors
/// As [`encode_chat`]; indices count through the prompt and on into the completion.
pub fn encode_prompt_completion(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    prompt: &[Message],
    completion: &[Message],
    options: &EncodeOptions,
) -> Result<EncodedChat> {
    let messages: Vec<Message> = prompt.iter().chain(completion).cloned().collect();
    encode_from(tokenizer, template, &messages, prompt.len(), options)
}

/// Encodes a conversation up to the point where an answer begins: the generation prompt included.
///
/// # Errors
/// As [`encode_chat`], but nothing need be supervised.
pub fn encode_prompt(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    specials: Specials,
) -> Result<Vec<u32>> {
    prompt_ids(tokenizer, template, messages, specials, "messages")
}

pub(super) fn prompt_ids(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    specials: Specials,
    place: &str,
) -> Result<Vec<u32>> {
    check_messages(template, messages, place, false)?;
    Ok(Text::new(tokenizer, template, messages, place, true, specials)?.tokens.ids)
}

fn encode_from(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    answers_from: usize,
    options: &EncodeOptions,
) -> Result<EncodedChat> {
    let place = "messages";
    check_messages(template, messages, place, true)?;
    let text = Text::new(tokenizer, template, messages, place, options.add_generation_prompt, options.specials)?;
    let mut supervised = vec![false; text.tokens.ids.len()];
    for (index, message) in messages.iter().enumerate().skip(answers_from) {
        if message.role() == "assistant" {
            supervised[text.answer(index, options.end)?].fill(true);
        }
    }
    if !options.add_generation_prompt && !supervised.contains(&true) {
        return Err(Error::MaskEmpty { place: place.to_string() });
    }
    let owners: Vec<Owner> = (0..text.tokens.ids.len()).map(|token| text.owner(token)).collect();
    let straddling = text.straddling();
    let roles = messages.iter().map(|m| m.role().to_string()).collect();
    Ok(EncodedChat { ids: text.tokens.ids, owners, supervised, straddling, roles })
}
