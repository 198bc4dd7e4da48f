//! Training a byte-level BPE tokenizer.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::guarded;
use crate::error::{Error, Result};

/// Trains a byte-level BPE tokenizer and returns its `tokenizer.json`.
///
/// `vocabulary`: entries in all, at least 256 bytes and the special tokens. `specials` take the ids 0, 1, 2, … in the given order.
/// The same texts give the same file.
///
/// # Errors
/// `ZA_TOKENIZER_TRAIN` when the vocabulary cannot hold the bytes and specials, or a special token is empty or given twice.
pub fn train_bpe(texts: impl Iterator<Item = String> + Send, vocabulary: usize, specials: &[&str]) -> Result<String> {
    let wrong = |reason: String| Error::TokenizerTrain { vocabulary, reason };
    let least = 256 + specials.len();
    if vocabulary < least {
        return Err(wrong(format!("256 bytes and {} special tokens need {least}", specials.len())));
    }
    for (index, special) in specials.iter().enumerate() {
        if special.is_empty() || specials[..index].contains(special) {
            return Err(wrong(format!("special token {special:?} is empty or given twice")));
        }
    }
    guarded(|| {
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocabulary)
            .min_frequency(2)
            .special_tokens(specials.iter().map(|s| AddedToken::from(*s, true)).collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut trainer = TrainerWrapper::BpeTrainer(trainer);
        let mut inner = Inner::new(BPE::default());
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        inner.with_decoder(Some(ByteLevel::new(true, true, true)));
        inner.train(&mut trainer, texts)?;
        inner.to_string(false)
    })
    .map_err(wrong)
}
