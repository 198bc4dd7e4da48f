//! The added tokens: found in the text before the model sees it, as `AddedVocabulary` of the tokenizers crate does, but with a
//! say in which places may hold one.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokenizers::{AddedToken, NormalizedString, Normalizer};

use super::broken;
use crate::error::Result;

struct Entry {
    /// What the text must spell: the content, or its normalized form.
    pattern: String,
    id: u32,
    token: AddedToken,
}

/// Patterns by first byte, the longest first, so that the first hit is the longest.
#[derive(Default)]
pub(super) struct Patterns(HashMap<u8, Vec<Entry>>);

/// All added tokens of a tokenizer.
pub(super) struct AddedTokens {
    /// Matched in the text as given.
    pub raw: Patterns,
    /// Matched in the normalized text.
    pub normalized: Patterns,
    special: HashSet<u32>,
    special_texts: Vec<(u32, String)>,
}

impl AddedTokens {
    pub(super) fn new(inner: &tokenizers::Tokenizer, file: &Value) -> Result<Self> {
        let mut added = Self {
            raw: Patterns::default(),
            normalized: Patterns::default(),
            special: HashSet::new(),
            special_texts: Vec::new(),
        };
        let unknown = file["model"].get("unk_token").and_then(Value::as_str);
        for (id, token) in inner.get_added_tokens_decoder() {
            if token.content.is_empty() {
                continue;
            }
            if token.special {
                added.special.insert(id);
                if Some(token.content.as_str()) != unknown {
                    added.special_texts.push((id, token.content.clone()));
                }
            }
            let mut pattern = token.content.clone();
            if token.normalized
                && let Some(normalizer) = inner.get_normalizer()
            {
                let mut text = NormalizedString::from(token.content.as_str());
                super::guarded(|| normalizer.normalize(&mut text)).map_err(broken)?;
                pattern = text.get().to_string();
            }
            let set = if token.normalized { &mut added.normalized } else { &mut added.raw };
            if let Some(first) = pattern.bytes().next() {
                set.0.entry(first).or_default().push(Entry { pattern, id, token });
            }
        }
        for set in [&mut added.raw, &mut added.normalized] {
            for entries in set.0.values_mut() {
                entries.sort_by(|a, b| b.pattern.len().cmp(&a.pattern.len()).then(a.id.cmp(&b.id)));
            }
        }
        Ok(added)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The text of a special token other than the unknown token.
    pub(super) fn special_text(&self, id: u32) -> Option<&str> {
        if !self.special.contains(&id) {
            return None;
        }
        self.special_texts.iter().find(|(other, _)| *other == id).map(|(_, text)| text.as_str())
    }
}

impl Patterns {
    /// Splits `text` into added tokens (with id) and what lies between, covering it all: leftmost first, then longest.
    /// `allowed(special, start, end)` says whether the token may be read in that byte range.
    pub(super) fn find(
        &self,
        text: &str,
        allowed: impl Fn(bool, usize, usize) -> bool,
    ) -> Vec<(Option<u32>, usize, usize)> {
        let mut splits = Vec::new();
        let (mut from, mut at) = (0, 0);
        let bytes = text.as_bytes();
        while !self.0.is_empty() && at < bytes.len() {
            let hit = self.0.get(&bytes[at]).and_then(|entries| {
                entries.iter().find(|e| {
                    bytes[at..].starts_with(e.pattern.as_bytes()) && allowed(e.token.special, at, at + e.pattern.len())
                })
            });
            let Some(entry) = hit else {
                at += 1;
                continue;
            };
            let (mut start, mut end) = (at, at + entry.pattern.len());
            at = end;
            let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            if entry.token.single_word && (word(text[..start].chars().next_back()) || word(text[end..].chars().next()))
            {
                continue;
            }
            if entry.token.lstrip {
                start = text[..start].trim_end().len().max(from);
            }
            if entry.token.rstrip {
                end = text.len() - text[end..].trim_start().len();
                at = at.max(end);
            }
            // A token that strips to its right may have eaten into this one's own spaces, never into its text.
            if from < start {
                splits.push((None, from, start));
            }
            splits.push((Some(entry.id), start, end));
            from = end;
        }
        if from < text.len() {
            splits.push((None, from, text.len()));
        }
        splits
    }
}
