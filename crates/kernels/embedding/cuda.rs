//! Launches of `kernel.cu`. The caller has checked the ids against the table's rows.

use crate::cuda::{Element, Launch, Pointer, Row, kernel, narrow, queue};

/// As [`super::forward`], for `tokens` ids.
pub fn forward<T: Element>(
    table: Pointer<T>,
    width: usize,
    ids: Pointer<u32>,
    out: Pointer<T>,
    tokens: usize,
) -> Launch {
    let Row { threads, width } = Row::of::<T>(width);
    queue!(kernel!(T, "embedding_forward"), [narrow("tokens", tokens), 1, 1], threads, 0; table, ids, out, width)
}

/// As [`super::backward`], for `tokens` ids; the sum of a row is rounded once.
pub fn backward<T: Element>(
    d_out: Pointer<T>,
    width: usize,
    ids: Pointer<u32>,
    d_table: Pointer<T>,
    tokens: usize,
) -> Launch {
    let Row { threads, width } = Row::of::<T>(width);
    let tokens = narrow("tokens", tokens);
    queue!(kernel!(T, "embedding_backward"), [tokens, 1, 1], threads, 0; d_out, ids, d_table, tokens, width)
}
