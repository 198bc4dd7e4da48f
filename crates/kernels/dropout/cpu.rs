use super::Mask;
use crate::parallel;

/// Elements of one task.
const CHUNK: usize = 1 << 14;

pub(super) fn apply(mask: Mask, x: &[f32], out: &mut [f32]) {
    parallel::run(out.chunks_mut(CHUNK).zip(x.chunks(CHUNK)).enumerate(), |(chunk, (out, x))| {
        for (at, (out, x)) in out.iter_mut().zip(x).enumerate() {
            *out = x * mask.factor(chunk * CHUNK + at);
        }
    });
}

pub(super) fn add(mask: Mask, x: &[f32], sum: &mut [f32]) {
    parallel::run(sum.chunks_mut(CHUNK).zip(x.chunks(CHUNK)).enumerate(), |(chunk, (sum, x))| {
        for (at, (sum, x)) in sum.iter_mut().zip(x).enumerate() {
            *sum += x * mask.factor(chunk * CHUNK + at);
        }
    });
}
