use crate::parallel;
use crate::simd::dispatch;

/// Elements per partial sum.
const BLOCK: usize = 64 * 1024;

pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    let mut sums = vec![0.0f64; x.len().div_ceil(BLOCK)];
    let blocks = sums.len().div_ceil(rayon::current_num_threads()).max(1);
    parallel::run(sums.chunks_mut(blocks).zip(x.chunks(blocks * BLOCK)), |(sums, x)| {
        for (sum, x) in sums.iter_mut().zip(x.chunks(BLOCK)) {
            *sum = block(x);
        }
    });
    sums.iter().sum()
}

dispatch! {
    fn block(x: &[f32]) -> f64 {
        const LANES: usize = 16;
        let (chunks, rest) = x.as_chunks::<LANES>();
        let mut sums = [0.0f64; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                let value = f64::from(chunk[lane]);
                sums[lane] += value * value;
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            sums[lane] += f64::from(*value) * f64::from(*value);
        }
        sums.iter().sum()
    }
}
