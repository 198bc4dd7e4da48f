//! Plain text rows: no template, only the tokenizer's bos and an end token.

use super::{EncodeOptions, EncodedChat, Owner};
use crate::error::{Error, Result};
use crate::tokenizer::{Encoded, Specials, Tokenizer};

/// A plain text in two parts.
pub(super) struct Plain<'a> {
    pub prompt: &'a str,
    pub completion: &'a str,
    /// Whether the end token follows.
    pub end: bool,
}

/// Encodes a plain `{text}` row (`completion` `None`: all of it is learned) or a `{prompt, completion}` row (the completion is), as TRL
/// does: bos as the tokenizer says, the end token at the end.
///
/// With [`Specials::Parse`] a text that ends in the end token gets no second one, as in TRL; with [`Specials::Text`] what it spells is text.
///
/// # Errors
/// `ZA_EMPTY_ANSWER`, `ZA_MASK_NO_EOS` when the tokenizer names no end token, `ZA_TOKENIZER_ENCODE`.
pub fn encode_text(
    tokenizer: &Tokenizer,
    text: &str,
    completion: Option<&str>,
    options: &EncodeOptions,
) -> Result<EncodedChat> {
    let (name, learned) = completion.map_or(("text", text), |c| ("completion", c));
    if learned.is_empty() {
        return Err(Error::EmptyAnswer { place: name.to_string() });
    }
    if tokenizer.eos().is_none() {
        return Err(Error::NoEosToken { place: name.to_string() });
    }
    let whole = plain_ids(
        tokenizer,
        &Plain { prompt: text, completion: completion.unwrap_or(""), end: true },
        options.specials,
    )?;
    let edge = if completion.is_some() { text.len() } else { 0 };
    let first = if completion.is_some() { whole.ranges.partition_point(|r| r.start < edge) } else { 0 };
    let total = text.len() + completion.map_or(0, str::len);
    let owners = whole
        .ranges
        .iter()
        .map(|r| match () {
            () if r.is_empty() && (r.start == total || r.start == 0) => Owner::Template,
            () if completion.is_some() && r.start >= edge => Owner::Content(1),
            () => Owner::Content(0),
        })
        .collect();
    let straddling = whole.ranges.iter().filter(|r| r.start < edge && edge < r.end).count();
    let mut supervised = vec![false; whole.ids.len()];
    supervised[first..].fill(true);
    Ok(EncodedChat { ids: whole.ids, owners, supervised, straddling, roles: Vec::new() })
}

pub(super) fn plain_ids(tokenizer: &Tokenizer, plain: &Plain, specials: Specials) -> Result<Encoded> {
    let text = format!("{}{}", plain.prompt, plain.completion);
    let mut encoded = tokenizer.encode_owned(&text, &[], specials)?;
    let before = tokenizer.prefix();
    encoded.ids.splice(0..0, before.iter().copied());
    encoded.ranges.splice(0..0, before.iter().map(|_| 0..0));
    if plain.end
        && let Some(eos) = tokenizer.eos()
        && encoded.ids.last() != Some(&eos.id)
    {
        encoded.ids.push(eos.id);
        encoded.ranges.push(text.len()..text.len());
    }
    Ok(encoded)
}
