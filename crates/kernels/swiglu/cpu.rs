use crate::parallel;
use crate::simd::{dispatch, exp, mul_add};

pub(super) fn forward(gate_up: &[f32], width: usize, out: &mut [f32]) {
    let rows = parallel::rows_per_task(out.len() / width, 2 * width);
    parallel::run(gate_up.chunks(2 * rows * width).zip(out.chunks_mut(rows * width)), |(gate_up, out)| {
        for (gate_up, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = gate_up.split_at(width);
            row(gate, up, out);
        }
    });
}

pub(super) fn backward(d_out: &[f32], width: usize, gate_up: &mut [f32]) {
    let rows = parallel::rows_per_task(d_out.len() / width, 2 * width);
    parallel::run(gate_up.chunks_mut(2 * rows * width).zip(d_out.chunks(rows * width)), |(gate_up, d_out)| {
        for (gate_up, d_out) in gate_up.chunks_exact_mut(2 * width).zip(d_out.chunks_exact(width)) {
            let (gate, up) = gate_up.split_at_mut(width);
            backward_row(d_out, gate, up);
        }
    });
}

dispatch! {
    fn row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp::<FMA>(-gate)) * up;
        }
    }
}

dispatch! {
    fn backward_row(d_out: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((d_out, gate), up) in d_out.iter().zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-*gate));
            let silu = *gate * sigmoid;
            let slope = mul_add::<FMA>(silu, 1.0 - sigmoid, sigmoid);
            *gate = d_out * *up * slope;
            *up = d_out * silu;
        }
    }
}
