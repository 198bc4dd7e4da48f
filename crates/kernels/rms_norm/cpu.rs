use crate::parallel;
use crate::simd::{self, LANES, dispatch, mul_add};

/// Rows that share a partial sum of the weight's gradient.
const BLOCK: usize = 64;

pub(super) fn forward(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], rstd: &mut [f32]) {
    let width = weight.len();
    let rows = parallel::rows_per_task(rstd.len(), width);
    let tasks = x.chunks(rows * width).zip(out.chunks_mut(rows * width)).zip(rstd.chunks_mut(rows));
    parallel::run(tasks, |((x, out), rstd)| {
        for ((x, out), rstd) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(rstd) {
            *rstd = row(x, weight, eps, out);
        }
    });
}

pub(super) fn forward_add(
    residual: &mut [f32],
    delta: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
    rstd: &mut [f32],
) {
    let width = weight.len();
    let rows = parallel::rows_per_task(rstd.len(), width);
    let tasks = residual
        .chunks_mut(rows * width)
        .zip(delta.chunks(rows * width))
        .zip(out.chunks_mut(rows * width))
        .zip(rstd.chunks_mut(rows));
    parallel::run(tasks, |(((residual, delta), out), rstd)| {
        let rows = residual.chunks_exact_mut(width).zip(delta.chunks_exact(width)).zip(out.chunks_exact_mut(width));
        for (((residual, delta), out), rstd) in rows.zip(rstd) {
            add(residual, delta);
            *rstd = row(residual, weight, eps, out);
        }
    });
}

pub(super) fn backward(
    d_out: &[f32],
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    d_x: &mut [f32],
    d_weight: Option<&mut [f32]>,
) {
    let width = weight.len();
    // One partial weight gradient per block, added up in block order afterwards: the same bits for any number of threads.
    let blocks = rstd.len().div_ceil(BLOCK);
    let mut partial = vec![0.0; if d_weight.is_some() { blocks * width } else { 0 }];
    let mut partials = partial.chunks_exact_mut(width);
    let tasks = d_out
        .chunks(BLOCK * width)
        .zip(x.chunks(BLOCK * width))
        .zip(d_x.chunks_mut(BLOCK * width))
        .zip(rstd.chunks(BLOCK))
        .map(|task| (task, partials.next()));
    parallel::run(tasks, |((((d_out, x), d_x), rstd), mut partial)| {
        let rows = d_out.chunks_exact(width).zip(x.chunks_exact(width)).zip(d_x.chunks_exact_mut(width));
        for (((d_out, x), d_x), &rstd) in rows.zip(rstd) {
            backward_row(d_out, x, weight, rstd, d_x);
            if let Some(partial) = &mut partial {
                backward_weight(d_out, x, rstd, partial);
            }
        }
    });
    if let Some(d_weight) = d_weight {
        for partial in partial.chunks_exact(width) {
            add(d_weight, partial);
        }
    }
}

dispatch! {
    fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

dispatch! {
    /// One row of the forward pass; returns its `rstd`.
    fn row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32 {
        let (chunks, rest) = simd::split(x);
        let mut squares = [0.0; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                squares[lane] = mul_add::<FMA>(chunk[lane], chunk[lane], squares[lane]);
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            squares[lane] = mul_add::<FMA>(*value, *value, squares[lane]);
        }
        let rstd = 1.0 / (simd::sum(squares) / x.len() as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = weight * (x * rstd);
        }
        rstd
    }
}

dispatch! {
    fn backward_row(d_out: &[f32], x: &[f32], weight: &[f32], rstd: f32, d_x: &mut [f32]) {
        let (d_chunks, d_rest) = simd::split(d_out);
        let (x_chunks, x_rest) = simd::split(x);
        let (w_chunks, w_rest) = simd::split(weight);
        let mut dots = [0.0; LANES];
        for ((d, x), w) in d_chunks.iter().zip(x_chunks).zip(w_chunks) {
            for lane in 0..LANES {
                dots[lane] = mul_add::<FMA>(d[lane] * w[lane], x[lane], dots[lane]);
            }
        }
        for (lane, ((d, x), w)) in d_rest.iter().zip(x_rest).zip(w_rest).enumerate() {
            dots[lane] = mul_add::<FMA>(d * w, *x, dots[lane]);
        }
        let factor = -simd::sum(dots) * rstd * rstd * rstd / x.len() as f32;
        for (((d_x, d), x), w) in d_x.iter_mut().zip(d_out).zip(x).zip(weight) {
            *d_x += mul_add::<FMA>(d * w, rstd, x * factor);
        }
    }
}

dispatch! {
    fn backward_weight(d_out: &[f32], x: &[f32], rstd: f32, d_weight: &mut [f32]) {
        for ((sum, d), x) in d_weight.iter_mut().zip(d_out).zip(x) {
            *sum = mul_add::<FMA>(*d, x * rstd, *sum);
        }
    }
}
