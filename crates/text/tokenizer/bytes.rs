//! The printable alphabet in which byte-level tokenizers (GPT-2's) write bytes.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Printable Latin-1 stands for itself; the other bytes follow from U+0100 on, in order.
static BYTE_OF: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let itself = (0..=255u8).filter(printable).map(|byte| (char::from(byte), byte));
    let shifted = ('\u{100}'..).zip((0..=255u8).filter(|byte| !printable(byte)));
    itself.chain(shifted).collect()
});

/// The bytes of a token as the ByteLevel decoder reads it: through the alphabet, or as it is if it holds a foreign character.
pub(super) fn bytes_of(token: &str) -> Vec<u8> {
    token
        .chars()
        .map(|c| BYTE_OF.get(&c).copied())
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_else(|| token.as_bytes().to_vec())
}
