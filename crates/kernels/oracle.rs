//! What the operations' tests share: reproducible data, comparison, finite differences, thread pools.

use candle_core::{Device, Tensor};

/// Reproducible values in (−1, 1).
pub(crate) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    (0..len)
        .map(|_| {
            // SplitMix64 (Steele et al. 2014)
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            ((z >> 40) as f32 / (1u64 << 23) as f32) - 1.0
        })
        .collect()
}

/// Each element within `tolerance` of the expected one, relative to it plus the root mean square of all.
pub(crate) fn assert_close(what: &str, actual: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    let squares: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
    let scale = (squares / expected.len().max(1) as f64).sqrt();
    for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let difference = (f64::from(a) - f64::from(e)).abs();
        let bound = tolerance * (f64::from(e).abs() + scale) + 1e-30;
        // Written so that NaN fails.
        assert!(difference <= bound, "{what}[{index}]: {a} where {e} is expected (off by {difference:e} > {bound:e})");
    }
}

/// The gradient of `f` at `x` by the five-point stencil; with f32 forward passes it is good to about 1e-4.
pub(crate) fn differences(x: &[f32], f: impl Fn(&[f32]) -> f64) -> Vec<f32> {
    const STEP: f32 = 0.03;
    let mut moved = x.to_vec();
    let mut at = |index: usize, by: f32| {
        moved[index] = x[index] + by;
        let taken = f64::from(moved[index]) - f64::from(x[index]);
        let value = f(&moved);
        moved[index] = x[index];
        (value, taken)
    };
    (0..x.len())
        .map(|index| {
            let slope = |at: &mut dyn FnMut(usize, f32) -> (f64, f64), step: f32| {
                let ((high, up), (low, down)) = (at(index, step), at(index, -step));
                (high - low) / (up - down)
            };
            let (near, far) = (slope(&mut at, STEP), slope(&mut at, 2.0 * STEP));
            ((4.0 * near - far) / 3.0) as f32
        })
        .collect()
}

/// `Σ out · weights` in f64: a scalar whose gradient with respect to `out` is `weights`.
pub(crate) fn weighted(out: &[f32], weights: &[f32]) -> f64 {
    assert_eq!(out.len(), weights.len());
    out.iter().zip(weights).map(|(&out, &weight)| f64::from(out) * f64::from(weight)).sum()
}

/// Runs `f` in a pool of `threads` threads.
pub(crate) fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool").install(f)
}

/// The same bits twice with two threads, and 1e-6 of the result of one thread.
pub(crate) fn assert_deterministic(what: &str, f: impl Fn() -> Vec<f32> + Sync) {
    let (first, second) = (with_threads(2, &f), with_threads(2, &f));
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(bits(&first) == bits(&second), "{what}: two runs differ");
    assert_close(what, &first, &with_threads(1, &f), 1e-6);
}

/// A candle tensor.
pub(crate) fn tensor(data: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(data, shape, &Device::Cpu).expect("data fits the shape")
}

/// A candle tensor's elements.
pub(crate) fn elements(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("an f32 tensor")
}
