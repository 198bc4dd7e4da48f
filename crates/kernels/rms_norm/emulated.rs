use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, close, moves, random, widen};
use zephyr_kernels::rms_norm::{self, cuda};

const SOURCE: &str = "rms_norm/kernel.cu";
const EPS: f32 = 1e-5;
/// One element, tails of every kind, whole packs, one warp and several, more rows than blocks of the backward pass.
const SIZES: [(usize, usize); 9] =
    [(1, 1), (3, 7), (2, 8), (5, 33), (4, 104), (3, 576), (2, 1001), (7, 1600), (515, 24)];

fn forward<T: Tested>(device: &Device) -> Result<(), String> {
    for (rows, width) in SIZES {
        let ((x, x32), (weight, weight32)) = (random::<T>(rows * width, 1, 3.0), random::<T>(width, 2, 1.0));
        let (mut expected, mut expected_rstd) = (vec![0.0; x.len()], vec![0.0; rows]);
        rms_norm::forward(&x32, &weight32, EPS, &mut expected, &mut expected_rstd);

        let (x, weight) = (device.upload("x", &x), device.upload("weight", &weight));
        let (out, rstd) = (device.empty("out", rows * width), device.empty("rstd", rows));
        device.run(&cuda::forward(x, weight, EPS, out, rstd, rows, width))?;
        close("out", &device.download("out", out, rows * width)?, &expected, 2e-6)?;
        close("rstd", &device.download("rstd", rstd, rows)?, &expected_rstd, 1e-6)?;
        // The input is read once, the output written once, both in the widest accesses.
        let row = rows * width * size_of::<T>();
        let wide = width.is_multiple_of(T::PACK as usize).then_some(3 * row);
        moves(device, 2 * row, row + 4 * rows, wide)?;
    }
    Ok(())
}

fn forward_add<T: Tested>(device: &Device) -> Result<(), String> {
    for (rows, width) in SIZES {
        let ((delta, delta32), (weight, weight32)) = (random::<T>(rows * width, 1, 3.0), random::<T>(width, 2, 1.0));
        let (residual, residual32) = random::<T>(rows * width, 3, 2.0);
        let summed: Vec<T> = residual32.iter().zip(&delta32).map(|(a, b)| T::from_f32(a + b)).collect();
        let (mut expected, mut expected_rstd) = (vec![0.0; delta.len()], vec![0.0; rows]);
        rms_norm::forward(&widen(&summed), &weight32, EPS, &mut expected, &mut expected_rstd);

        let (delta, weight) = (device.upload("delta", &delta), device.upload("weight", &weight));
        let residual = device.upload("residual", &residual);
        let (out, rstd) = (device.empty("out", rows * width), device.empty("rstd", rows));
        device.run(&cuda::forward_add(residual, delta, weight, EPS, out, rstd, rows, width))?;
        close("residual", &device.download("residual", residual, rows * width)?, &widen(&summed), 0.0)?;
        close("out", &device.download("out", out, rows * width)?, &expected, 2e-6)?;
        close("rstd", &device.download("rstd", rstd, rows)?, &expected_rstd, 1e-6)?;
    }
    Ok(())
}

fn backward<T: Tested>(device: &Device) -> Result<(), String> {
    for (rows, width) in SIZES {
        let ((x, x32), (weight, weight32)) = (random::<T>(rows * width, 1, 3.0), random::<T>(width, 2, 1.0));
        let ((d_out, d_out32), (d_x, d_x32)) = (random::<T>(rows * width, 3, 1.0), random::<T>(rows * width, 4, 1.0));
        let (d_weight, d_weight32) = random::<T>(width, 5, 1.0);
        let (mut unused, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows]);
        rms_norm::forward(&x32, &weight32, EPS, &mut unused, &mut rstd);
        let (mut expected, mut expected_weight) = (d_x32, d_weight32);
        rms_norm::backward(&d_out32, &x32, &weight32, &rstd, &mut expected, Some(&mut expected_weight));

        let (x, weight, d_out) =
            (device.upload("x", &x), device.upload("weight", &weight), device.upload("d_out", &d_out));
        let (rstd, d_weight) = (device.upload("rstd", &rstd), device.upload("d_weight", &d_weight));
        let scratch = device.empty("scratch", cuda::backward_scratch(rows, width));
        let mut results = Vec::new();
        for scratch in [Some(scratch), None] {
            let d_x = device.upload("d_x", &d_x);
            device.run(&cuda::backward(d_out, x, weight, rstd, d_x, scratch, rows, width))?;
            results.push(device.download("d_x", d_x, rows * width)?);
        }
        device.run(&cuda::weight_gradient(scratch, d_weight, rows, width))?;
        close("d_x", &results[0], &expected, 4e-6)?;
        close("d_x without weights", &results[1], &widen(&results[0]), 0.0)?;
        close("d_weight", &device.download("d_weight", d_weight, width)?, &expected_weight, 1e-5)?;
    }
    Ok(())
}

fn proof<T: Tested>(device: &Device) -> Result<(), String> {
    forward::<T>(device)?;
    forward_add::<T>(device)?;
    backward::<T>(device)
}

#[test]
fn equals_its_twin_in_f32() {
    prove(SOURCE, &proof::<f32>);
}

#[test]
fn equals_its_twin_in_bf16() {
    prove(SOURCE, &proof::<zephyr_kernels::cuda::Bf16>);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let mutations = [
        Mutation { from: "if (column < width) load(x +", to: "load(x +", caught_by: "outside 'x'" },
        Mutation { from: "if (threadIdx.x == 0) rstd", to: "rstd", caught_by: "race" },
        Mutation { from: "for (uint32_t warp = 1;", to: "for (uint32_t warp = 2;", caught_by: "d_weight" },
        Mutation {
            from: "sums[threadIdx.x] = sum;\n  __syncthreads();",
            to: "sums[threadIdx.x] = sum;",
            caught_by: "nothing has written",
        },
        Mutation { from: "values[held][i] * pull", to: "values[held][i] * -pull", caught_by: "d_x" },
        Mutation { from: "width % PACK<T> == 0) backward", to: "true) backward", caught_by: "reads 16 bytes" },
        Mutation {
            from: "float sums[HELD][N] = {};",
            to: "static float sums[HELD][N];",
            caught_by: "outside device memory",
        },
    ];
    catches(SOURCE, &proof::<f32>, &mutations);
}
