//! A segment that continues a prefix is the same as a segment of its own with a copy of the prefix before it.

use super::{data, run_backward, run_forward, shape, tokens};
use crate::attention::{Shape, backward, forward};
use crate::oracle::{assert_close, assert_deterministic, differences, weighted};
use proptest::prelude::*;

/// Lengths of a segment and of those that continue its first rows: `(rows, prefix)`.
type Document<'a> = &'a [(u32, u32)];

/// Offsets and prefixes of documents laid end to end.
fn layout(documents: &[Document]) -> (Vec<u32>, Vec<u32>) {
    let (mut segments, mut prefixes) = (vec![0], Vec::new());
    for &(rows, prefix) in documents.iter().copied().flatten() {
        segments.push(segments[segments.len() - 1] + rows);
        prefixes.push(prefix);
    }
    (segments, prefixes)
}

/// For each row of the separate sequences, the row of the shared layout that it is a copy of; and their segments.
fn copies(segments: &[u32], prefixes: &[u32]) -> (Vec<usize>, Vec<u32>) {
    let (mut rows, mut separate, mut stem) = (Vec::new(), vec![0], 0);
    for (segment, &prefix) in segments.windows(2).zip(prefixes) {
        if prefix == 0 {
            stem = segment[0];
        }
        rows.extend((stem..stem + prefix).chain(segment[0]..segment[1]).map(|row| row as usize));
        separate.push(rows.len() as u32);
    }
    (rows, separate)
}

fn gather(values: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|&row| &values[row * width..][..width]).copied().collect()
}

fn compare_with_copies(heads: usize, kv_heads: usize, dim: usize, window: Option<usize>, documents: &[Document]) {
    let (segments, prefixes) = layout(documents);
    let shared = Shape { prefixes: &prefixes, ..shape(heads, kv_heads, dim, window, &segments) };
    let (rows, separate) = copies(&segments, &prefixes);
    let apart = shape(heads, kv_heads, dim, window, &separate);
    let (qkv, d_out) = data(&shared, 3);
    let (row, width) = (shared.row(), heads * dim);
    let what = format!("{shared:?}");

    let (out, lse) = run_forward(&qkv, &shared);
    let (expected_out, expected_lse) = run_forward(&gather(&qkv, &rows, row), &apart);
    assert_close(&format!("out of {what}"), &gather(&out, &rows, width), &expected_out, 1e-5);
    let lse: Vec<f32> = lse.chunks(tokens(&shared)).flat_map(|head| gather(head, &rows, 1)).collect();
    assert_close(&format!("lse of {what}"), &lse, &expected_lse, 1e-5);

    // What comes back to a row is the sum over its copies, whatever share of its own gradient each copy got.
    let mut count = vec![0.0_f32; tokens(&shared)];
    rows.iter().for_each(|&row| count[row] += 1.0);
    let mut d_out_apart = gather(&d_out, &rows, width);
    for (values, &row) in d_out_apart.chunks_mut(width).zip(&rows) {
        values.iter_mut().for_each(|value| *value /= count[row]);
    }
    let d_apart = run_backward(&d_out_apart, &gather(&qkv, &rows, row), &apart);
    let mut expected = vec![0.0; qkv.len()];
    for (values, &at) in d_apart.chunks(row).zip(&rows) {
        expected[at * row..][..row].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    assert_close(&format!("d_qkv of {what}"), &run_backward(&d_out, &qkv, &shared), &expected, 1e-5);
}

#[test]
fn a_shared_prefix_equals_a_copy_at_every_block_boundary() {
    for prompt in [1, 17, 63, 64, 65, 130] {
        for (chosen, rejected) in [(1, 1), (5, 63), (64, 64), (65, 3), (0, 7), (40, 0)] {
            for window in [None, Some(1), Some(9), Some(64), Some(70), Some(1000)] {
                compare_with_copies(2, 1, 16, window, &[&[(prompt + chosen, 0), (rejected, prompt)]]);
            }
        }
    }
}

#[test]
fn a_shared_prefix_equals_a_copy_for_every_head_layout() {
    for (heads, kv_heads) in [(1, 1), (3, 3), (4, 1), (8, 1), (16, 2)] {
        for (dim, window) in [(8, None), (24, Some(20)), (64, Some(65))] {
            compare_with_copies(heads, kv_heads, dim, window, &[&[(37 + 12, 0), (29, 37)]]);
        }
    }
}

#[test]
fn pairs_stand_among_plain_segments_and_a_prefix_has_several_continuations() {
    let pair: Document = &[(33, 0), (20, 18)];
    let plain: Document = &[(21, 0)];
    let group: Document = &[(70, 0), (9, 66), (66, 1), (0, 40), (31, 70)];
    let no_prompt: Document = &[(4, 0), (6, 0)];
    for window in [None, Some(7), Some(40)] {
        compare_with_copies(4, 2, 16, window, &[pair, plain, group, no_prompt, &[(0, 0)], pair]);
        // So many documents that heads of a group share a task in the backward pass.
        let many: Vec<Document> = [pair, plain, group].into_iter().cycle().take(24).collect();
        compare_with_copies(4, 2, 16, window, &many);
    }
}

#[test]
fn agrees_with_finite_differences() {
    for window in [None, Some(3)] {
        let (segments, prefixes) = layout(&[&[(5, 0), (3, 3)], &[(2, 0)]]);
        let shape = Shape { prefixes: &prefixes, ..shape(2, 1, 8, window, &segments) };
        let (qkv, d_out) = data(&shape, 5);
        let expected = differences(&qkv, |qkv| weighted(&run_forward(qkv, &shape).0, &d_out));
        assert_close("d_qkv", &run_backward(&d_out, &qkv, &shape), &expected, 5e-4);
    }
}

#[test]
fn same_bits_every_time_and_without_prefixes_those_of_plain_segments() {
    let (segments, prefixes) = layout(&[&[(150, 0), (80, 100)], &[(90, 0), (70, 64)]]);
    let shape = Shape { prefixes: &prefixes, ..shape(6, 2, 32, None, &segments) };
    let (qkv, d_out) = data(&shape, 1);
    let both = |shape: &Shape| [run_forward(&qkv, shape).0, run_backward(&d_out, &qkv, shape)].concat();
    assert_deterministic("attention", || both(&shape));
    let (none, zeros) = (Shape { prefixes: &[], ..shape }, Shape { prefixes: &[0; 4], ..shape });
    assert_eq!(both(&none), both(&zeros));
    assert_ne!(both(&none), both(&shape));
}

#[test]
fn prefixes_that_are_not_there_are_refused() {
    let run = |segments: &[u32], prefixes: &[u32]| {
        let shape = Shape { prefixes, ..shape(1, 1, 8, None, segments) };
        let (qkv, d_out) = (vec![0.0; tokens(&shape) * shape.row()], vec![0.0; tokens(&shape) * 8]);
        let refused = |work: &mut dyn FnMut()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
        let (mut out, mut lse, mut d_qkv) = (d_out.clone(), vec![0.0; tokens(&shape)], qkv.clone());
        let forward = refused(&mut || forward(&qkv, &shape, &mut out, &mut lse));
        let backward = refused(&mut || backward(&d_out, &qkv, &d_out, &lse, &shape, &mut d_qkv));
        assert_eq!(forward, backward);
        forward
    };
    assert!(!run(&[0, 4, 6], &[0, 4]));
    assert!(run(&[0, 4, 6], &[0, 5]), "longer than the segment");
    assert!(run(&[0, 4, 6], &[1, 0]), "nothing before it");
    assert!(run(&[0, 4, 6, 9], &[0, 0, 3]), "the last segment without a prefix has two rows");
    assert!(run(&[0, 4, 6], &[0]), "one entry for two segments");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_shared_prefix_equals_a_copy(
        pairs in prop::collection::vec((0u32..90, 1u32..80, 1u32..80), 1..4),
        window in prop::option::of(1usize..120),
    ) {
        let pairs: Vec<[(u32, u32); 2]> =
            pairs.into_iter().map(|(prompt, chosen, rejected)| [(prompt + chosen, 0), (rejected, prompt)]).collect();
        let documents: Vec<Document> = pairs.iter().map(|pair| &pair[..]).collect();
        compare_with_copies(4, 2, 16, window, &documents);
    }
}
