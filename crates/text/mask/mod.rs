//! Which tokens a trainer learns from: read from the byte offsets of the tokens, never by searching the text.

mod chat;
mod pair;
mod plain;

#[cfg(test)]
mod test;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::template::{ChatTemplate, Message, Owner as Writer, Rendering};
use crate::tokenizer::{Encoded, Specials, Tokenizer};
pub use chat::{encode_chat, encode_prompt, encode_prompt_completion};
pub use pair::{EncodedPair, encode_pair, encode_pair_text};
pub use plain::encode_text;

/// Where an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnswerEnd {
    /// With the end token after it (default).
    #[default]
    Eos,
    /// With all that the template writes before the next message's header: for Zephyr the line end after `</s>` too, as in TRL.
    Turn,
}

/// Options of the encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodeOptions {
    /// End the text with the header of an answer; then nothing need be supervised.
    pub add_generation_prompt: bool,
    /// What becomes of contents that spell special tokens.
    pub specials: Specials,
    /// Where answers end.
    pub end: AnswerEnd,
}

/// Who wrote a token: the side of its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The template, or the tokenizer (bos, eos).
    Template,
    /// The content of message `i` (for plain text: 0 the prompt or text, 1 the completion).
    Content(usize),
}

/// An encoded text, one entry per token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedChat {
    pub ids: Vec<u32>,
    pub owners: Vec<Owner>,
    /// Whether the token is learned.
    pub supervised: Vec<bool>,
    /// Tokens that cover the edge between a content and the template.
    pub straddling: usize,
    /// The role of each message.
    pub roles: Vec<String>,
}

/// Checks roles and contents of a conversation. Answers that are `learned` must say something; those given as context may
/// be empty (a model did answer so).
fn check_messages(template: &ChatTemplate, messages: &[Message], place: &str, learned: bool) -> Result<()> {
    const KNOWN: [&str; 7] = ["system", "user", "assistant", "tool", "developer", "function", "ipython"];
    let roles = template.roles().unwrap_or(&KNOWN);
    let mut previous = "";
    for (index, message) in messages.iter().enumerate() {
        let role = message.role();
        let wrong = |reason: String, remedy: &str| Error::RoleOrder {
            place: format!("{place}[{index}].role"),
            role: role.to_string(),
            reason,
            remedy: remedy.to_string(),
        };
        if !roles.contains(&role) {
            let reason = format!("the template knows the roles {}", roles.join(", "));
            return Err(wrong(reason, "Rename it, or drop the message."));
        }
        if role == "assistant" && previous == "assistant" {
            return Err(wrong("two answers in a row".to_string(), "Join them, or put the question between them."));
        }
        if message.text(place, index)?.trim().is_empty() && role == "assistant" && learned {
            return Err(Error::EmptyAnswer { place: format!("{place}[{index}].content") });
        }
        previous = role;
    }
    Ok(())
}

/// A conversation rendered and encoded.
struct Text<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    messages: &'a [Message],
    place: &'a str,
    rendering: Rendering,
    tokens: Encoded,
}

impl<'a> Text<'a> {
    fn new(
        tokenizer: &'a Tokenizer,
        template: &'a ChatTemplate,
        messages: &'a [Message],
        place: &'a str,
        add_generation_prompt: bool,
        specials: Specials,
    ) -> Result<Self> {
        let rendering = template.render_named(messages, add_generation_prompt, place)?;
        let trusted: Vec<Range<usize>> = rendering
            .spans
            .iter()
            .filter(|s| !matches!(s.owner, Writer::Content(_)))
            .map(|s| s.range.clone())
            .collect();
        let tokens = tokenizer.encode_owned(&rendering.text, &trusted, specials)?;
        Ok(Self { tokenizer, template, messages, place, rendering, tokens })
    }

    fn owner(&self, token: usize) -> Owner {
        match self.rendering.owner(self.tokens.ranges[token].start) {
            Writer::Content(index) => Owner::Content(index),
            Writer::Template { .. } => Owner::Template,
        }
    }

    fn straddling(&self) -> usize {
        let owner = |at| match self.rendering.owner(at) {
            Writer::Content(index) => Some(index),
            Writer::Template { .. } => None,
        };
        self.tokens.ranges.iter().filter(|r| r.len() > 1 && owner(r.start) != owner(r.end - 1)).count()
    }

    /// The tokens from the first of message `index`'s content through the end of its answer.
    fn answer(&self, index: usize, end: AnswerEnd) -> Result<Range<usize>> {
        let place = || format!("{}[{index}].content", self.place);
        let content = self.rendering.content(index).ok_or_else(|| Error::TemplateSpans {
            place: place(),
            reason: "the chat template does not write this content".to_string(),
        })?;
        let first = self.first_from(content.start);
        let next =
            self.rendering.spans.iter().find(|s| s.range.start >= content.end && matches!(s.owner, Writer::Content(_)));
        let gap = content.end..next.map_or(self.rendering.text.len(), |s| s.range.start);
        let eos = self.end_token(index, &gap)?.ok_or_else(|| Error::MaskNoEos { place: place() })?;
        let last = match end {
            AnswerEnd::Eos => eos + 1,
            AnswerEnd::Turn => self.first_from(self.turn_end(index, self.tokens.ranges[eos].end, &gap)).max(eos + 1),
        };
        Ok(first..last)
    }

    /// The first token that begins at or after byte `at`.
    fn first_from(&self, at: usize) -> usize {
        self.tokens.ranges.partition_point(|r| r.start < at)
    }

    /// The end token that the template writes after message `index`, in the bytes of `gap`.
    fn end_token(&self, index: usize, gap: &Range<usize>) -> Result<Option<usize>> {
        let eos = self.tokenizer.eos().map(|e| e.id);
        let in_gap = |token: &usize| {
            let range = &self.tokens.ranges[*token];
            range.end > gap.start && range.start < gap.end
        };
        let from = self.tokens.ranges.partition_point(|r| r.end <= gap.start);
        let end = |id: u32| Some(id) == eos || self.tokenizer.is_special(id);
        let first = (from..self.tokens.ids.len()).take_while(in_gap).find(|t| end(self.tokens.ids[*t]));
        let Some(first) = first else { return Ok(None) };
        if Some(self.tokens.ids[first]) == eos {
            return Ok(Some(first));
        }
        // Another special token: it ends this answer only if it stands before the next message's header.
        let turn = self.boundary(index).unwrap_or(gap.end);
        let owned =
            self.tokens.ranges[first].end <= turn && Some(self.tokens.ids[first]) != self.tokenizer.bos().map(|b| b.id);
        Ok(owned.then_some(first))
    }

    /// The byte where the next message's header begins, if the rendering of the messages so far is its beginning.
    fn boundary(&self, index: usize) -> Option<usize> {
        if index + 1 == self.messages.len() {
            let whole = self.template.render_text(self.messages, false).ok()?;
            return self.rendering.text.starts_with(&whole).then_some(whole.len());
        }
        let head = self.template.render_text(&self.messages[..=index], false).ok()?;
        self.rendering.text.starts_with(&head).then_some(head.len())
    }

    fn turn_end(&self, index: usize, eos: usize, gap: &Range<usize>) -> usize {
        if let Some(boundary) = self.boundary(index).filter(|b| (eos..=gap.end).contains(b)) {
            return boundary;
        }
        // The template writes the last turn otherwise: the white space after the end token is the turn's.
        let rest = &self.rendering.text[eos..gap.end];
        eos + (rest.len() - rest.trim_start().len())
    }
}
