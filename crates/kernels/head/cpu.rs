use super::{Head, Stats};
use crate::gemm::{self, Mat, MatMut};
use crate::matrix;
use crate::parallel;
use crate::simd::{self, LANES, dispatch, exp, mul_add};

pub(super) fn forward(head: &Head, hidden: &[f32], targets: &[u32], stats: &mut Stats, scratch: &mut Vec<f32>) {
    let mut first = 0;
    while first < targets.len() {
        let rows = head.chunk.min(targets.len() - first);
        let logits = chunk_logits(head, &hidden[first * head.width..], rows, scratch);
        chunk_stats(head, logits, &targets[first..first + rows], stats, first);
        first += rows;
    }
}

pub(super) fn backward(
    head: &Head,
    hidden: &[f32],
    targets: &[u32],
    lse: &[f32],
    coefficient: &[f32],
    d_hidden: &mut [f32],
    mut d_weight: Option<&mut [f32]>,
    scratch: &mut Vec<f32>,
) {
    let mut first = 0;
    while first < targets.len() {
        let rows = head.chunk.min(targets.len() - first);
        let range = first..first + rows;
        let elements = first * head.width..(first + rows) * head.width;
        let logits = chunk_logits(head, &hidden[elements.clone()], rows, scratch);
        chunk_gradient(head, logits, &targets[range.clone()], &lse[range.clone()], &coefficient[range]);
        chunk_products(head, logits, &hidden[elements.clone()], &mut d_hidden[elements], d_weight.as_deref_mut());
        first += rows;
    }
}

pub(super) fn forward_backward(
    head: &Head,
    hidden: &[f32],
    targets: &[u32],
    coefficient: &[f32],
    d_hidden: &mut [f32],
    mut d_weight: Option<&mut [f32]>,
    stats: &mut Stats,
    scratch: &mut Vec<f32>,
) {
    let mut first = 0;
    while first < targets.len() {
        let rows = head.chunk.min(targets.len() - first);
        let range = first..first + rows;
        let elements = first * head.width..(first + rows) * head.width;
        let logits = chunk_logits(head, &hidden[elements.clone()], rows, scratch);
        chunk_stats(head, logits, &targets[range.clone()], stats, first);
        chunk_gradient(head, logits, &targets[range.clone()], &stats.lse[range.clone()], &coefficient[range]);
        chunk_products(head, logits, &hidden[elements.clone()], &mut d_hidden[elements], d_weight.as_deref_mut());
        first += rows;
    }
}

pub(super) fn logits(head: &Head, hidden: &[f32], out: &mut [f32]) {
    let rows = hidden.len() / head.width;
    let out = MatMut::new(out, rows, head.vocabulary);
    matrix::nt(out, Mat::new(hidden, rows, head.width), head.weight, 0.0);
}

/// The logits of the first `rows` rows of `hidden`, in scratch.
fn chunk_logits<'a>(head: &Head, hidden: &[f32], rows: usize, scratch: &'a mut Vec<f32>) -> &'a mut [f32] {
    let elements = rows * head.vocabulary;
    if scratch.len() < elements {
        scratch.resize(elements, 0.0);
    }
    let out = &mut scratch[..elements];
    logits(head, &hidden[..rows * head.width], out);
    out
}

fn chunk_stats(head: &Head, logits: &[f32], targets: &[u32], stats: &mut Stats, first: usize) {
    let rows = parallel::rows_per_task(targets.len(), head.vocabulary);
    let range = first..first + targets.len();
    let tasks = logits
        .chunks(rows * head.vocabulary)
        .zip(targets.chunks(rows))
        .zip(stats.logp[range.clone()].chunks_mut(rows))
        .zip(stats.lse[range.clone()].chunks_mut(rows))
        .zip(stats.entropy[range.clone()].chunks_mut(rows))
        .zip(stats.log_collision[range.clone()].chunks_mut(rows))
        .zip(stats.logit_mean[range.clone()].chunks_mut(rows))
        .zip(stats.correct[range].chunks_mut(rows));
    parallel::run(tasks, |(((((((logits, targets), logp), lse), entropy), log_collision), logit_mean), correct)| {
        for (row, logits) in logits.chunks_exact(head.vocabulary).enumerate() {
            let target = targets[row] as usize;
            let (largest, total) = largest_and_total(logits);
            let (mass, moment, squares) = exponentials(logits, largest);
            lse[row] = largest + mass.ln();
            logp[row] = logits[target] - lse[row];
            entropy[row] = mass.ln() - moment / mass;
            log_collision[row] = squares.ln() - 2.0 * mass.ln();
            logit_mean[row] = total / head.vocabulary as f32;
            correct[row] = logits[target] == largest && !logits[..target].contains(&largest);
        }
    });
}

/// Turns logits into `coefficient · (onehot − softmax)`.
fn chunk_gradient(head: &Head, logits: &mut [f32], targets: &[u32], lse: &[f32], coefficient: &[f32]) {
    let rows = parallel::rows_per_task(targets.len(), head.vocabulary);
    let tasks = logits
        .chunks_mut(rows * head.vocabulary)
        .zip(targets.chunks(rows))
        .zip(lse.chunks(rows))
        .zip(coefficient.chunks(rows));
    parallel::run(tasks, |(((logits, targets), lse), coefficient)| {
        for (row, logits) in logits.chunks_exact_mut(head.vocabulary).enumerate() {
            scaled_softmax(logits, lse[row], -coefficient[row]);
            logits[targets[row] as usize] += coefficient[row];
        }
    });
}

fn chunk_products(head: &Head, d_logits: &[f32], hidden: &[f32], d_hidden: &mut [f32], d_weight: Option<&mut [f32]>) {
    let rows = hidden.len() / head.width;
    let d_logits = Mat::new(d_logits, rows, head.vocabulary);
    matrix::nn(MatMut::new(d_hidden, rows, head.width), d_logits, head.weight, 0.0);
    if let Some(d_weight) = d_weight {
        gemm::tn(
            MatMut::new(d_weight, head.vocabulary, head.width),
            d_logits,
            Mat::new(hidden, rows, head.width),
            1.0,
            1.0,
        );
    }
}

dispatch! {
    fn largest_and_total(x: &[f32]) -> (f32, f32) {
        let (chunks, rest) = simd::split(x);
        let mut best = [f32::NEG_INFINITY; LANES];
        let mut totals = [0.0; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
                totals[lane] += chunk[lane];
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            best[lane] = if value > best[lane] { value } else { best[lane] };
            totals[lane] += value;
        }
        (simd::largest(best), simd::sum(totals))
    }
}

dispatch! {
    /// `Σ e^(x − largest)`, `Σ e^(x − largest)·(x − largest)` and `Σ e^2(x − largest)`
    fn exponentials(x: &[f32], largest: f32) -> (f32, f32, f32) {
        let (chunks, rest) = simd::split(x);
        let mut mass = [0.0; LANES];
        let mut moment = [0.0; LANES];
        let mut squares = [0.0; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                let shifted = chunk[lane] - largest;
                let value = exp::<FMA>(shifted);
                mass[lane] += value;
                moment[lane] = mul_add::<FMA>(value, shifted, moment[lane]);
                squares[lane] = mul_add::<FMA>(value, value, squares[lane]);
            }
        }
        for (lane, x) in rest.iter().enumerate() {
            let shifted = x - largest;
            let value = exp::<FMA>(shifted);
            mass[lane] += value;
            moment[lane] = mul_add::<FMA>(value, shifted, moment[lane]);
            squares[lane] = mul_add::<FMA>(value, value, squares[lane]);
        }
        (simd::sum(mass), simd::sum(moment), simd::sum(squares))
    }
}

dispatch! {
    fn scaled_softmax(x: &mut [f32], lse: f32, scale: f32) {
        for x in x {
            *x = scale * exp::<FMA>(*x - lse);
        }
    }
}

dispatch! {
    pub(super) fn log_sum_exp(logits: &[f32]) -> f32 {
        let (chunks, rest) = simd::split(logits);
        let mut best = [f32::NEG_INFINITY; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
            }
        }
        let largest = rest.iter().fold(simd::largest(best), |best, &logit| if logit > best { logit } else { best });
        let mut total = [0.0; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                total[lane] += exp::<FMA>(chunk[lane] - largest);
            }
        }
        for (lane, logit) in rest.iter().enumerate() {
            total[lane] += exp::<FMA>(logit - largest);
        }
        largest + simd::sum(total).ln()
    }
}

dispatch! {
    pub(super) fn weights(scores: &[f32], largest: f32, temperature: f32, out: &mut [f32]) {
        for (out, score) in out.iter_mut().zip(scores) {
            *out = exp::<FMA>((score - largest) / temperature);
        }
    }
}
