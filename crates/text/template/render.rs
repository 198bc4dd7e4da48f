//! A rendering in which every byte knows who wrote it.
//!
//! Each content is rendered once between two marks that no content holds; the marks are then taken out, and the text must be the
//! plain rendering. Templates that trim contents get the marks inside the outer white space.

use std::ops::Range;

use super::{ChatTemplate, Message};
use crate::error::{Error, Result};

/// Who wrote a stretch of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The template, after the content of message `after` and before that of message `before` (if there are such).
    Template { after: Option<usize>, before: Option<usize> },
    /// The content of this message.
    Content(usize),
}

/// A stretch of the text, in bytes, with one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub range: Range<usize>,
    pub owner: Owner,
}

/// A rendered conversation; `spans` cover `text` from start to end, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    pub text: String,
    pub spans: Vec<Span>,
}

impl Rendering {
    /// The byte range from the first to the last byte of message `index`'s content, if the template wrote it.
    pub fn content(&self, index: usize) -> Option<Range<usize>> {
        let mut own = self.spans.iter().filter(|s| s.owner == Owner::Content(index));
        let first = own.next()?;
        Some(first.range.start..own.next_back().map_or(first.range.end, |s| s.range.end))
    }

    /// The owner of the byte at `at`; past the end, the last owner.
    pub fn owner(&self, at: usize) -> Owner {
        let next = self.spans.partition_point(|s| s.range.start <= at);
        self.spans.get(next.saturating_sub(1)).map_or(Owner::Template { after: None, before: None }, |s| s.owner)
    }
}

/// The byte ranges of contents, by message, in the order of the text.
type Contents = Vec<(usize, Range<usize>)>;

/// Where the marks of a message go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    Around,
    /// Inside the content's outer white space, which the template drops.
    InsideSpace,
    /// Nowhere: there is nothing but white space, if that.
    None,
}

impl ChatTemplate {
    /// Renders a conversation, and finds which bytes are whose.
    ///
    /// # Errors
    /// `ZA_TEMPLATE`, as [`ChatTemplate::render_text`]; `ZA_MESSAGE_CONTENT` when a content is not text;
    /// `ZA_TEMPLATE_SPANS` naming `messages[i].content` when the template changes that content beyond its outer white space.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Rendering> {
        self.render_named(messages, add_generation_prompt, "messages")
    }

    pub(crate) fn render_named(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        place: &str,
    ) -> Result<Rendering> {
        for (index, message) in messages.iter().enumerate() {
            message.text(place, index)?;
        }
        let plain = self.render_text(messages, add_generation_prompt)?;
        let marker = Marker::choose(self.source(), messages, &plain);
        let attempt = |marks: &[Marks]| {
            let marked: Vec<Message> =
                messages.iter().zip(marks).enumerate().map(|(i, (m, marks))| marker.mark(m, i, *marks)).collect();
            let text = self.render_text(&marked, add_generation_prompt).ok()?;
            marker.read(&text).filter(|(text, _)| *text == plain).map(|(_, contents)| contents)
        };
        let around: Vec<Marks> =
            messages.iter().map(|m| if m.content() == Some("") { Marks::None } else { Marks::Around }).collect();
        if let Some(contents) = attempt(&around) {
            return Ok(covered(plain, contents));
        }
        // Some content is trimmed or looked into: find out which, one message at a time.
        let mut marks = vec![Marks::None; messages.len()];
        let mut found = marks.clone();
        for (index, message) in messages.iter().enumerate() {
            let content = message.content().unwrap_or("");
            let blank = content.trim().is_empty();
            let choices = [Marks::Around, if blank { Marks::None } else { Marks::InsideSpace }];
            let choices = if content.is_empty() { &choices[1..] } else { &choices[..] };
            let fit = choices.iter().copied().find(|choice| {
                marks[index] = *choice;
                let fits = attempt(&marks).is_some();
                marks[index] = Marks::None;
                fits
            });
            found[index] = fit.ok_or_else(|| Error::TemplateSpans {
                place: format!("{place}[{index}].content"),
                reason: "the chat template changes or inspects this content".to_string(),
            })?;
        }
        let contents = attempt(&found).ok_or_else(|| Error::TemplateSpans {
            place: place.to_string(),
            reason: "the chat template compares contents with each other".to_string(),
        })?;
        Ok(covered(plain, contents))
    }
}

/// Fills the gaps between the contents with the template's spans.
fn covered(text: String, contents: Contents) -> Rendering {
    let mut spans = Vec::with_capacity(contents.len() * 2 + 1);
    let (mut at, mut after) = (0, None);
    for (index, range) in contents {
        if at < range.start {
            spans.push(Span { range: at..range.start, owner: Owner::Template { after, before: Some(index) } });
        }
        (at, after) = (range.end, Some(index));
        if !range.is_empty() {
            spans.push(Span { range, owner: Owner::Content(index) });
        }
    }
    if at < text.len() {
        spans.push(Span { range: at..text.len(), owner: Owner::Template { after, before: None } });
    }
    Rendering { text, spans }
}

/// Marks that nothing in the conversation spells: three private-use characters around the message's number.
struct Marker {
    open: char,
    close: char,
    end: char,
}

impl Marker {
    fn choose(source: &str, messages: &[Message], plain: &str) -> Self {
        let used = |c: char| {
            source.contains(c) || plain.contains(c) || messages.iter().any(|m| m.fields().values().any(|v| holds(v, c)))
        };
        // A conversation can hold some of the 137,000 private-use characters, but not all but two of them in any memory of ours;
        // should it, the last ones are taken, and the check against the plain rendering refuses the row.
        let mut free = ('\u{E000}'..='\u{F8FF}').chain('\u{F0000}'..='\u{FFFFD}').filter(|c| !used(*c));
        let mut next = |last| free.next().unwrap_or(last);
        Self { open: next('\u{10FFFB}'), close: next('\u{10FFFC}'), end: next('\u{10FFFD}') }
    }

    fn mark(&self, message: &Message, index: usize, marks: Marks) -> Message {
        let content = message.content().unwrap_or("");
        let core = match marks {
            Marks::None => return message.clone(),
            Marks::Around => content,
            Marks::InsideSpace => content.trim(),
        };
        let start = if marks == Marks::Around { 0 } else { content.len() - content.trim_start().len() };
        let Self { open, close, end } = self;
        let (before, after) = (&content[..start], &content[start + core.len()..]);
        message.with_content(format!("{before}{open}{index}{end}{core}{close}{index}{end}{after}"))
    }

    /// Takes the marks out: the text without them, and the range of each content; `None` if they do not pair up.
    fn read(&self, marked: &str) -> Option<(String, Contents)> {
        let mut text = String::with_capacity(marked.len());
        let mut contents = Vec::new();
        let mut open: Option<(usize, usize)> = None;
        let mut rest = marked;
        while let Some(at) = rest.find([self.open, self.close, self.end]) {
            text.push_str(&rest[..at]);
            let mark = rest[at..].chars().next()?;
            rest = &rest[at + mark.len_utf8()..];
            let (number, after) = rest.split_once(self.end)?;
            rest = after;
            let index: usize = number.parse().ok()?;
            match open.take() {
                None if mark == self.open => open = Some((index, text.len())),
                Some((opened, start)) if mark == self.close && opened == index => {
                    contents.push((index, start..text.len()))
                }
                _ => return None,
            }
        }
        text.push_str(rest);
        open.is_none().then_some((text, contents))
    }
}

fn holds(value: &serde_json::Value, c: char) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains(c),
        serde_json::Value::Array(list) => list.iter().any(|v| holds(v, c)),
        serde_json::Value::Object(map) => map.iter().any(|(k, v)| k.contains(c) || holds(v, c)),
        _ => false,
    }
}
