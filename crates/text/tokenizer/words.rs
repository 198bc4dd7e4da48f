//! Tokens of whole texts by their words, where that gives the same ids.
//!
//! A tokenizer that SentencePiece made (Llama, Mistral) has no pre-tokenizer: its model gets a whole text as one word and
//! merges over all of it. But no entry of such a vocabulary has a `▁` behind another character, so no merge ever crosses the
//! beginning of a word: the words can be merged alone, and those that were there before are remembered.

use std::collections::HashMap;
use std::sync::RwLock;

use serde_json::Value;
use tokenizers::{Model, Token};

/// What stands for a space.
const MARK: char = '▁';

/// Words that are remembered, about 100 bytes each.
const CAPACITY: usize = 1 << 16;

/// Longer ones seldom come again.
const LONGEST: usize = 48;

/// Tokens of a word: ids, and where each ends.
type Known = Box<[(u32, u16)]>;

/// The words of a tokenizer, if its texts can be taken word by word.
pub(super) struct Words {
    apart: bool,
    known: RwLock<HashMap<Box<str>, Known>>,
}

impl Words {
    /// Looks at `tokenizer.json`.
    pub(super) fn of(file: &Value) -> Self {
        Self { apart: words_are_apart(file), known: RwLock::default() }
    }

    /// What the model makes of a text.
    pub(super) fn tokenize(&self, model: &impl Model, text: &str) -> tokenizers::Result<Vec<Token>> {
        if !self.apart {
            return model.tokenize(text);
        }
        let mut tokens = Vec::with_capacity(text.len() / 3);
        let mut new: Vec<(&str, Known)> = Vec::new();
        {
            let known = self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            for (start, word) in words(text) {
                if let Some(parts) = known.get(word) {
                    let mut from = start;
                    for (id, end) in parts {
                        let to = start + usize::from(*end);
                        // The text of a token is nobody's concern: ids and places are.
                        tokens.push(Token::new(*id, String::new(), (from, to)));
                        from = to;
                    }
                    continue;
                }
                let own = model.tokenize(word)?;
                if word.len() <= LONGEST && covers(&own, word) && known.len() + new.len() < CAPACITY {
                    let parts = own.iter().map(|token| (token.id, token.offsets.1 as u16)).collect();
                    new.push((word, parts));
                }
                tokens.extend(own.into_iter().map(|token| {
                    let (from, to) = token.offsets;
                    Token::new(token.id, String::new(), (start + from, start + to))
                }));
            }
        }
        if !new.is_empty() {
            let mut known = self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            known.extend(new.into_iter().map(|(word, parts)| (word.into(), parts)));
        }
        Ok(tokens)
    }
}

/// Whether the tokens follow each other without a gap; bytes of one character all have its place, and do not.
fn covers(tokens: &[Token], word: &str) -> bool {
    let mut at = 0;
    tokens.iter().all(|token| {
        let (from, to) = token.offsets;
        let follows = from == at;
        at = to;
        follows
    }) && at == word.len()
}

/// The words with the places where they begin: each begins with all marks before it.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = &text[start..];
        let own = rest.len() - rest.trim_start_matches(MARK).len();
        let length = rest[own..].find(MARK).map_or(rest.len(), |at| own + at);
        let word = (start, &rest[..length]);
        start += length;
        (length > 0).then_some(word)
    })
}

/// BPE over whole texts in which no merge crosses the beginning of a word, and nothing is unknown (neighbouring unknown
/// characters become one token, across words too).
fn words_are_apart(file: &Value) -> bool {
    let model = &file["model"];
    let plain = model["type"] == "BPE"
        && file["pre_tokenizer"].is_null()
        && ["dropout", "continuing_subword_prefix", "end_of_word_suffix"].iter().all(|key| model[*key].is_null())
        && model["byte_fallback"] == true;
    let Some(vocabulary) = model["vocab"].as_object().filter(|_| plain) else { return false };
    (0..=255).all(|byte| vocabulary.contains_key(&format!("<0x{byte:02X}>")))
        && vocabulary.keys().all(|token| !token.trim_start_matches(MARK).contains(MARK))
}

#[cfg(test)]
mod test {
    use super::words;

    #[test]
    fn words_begin_with_their_marks_and_cover_the_text() {
        let split = |text| words(text).map(|(_, word)| word).collect::<Vec<_>>();
        assert_eq!(split("▁the▁▁▁cat,▁x"), ["▁the", "▁▁▁cat,", "▁x"]);
        assert_eq!(split("a▁"), ["a", "▁"]);
        assert_eq!(split("▁▁"), ["▁▁"]);
        assert!(split("").is_empty());
        for text in ["▁é\n▁▁🦙x▁", "no marks", "▁"] {
            assert_eq!(split(text).concat(), text);
        }
    }
}
