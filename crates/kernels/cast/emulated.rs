use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, moves, oracle, random, same, widen};
use zephyr_kernels::cast::cuda::{self, Rows};
use zephyr_kernels::cuda::{Bf16, Pointer};

const SOURCE: &str = "cast/kernel.cu";

fn casts(device: &Device) -> Result<(), String> {
    for len in [1, 7, 8, 4099] {
        let mut values = oracle::random(len, 1);
        // Ties to even in both directions, the ends, and what is no number.
        for (value, special) in
            values.iter_mut().zip([1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::MAX, 1e-42, f32::INFINITY, f32::NAN])
        {
            *value = special;
        }
        let expected: Vec<Bf16> = values.iter().map(|&value| Bf16::from_f32(value)).collect();
        let (from, to, back) = (device.upload("from", &values), device.empty("to", len), device.empty("back", len));
        device.run(&cuda::to_bf16(from, to, len))?;
        moves(device, 4 * len, 2 * len, None)?;
        let found: Vec<Bf16> = device.download("to", to, len)?;
        for (found, expected) in found.iter().zip(&expected) {
            let both_nan = found.to_f32().is_nan() && expected.to_f32().is_nan();
            if found != expected && !both_nan {
                return Err(format!("{found:?} for {expected:?}"));
            }
        }
        device.run(&cuda::to_f32(to, back, len))?;
        same("back", &device.download("back", back, len)?, &widen(&found))?;
        // From an address that is no multiple of 16.
        if len > 1 {
            let to: Pointer<Bf16> = device.empty("to", len - 1);
            device.run(&cuda::to_bf16(from.offset(1), to, len - 1))?;
            let shifted: Vec<Bf16> = device.download("to", to, len - 1)?;
            if shifted != found[1..] {
                return Err("a cast from an odd place differs".into());
            }
        }
    }
    Ok(())
}

fn rows<T: Tested>(device: &Device) -> Result<(), String> {
    for (rows, width, from_stride, to_stride) in [(1, 1, 1, 1), (3, 16, 24, 16), (4, 7, 9, 11), (2, 3000, 3008, 4096)] {
        let ((from, from32), (to, mut to32)) =
            (random::<T>(rows * from_stride, 1, 1.0), random::<T>(rows * to_stride, 2, 1.0));
        let (from, to) = (device.upload("from", &from), device.upload("to", &to));
        for add in [true, false] {
            for row in 0..rows {
                for column in 0..width {
                    let target = &mut to32[row * to_stride + column];
                    let sum = from32[row * from_stride + column] + if add { *target } else { 0.0 };
                    *target = T::from_f32(sum).to_f32();
                }
            }
            let from = Rows { first: from, stride: from_stride };
            let target = Rows { first: to, stride: to_stride };
            let launch = if add { cuda::add_rows } else { cuda::copy_rows };
            device.run(&launch(from, target, rows, width))?;
            same("to", &widen(&device.download::<T>("to", to, rows * to_stride)?), &to32)?;
        }
    }
    Ok(())
}

fn proof(device: &Device) -> Result<(), String> {
    casts(device)?;
    rows::<f32>(device)?;
    rows::<Bf16>(device)
}

#[test]
fn values_and_rows_arrive() {
    prove(SOURCE, &proof);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let mutations = [
        Mutation { from: "if (column >= width) return;", to: "", caught_by: "outside" },
        Mutation { from: "aligned && first + RUN <= len", to: "first + RUN <= len", caught_by: "no multiple of 16" },
        Mutation { from: "values[i] = sum[i] + values[i]", to: "values[i] = sum[i] - values[i]", caught_by: "to[" },
    ];
    catches(SOURCE, &proof, &mutations);
}
