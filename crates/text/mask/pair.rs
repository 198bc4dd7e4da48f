//! Preference pairs: one prompt and two answers to it.

use super::chat::prompt_ids;
use super::plain::{Plain, plain_ids};
use super::{EncodeOptions, Text, check_messages};
use crate::error::{Error, Result};
use crate::template::{ChatTemplate, Message};
use crate::tokenizer::Tokenizer;

/// An encoded preference pair. Every token of `chosen_ids` and `rejected_ids` is learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPair {
    pub prompt_ids: Vec<u32>,
    pub chosen_ids: Vec<u32>,
    pub rejected_ids: Vec<u32>,
    /// Sides (0 to 2) whose whole encoding does not begin with `prompt_ids`: a token crosses the edge between prompt and answer. Their
    /// answers are the tokens that begin after the edge. TRL warns of such rows.
    pub mismatched: usize,
    /// Tokens that cover the edge between the prompt and an answer.
    pub straddling: usize,
}

/// Encodes a conversational pair as TRL does: the prompt with its generation prompt, the whole conversation, and the difference as
/// the completion. With [`super::AnswerEnd::Eos`] the completion ends with the end token; with `Turn` it keeps what the template
/// writes behind it, as TRL's.
///
/// # Errors
/// As [`super::encode_chat`], naming `prompt[i]`, `chosen[0]` or `rejected[0]`; each side must be one assistant message.
pub fn encode_pair(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    prompt: &[Message],
    chosen: &[Message],
    rejected: &[Message],
    options: &EncodeOptions,
) -> Result<EncodedPair> {
    let prompt_ids = prompt_ids(tokenizer, template, prompt, options.specials, "prompt")?;
    let head = template.render_text(prompt, true)?;
    let side = |answer: &[Message], place: &str| -> Result<Side> {
        one_answer(answer, place)?;
        check_messages(template, answer, place, true)?;
        if prompt.last().is_some_and(|m| m.role() == "assistant") {
            return Err(Error::RoleOrder {
                place: format!("prompt[{}].role", prompt.len() - 1),
                role: "assistant".into(),
                reason: "the prompt ends with an answer, and another follows".to_string(),
                remedy: "Move it to chosen and rejected.".to_string(),
            });
        }
        let messages: Vec<Message> = prompt.iter().chain(answer).cloned().collect();
        // Messages are counted from the prompt on; only the answer can be at fault here, as the prompt was encoded before.
        let text = Text::new(tokenizer, template, &messages, place, false, options.specials)
            .map_err(|e| at_answer(e, place, prompt.len()))?;
        let answer = text.answer(prompt.len(), options.end).map_err(|e| at_answer(e, place, prompt.len()))?;
        let content = text.rendering.content(prompt.len()).map_or(0, |c| c.start);
        let edge = if text.rendering.text.starts_with(&head) { head.len().min(content) } else { content };
        Ok(Side::cut(&prompt_ids, &text.tokens.ids, &text.tokens.ranges, edge, answer.end))
    };
    Side::join(side(chosen, "chosen")?, side(rejected, "rejected")?, &prompt_ids)
}

/// Encodes a pair of plain texts as TRL does: bos as the tokenizer says, the two texts joined, and the end token after the answer.
///
/// # Errors
/// `ZA_EMPTY_ANSWER`, `ZA_MASK_NO_EOS` when the tokenizer names no end token, `ZA_TOKENIZER_ENCODE`.
pub fn encode_pair_text(
    tokenizer: &Tokenizer,
    prompt: &str,
    chosen: &str,
    rejected: &str,
    options: &EncodeOptions,
) -> Result<EncodedPair> {
    let prompt_ids = plain_ids(tokenizer, &Plain { prompt, completion: "", end: false }, options.specials)?.ids;
    let side = |completion: &str, place: &str| -> Result<Side> {
        if completion.is_empty() {
            return Err(Error::EmptyAnswer { place: place.to_string() });
        }
        if tokenizer.eos().is_none() {
            return Err(Error::NoEosToken { place: place.to_string() });
        }
        let whole = plain_ids(tokenizer, &Plain { prompt, completion, end: true }, options.specials)?;
        let length = whole.ids.len();
        Ok(Side::cut(&prompt_ids, &whole.ids, &whole.ranges, prompt.len(), length))
    };
    Side::join(side(chosen, "chosen")?, side(rejected, "rejected")?, &prompt_ids)
}

fn one_answer(answer: &[Message], place: &str) -> Result<()> {
    let (index, message) = match answer {
        [message] if message.role() == "assistant" => return Ok(()),
        [message] => (0, message),
        [_, second, ..] => (1, second),
        [] => return Err(Error::EmptyAnswer { place: place.to_string() }),
    };
    Err(Error::RoleOrder {
        place: format!("{place}[{index}].role"),
        role: message.role().to_string(),
        reason: "each side of a pair is one assistant message".to_string(),
        remedy: "Move what comes before it to the prompt.".to_string(),
    })
}

/// Renames `chosen[3].content` (counted through the prompt) to `chosen[0].content`.
fn at_answer(mut error: Error, place: &str, index: usize) -> Error {
    if let Error::TemplateSpans { place: p, .. }
    | Error::MaskNoEos { place: p }
    | Error::MessageContent { place: p, .. } = &mut error
    {
        *p = p.replace(&format!("{place}[{index}]"), &format!("{place}[0]"));
    }
    error
}

struct Side {
    ids: Vec<u32>,
    mismatched: bool,
    straddling: usize,
}

impl Side {
    fn cut(prompt: &[u32], whole: &[u32], ranges: &[std::ops::Range<usize>], edge: usize, end: usize) -> Self {
        let straddling = ranges.iter().filter(|r| r.start < edge && edge < r.end).count();
        let mismatched = !whole.starts_with(prompt);
        let start = if mismatched { ranges.partition_point(|r| r.start < edge) } else { prompt.len() };
        Self { ids: whole.get(start..end).unwrap_or_default().to_vec(), mismatched, straddling }
    }

    fn join(chosen: Self, rejected: Self, prompt: &[u32]) -> Result<EncodedPair> {
        for (side, place) in [(&chosen, "chosen"), (&rejected, "rejected")] {
            if side.ids.is_empty() {
                return Err(Error::MaskEmpty { place: place.to_string() });
            }
        }
        Ok(EncodedPair {
            mismatched: usize::from(chosen.mismatched) + usize::from(rejected.mismatched),
            straddling: chosen.straddling + rejected.straddling,
            prompt_ids: prompt.to_vec(),
            chosen_ids: chosen.ids,
            rejected_ids: rejected.ids,
        })
    }
}
