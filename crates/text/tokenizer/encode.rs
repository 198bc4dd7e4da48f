//! Encoding a whole text once, where only given parts of it may hold special tokens.
//!
//! This is `TokenizerImpl::encode` of the tokenizers crate, stage for stage (added tokens, normalizer, pre-tokenizer, model), with our own
//! first stage: pre-tokenisation and merges cross the edges between a template's text and a message's, so encoding the parts
//! alone would give other ids than the reference.

use std::ops::Range;

use tokenizers::tokenizer::normalizer::Range as Referential;
use tokenizers::tokenizer::pre_tokenizer::OffsetType;
use tokenizers::{Encoding, Model, NormalizedString, Normalizer, PreTokenizedString, PreTokenizer, Token};

use super::added::Patterns;
use super::{Specials, Tokenizer, guarded};
use crate::error::{Error, Result};

/// Ids, and for each the byte range of the text that it stands for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Encoded {
    pub ids: Vec<u32>,
    pub ranges: Vec<Range<usize>>,
}

impl Tokenizer {
    /// Encodes `text` without adding tokens around it. With [`Specials::Text`] a special token is read only where it lies within
    /// one of the `trusted` byte ranges (sorted, apart from each other); with [`Specials::Parse`] everywhere.
    pub(crate) fn encode_owned(&self, text: &str, trusted: &[Range<usize>], specials: Specials) -> Result<Encoded> {
        let encoding = guarded(|| self.run(text, trusted, specials))
            .map_err(|reason| Error::TokenizerEncode { bytes: text.len(), reason })?;
        let ranges = encoding.get_offsets().iter().map(|(start, end)| *start..*end).collect();
        Ok(Encoded { ids: encoding.get_ids().to_vec(), ranges })
    }

    fn run(&self, text: &str, trusted: &[Range<usize>], specials: Specials) -> tokenizers::Result<Encoding> {
        let allowed = |special: bool, start: usize, end: usize| {
            !special || specials == Specials::Parse || within(trusted, start, end)
        };
        let mut pieces = PreTokenizedString::from(text);
        pieces.split(|_, piece| split(piece, &self.added.raw, allowed))?;
        pieces.split(|_, mut piece| {
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut piece)?;
            }
            split(piece, &self.added.normalized, allowed)
        })?;
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| {
            let tokens = self.words.tokenize(self.inner.get_model(), piece.get())?;
            if specials == Specials::Parse { Ok(tokens) } else { self.despecialise(piece.get(), tokens) }
        })?;
        pieces.into_encoding(None, 0, OffsetType::Byte)
    }

    /// A model whose vocabulary holds its special tokens may find one in plain text; such a piece is encoded again in two halves,
    /// so that text stays text.
    fn despecialise(&self, text: &str, tokens: Vec<Token>) -> tokenizers::Result<Vec<Token>> {
        let spelled = |t: &Token| {
            self.added
                .special_text(t.id)
                .is_some_and(|special| text.get(t.offsets.0..t.offsets.1).is_some_and(|s| s.ends_with(special)))
        };
        if !tokens.iter().any(spelled) {
            return Ok(tokens);
        }
        let mut out = Vec::with_capacity(tokens.len() + 4);
        for token in tokens {
            let (start, end) = token.offsets;
            let cut =
                if spelled(&token) { text[start..end].char_indices().nth(1).map(|(i, _)| start + i) } else { None };
            let Some(cut) = cut else {
                out.push(token);
                continue;
            };
            for part in [start..cut, cut..end] {
                let inner = self.inner.get_model().tokenize(&text[part.clone()])?;
                let inner =
                    if part.len() < end - start { self.despecialise(&text[part.clone()], inner)? } else { inner };
                out.extend(inner.into_iter().map(|mut t| {
                    t.offsets = (t.offsets.0 + part.start, t.offsets.1 + part.start);
                    t
                }));
            }
        }
        Ok(out)
    }
}

fn within(ranges: &[Range<usize>], start: usize, end: usize) -> bool {
    let next = ranges.partition_point(|r| r.start <= start);
    next > 0 && end <= ranges[next - 1].end
}

type Piece = (NormalizedString, Option<Vec<Token>>);

fn split(
    piece: NormalizedString,
    patterns: &Patterns,
    allowed: impl Fn(bool, usize, usize) -> bool,
) -> tokenizers::Result<Vec<Piece>> {
    let base = piece.offsets_original().0;
    let original = |start: usize, end: usize| {
        piece
            .convert_offsets(Referential::Normalized(start..end))
            .map_or((start, end), |r| (base + r.start, base + r.end))
    };
    patterns
        .find(piece.get(), |special, start, end| {
            let (start, end) = original(start, end);
            allowed(special, start, end)
        })
        .into_iter()
        .map(|(id, start, end)| {
            let slice = piece.slice(Referential::Normalized(start..end)).ok_or("an added token cuts a character")?;
            let tokens = id.map(|id| {
                let value = slice.get().to_owned();
                let length = value.len();
                vec![Token::new(id, value, (0, length))]
            });
            Ok((slice, tokens))
        })
        .collect()
}

/// The ids that the post-processor puts before and after a text.
pub(super) fn affixes(inner: &tokenizers::Tokenizer) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let text = Encoding::from_tokens(vec![Token::new(u32::MAX, "text".into(), (0, 4))], 0);
    let processed = inner.post_process(text, None, true)?;
    let ids = processed.get_ids();
    let at = ids.iter().position(|id| *id == u32::MAX).ok_or("has a post_processor that drops the text")?;
    Ok((ids[..at].to_vec(), ids[at + 1..].to_vec()))
}
