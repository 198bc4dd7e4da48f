//! Launches of `kernel.cu`, on a chunk of logits `[N, V]` that a matrix product has made: [`statistics`] for
//! [`super::forward`], [`gradient`] for [`super::backward`], whose two matrix products follow.

use crate::cuda::{Element, Launch, Pointer, WARP, kernel, narrow, queue};

const THREADS: u32 = 256;

/// [`super::Stats`] in device memory, each `[N]`; `correct` is 0 or 1.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    pub logp: Pointer<f32>,
    pub lse: Pointer<f32>,
    pub entropy: Pointer<f32>,
    pub log_collision: Pointer<f32>,
    pub logit_mean: Pointer<f32>,
    pub correct: Pointer<u8>,
}

/// Fills `stats` from the logits of `rows` rows. The caller has checked the targets against the vocabulary.
pub fn statistics<T: Element>(
    logits: Pointer<T>,
    targets: Pointer<u32>,
    stats: &Stats,
    rows: usize,
    vocabulary: usize,
) -> Launch {
    let vocabulary = narrow("tokens of the vocabulary", vocabulary);
    let pack = if vocabulary.is_multiple_of(T::PACK) { T::PACK } else { 1 };
    let threads = vocabulary.div_ceil(pack).next_multiple_of(WARP).clamp(WARP, 512);
    let Stats { logp, lse, entropy, log_collision, logit_mean, correct } = *stats;
    queue!(
        kernel!(T, "head_statistics"), [narrow("rows", rows), 1, 1], threads, 0;
        logits, targets, vocabulary, logp, lse, entropy, log_collision, logit_mean, correct
    )
}

/// `d_logits = coefficient · (onehot(target) − softmax(logits))`, rounded to its type. `d_logits` may be `logits` where the
/// two have one type. There is no f32 gradient of bf16 logits.
pub fn gradient<T: Element, D: Element>(
    logits: Pointer<T>,
    targets: Pointer<u32>,
    lse: Pointer<f32>,
    coefficient: Pointer<f32>,
    d_logits: Pointer<D>,
    rows: usize,
    vocabulary: usize,
) -> Launch {
    let vocabulary = narrow("tokens of the vocabulary", vocabulary);
    let pack = if vocabulary.is_multiple_of(8) { 8 } else { 1 };
    let grid = [narrow("rows", rows), vocabulary.div_ceil(pack * THREADS), 1];
    let of_f32 = D::kernel("head_gradient_f32_f32", "head_gradient_f32_bf16");
    let kernel = T::kernel(of_f32, "head_gradient_bf16_bf16");
    assert!(T::LETTER == 'f' || D::LETTER == 'b', "no kernel makes an f32 gradient of bf16 logits");
    queue!(kernel, grid, THREADS, 0; logits, targets, lse, coefficient, vocabulary, d_logits)
}
