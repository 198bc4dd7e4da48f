//! Row lookup in a table: `out[t] = table[ids[t]]`; backward adds each row's gradient back to its table row.

#[cfg(test)]
mod test;

mod cpu;
pub mod cuda;

/// Copies the rows `ids` of `table` `[V, width]` to `out` `[T, width]`.
///
/// Panics if an id is V or more: the caller checks ids against the vocabulary.
pub fn forward(table: &[f32], width: usize, ids: &[u32], out: &mut [f32]) {
    check(table.len(), width, ids, out.len());
    cpu::forward(table, width, ids, out);
}

/// `d_table[ids[t]] += d_out[t]`; `d_table` `[V, width]`, `d_out` `[T, width]`. Repeated ids add up in token order.
pub fn backward(d_out: &[f32], width: usize, ids: &[u32], d_table: &mut [f32]) {
    check(d_table.len(), width, ids, d_out.len());
    cpu::backward(d_out, width, ids, d_table);
}

fn check(table: usize, width: usize, ids: &[u32], out: usize) {
    assert!(width > 0 && table.is_multiple_of(width), "a table of {table} elements has no rows of {width}");
    assert_eq!(out, ids.len() * width, "output elements for {} tokens of width {width}", ids.len());
    let rows = table / width;
    for (token, &id) in ids.iter().enumerate() {
        assert!((id as usize) < rows, "token {token} has id {id}, the table {rows} rows");
    }
}
