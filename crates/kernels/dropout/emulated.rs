use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, close, moves, random, same};
use zephyr_kernels::cuda::Bf16;
use zephyr_kernels::dropout::{Mask, cuda};

const SOURCE: &str = "dropout/kernel.cu";

fn proof<T: Tested>(device: &Device) -> Result<(), String> {
    for (rows, width) in [(1, 1), (3, 7), (2, 8), (5, 36), (2, 1001), (3, 2304)] {
        for (key, probability) in [(3, 0.05), (u64::MAX, 0.5), (1 << 40, 0.9)] {
            let mask = Mask::new(key, probability);
            let (x, x32) = random::<T>(rows * width, 1, 8.0);
            let (start, mut sum32) = random::<T>(rows * width, 2, 1.0);
            let (x, sum) = (device.upload("x", &x), device.upload("sum", &start));
            let out = device.empty("out", rows * width);
            let mut expected = vec![0.0; rows * width];
            mask.apply(&x32, &mut expected);
            device.run(&cuda::apply(mask, x, out, rows, width))?;
            let bytes = rows * width * size_of::<T>();
            let packed = width.is_multiple_of(T::PACK as usize);
            moves(device, bytes, bytes, packed.then_some(2 * bytes))?;
            close("out", &device.download("out", out, rows * width)?, &expected, 0.0)?;

            mask.add(&x32, &mut sum32);
            device.run(&cuda::add(mask, x, sum, rows, width))?;
            moves(device, 2 * bytes, bytes, packed.then_some(3 * bytes))?;
            close("sum", &device.download("sum", sum, rows * width)?, &sum32, 0.0)?;
        }
    }
    Ok(())
}

/// In f32 nothing is rounded otherwise: what is dropped there is dropped here.
fn bits(device: &Device) -> Result<(), String> {
    let (rows, width) = (40, 96);
    let mask = Mask::new(7, 0.3);
    let (x, _) = random::<f32>(rows * width, 1, 8.0);
    let mut expected = vec![0.0; rows * width];
    mask.apply(&x, &mut expected);
    let (x, out) = (device.upload("x", &x), device.empty::<f32>("out", rows * width));
    device.run(&cuda::apply(mask, x, out, rows, width))?;
    same("out", &device.download("out", out, rows * width)?, &expected)
}

#[test]
fn equals_its_twin_in_f32() {
    prove(SOURCE, &proof::<f32>);
    prove(SOURCE, &bits);
}

#[test]
fn equals_its_twin_in_bf16() {
    prove(SOURCE, &proof::<Bf16>);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let mutations = [
        Mutation { from: "mask.factor(at + i)", to: "mask.factor(column + i)", caught_by: "out" },
        Mutation { from: "mask.factor(at + i)", to: "mask.factor(at)", caught_by: "out" },
        Mutation { from: ">> 40) < threshold", to: ">> 40) <= threshold / 2", caught_by: "out" },
        Mutation { from: "if (column >= width) return;", to: "", caught_by: "outside" },
        Mutation { from: "ADD ? sums[i] + value", to: "ADD ? sums[i] - value", caught_by: "sum" },
    ];
    catches(SOURCE, &proof::<f32>, &mutations);
}
