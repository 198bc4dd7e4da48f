use crate::parallel;

pub(super) fn forward(table: &[f32], width: usize, ids: &[u32], out: &mut [f32]) {
    let rows = parallel::rows_per_task(ids.len(), width);
    parallel::run(ids.chunks(rows).zip(out.chunks_mut(rows * width)), |(ids, out)| {
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
            let start = id as usize * width;
            out.copy_from_slice(&table[start..start + width]);
        }
    });
}

/// Every task owns a range of table rows and looks through all ids: one writer per row, sums in token order, and the
/// same bits for any number of threads.
pub(super) fn backward(d_out: &[f32], width: usize, ids: &[u32], d_table: &mut [f32]) {
    let table_rows = d_table.len() / width;
    let tasks = if d_out.len() < 64 * 1024 { 1 } else { rayon::current_num_threads() };
    let rows = table_rows.div_ceil(tasks).max(1);
    parallel::run(d_table.chunks_mut(rows * width).enumerate(), |(task, d_table)| {
        let first = task * rows;
        for (&id, d_out) in ids.iter().zip(d_out.chunks_exact(width)) {
            let Some(row) = (id as usize).checked_sub(first).filter(|row| row * width < d_table.len()) else {
                continue;
            };
            for (sum, value) in d_table[row * width..][..width].iter_mut().zip(d_out) {
                *sum += value;
            }
        }
    });
}
