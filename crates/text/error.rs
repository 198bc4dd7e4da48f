//! Everything that can go wrong with text: each message names the place, then the remedy.

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate; [`Error::code`] is stable, the wording is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The tokenizer file cannot be read as one.
    #[error("{file}: {reason}. Remedy: Take the file again from the model's repository.")]
    TokenizerFile { file: &'static str, reason: String },
    /// A merge of a BPE model is malformed or names a token that does not exist.
    #[error(
        "tokenizer.json: model.merges[{index}] is {merge}: {reason}. Remedy: Take the file again: a merge is two tokens of the vocabulary, whose join is one too."
    )]
    TokenizerMerge { index: usize, merge: String, reason: String },
    /// The vocabulary contradicts itself.
    #[error(
        "{file}: {reason}. Remedy: Take the file again: every token needs one id of its own between 0 and 2^32 - 2."
    )]
    TokenizerVocabulary { file: &'static str, reason: String },
    /// A special token that is named but does not exist.
    #[error("{place} is {token:?}, which the tokenizer does not have. Remedy: Name a token of its vocabulary.")]
    TokenizerSpecial { place: String, token: String },
    /// tokenizer_config.json cannot be understood.
    #[error(
        "tokenizer_config.json: {place} {reason}. Remedy: Mend it, or take the file again from the model's repository."
    )]
    TokenizerConfig { place: String, reason: String },
    /// A kind of tokenizer that we do not have.
    #[error(
        "{place} is {value:?}, which is not supported; supported: {supported}. Remedy: Load the model's tokenizer.json instead."
    )]
    TokenizerUnsupported { place: &'static str, value: String, supported: &'static str },
    /// A tokenizer that llama.cpp has no words for.
    #[error(
        "the tokenizer cannot be written into a GGUF file: {reason}. Remedy: Save the model as a folder, which keeps tokenizer.json as it is."
    )]
    TokenizerExport { reason: String },
    /// The tokenizer failed on a text.
    #[error(
        "the tokenizer failed to encode a text of {bytes} bytes: {reason}. Remedy: Check the tokenizer's model and normalizer."
    )]
    TokenizerEncode { bytes: usize, reason: String },
    /// The tokenizer failed on ids.
    #[error("the tokenizer failed to decode {count} ids: {reason}. Remedy: Check the tokenizer's decoder.")]
    TokenizerDecode { count: usize, reason: String },
    /// A tokenizer could not be trained.
    #[error(
        "training a tokenizer of {vocabulary} entries: {reason}. Remedy: Ask for at least 256 entries and one for each special token, and name each special token once."
    )]
    TokenizerTrain { vocabulary: usize, reason: String },
    /// The chat template does not parse, failed, raised an exception, or ran too long.
    #[error(
        "chat template{}: {reason}. Remedy: Mend the template, or name another one; \"zephyr\" is built in.", line.map_or(String::new(), |line| format!(", line {line}")))]
    Template { line: Option<usize>, reason: String },
    /// The template changes contents, so that it cannot be told which bytes belong to whom.
    #[error(
        "{place}: {reason}, so that its tokens cannot be told from the template's. Remedy: Train with a template that writes each content unchanged (but for outer white space)."
    )]
    TemplateSpans { place: String, reason: String },
    /// A message that is not an object with a role.
    #[error("{place} {reason}. Remedy: Give each message as an object with the texts `role` and `content`.")]
    Message { place: String, reason: String },
    /// A content that is not text.
    #[error("{place} is {found}, not text. Remedy: Give it as one string.")]
    MessageContent { place: String, found: &'static str },
    /// An unknown role, or roles in an order that cannot be trained on.
    #[error("{place} is {role:?}: {reason}. Remedy: {remedy}")]
    RoleOrder { place: String, role: String, reason: String, remedy: String },
    /// An answer without text.
    #[error("{place} is an empty answer. Remedy: Drop the row: there is nothing to learn from it.")]
    EmptyAnswer { place: String },
    /// No end token follows the answer, so that a model would never learn to stop.
    #[error(
        "{place}: no end token follows this answer. Remedy: Use a template that writes the end token, or name the right eos_token in tokenizer_config.json."
    )]
    MaskNoEos { place: String },
    /// Nothing would be learned from the row.
    #[error("{place}: no token is supervised. Remedy: Give at least one assistant message.")]
    MaskEmpty { place: String },
    /// The tokenizer has no end token, and one is needed.
    #[error(
        "{place}: the tokenizer names no end token to close the text with. Remedy: Name eos_token in tokenizer_config.json."
    )]
    NoEosToken { place: String },
}

impl Error {
    /// The stable code, as the documentation and the TypeScript errors name it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TokenizerFile { .. } => "ZA_TOKENIZER_FILE",
            Self::TokenizerMerge { .. } => "ZA_TOKENIZER_MERGE",
            Self::TokenizerVocabulary { .. } => "ZA_TOKENIZER_VOCABULARY",
            Self::TokenizerSpecial { .. } => "ZA_TOKENIZER_SPECIAL",
            Self::TokenizerConfig { .. } => "ZA_TOKENIZER_CONFIG",
            Self::TokenizerUnsupported { .. } => "ZA_TOKENIZER_UNSUPPORTED",
            Self::TokenizerExport { .. } => "ZA_TOKENIZER_EXPORT",
            Self::TokenizerEncode { .. } => "ZA_TOKENIZER_ENCODE",
            Self::TokenizerDecode { .. } => "ZA_TOKENIZER_DECODE",
            Self::TokenizerTrain { .. } => "ZA_TOKENIZER_TRAIN",
            Self::Template { .. } => "ZA_TEMPLATE",
            Self::TemplateSpans { .. } => "ZA_TEMPLATE_SPANS",
            Self::Message { .. } => "ZA_MESSAGE",
            Self::MessageContent { .. } => "ZA_MESSAGE_CONTENT",
            Self::RoleOrder { .. } => "ZA_ROLE_ORDER",
            Self::EmptyAnswer { .. } => "ZA_EMPTY_ANSWER",
            Self::MaskNoEos { .. } | Self::NoEosToken { .. } => "ZA_MASK_NO_EOS",
            Self::MaskEmpty { .. } => "ZA_MASK_EMPTY",
        }
    }
}

#[cfg(test)]
mod test {
    #[test]
    fn every_message_ends_with_a_remedy() {
        let source = include_str!("error.rs");
        let (variants, _) = source.split_once("impl Error {").unwrap();
        let messages: Vec<&str> = variants.split("#[error(").skip(1).collect();
        assert!(messages.len() > 10);
        for message in messages {
            let (message, _) = message.split_once(")]").unwrap();
            assert!(message.contains(". Remedy: "), "{message}");
        }
    }
}
