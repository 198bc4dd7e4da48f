use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, close, moves, random};
use zephyr_kernels::cuda::Bf16;
use zephyr_kernels::swiglu::{self, cuda};

const SOURCE: &str = "swiglu/kernel.cu";

fn proof<T: Tested>(device: &Device) -> Result<(), String> {
    for (rows, width) in [(1, 1), (3, 7), (2, 8), (5, 36), (2, 1001), (3, 2304)] {
        let (gate_up, mut gate_up32) = random::<T>(rows * 2 * width, 1, 8.0);
        let (d_out, d_out32) = random::<T>(rows * width, 2, 1.0);
        let mut expected = vec![0.0; rows * width];
        swiglu::forward(&gate_up32, width, &mut expected);
        let (gate_up, d_out) = (device.upload("gate_up", &gate_up), device.upload("d_out", &d_out));
        let out = device.empty("out", rows * width);
        device.run(&cuda::forward(gate_up, out, rows, width))?;
        let row = rows * width * size_of::<T>();
        let packed = width.is_multiple_of(T::PACK as usize);
        moves(device, 2 * row, row, packed.then_some(3 * row))?;
        close("out", &device.download("out", out, rows * width)?, &expected, 2e-6)?;

        swiglu::backward(&d_out32, width, &mut gate_up32);
        device.run(&cuda::backward(d_out, gate_up, rows, width))?;
        moves(device, 3 * row, 2 * row, packed.then_some(5 * row))?;
        close("d_gate_up", &device.download("d_gate_up", gate_up, rows * 2 * width)?, &gate_up32, 2e-6)?;
    }
    Ok(())
}

/// Gates far from 0 on both sides: no NaN, and the limits themselves.
fn saturation(device: &Device) -> Result<(), String> {
    let gate_up: [f32; 10] = [-1e4, -100.0, -0.0, 100.0, 1e4, 1.0, 1.0, 1.0, 1.0, 1.0];
    let (input, out) = (device.upload("gate_up", &gate_up), device.empty::<f32>("out", 5));
    device.run(&cuda::forward(input, out, 1, 5))?;
    close("out", &device.download("out", out, 5)?, &[-0.0, -0.0, -0.0, 100.0, 1e4], 0.0)?;
    device.run(&cuda::backward(device.upload("d_out", &[1.0f32; 5]), input, 1, 5))?;
    let expected = [-0.0, -0.0, 0.5, 1.0, 1.0, -0.0, -0.0, -0.0, 100.0, 1e4];
    close("d_gate_up", &device.download("d_gate_up", input, 10)?, &expected, 1e-38)
}

#[test]
fn equals_its_twin_in_f32() {
    prove(SOURCE, &proof::<f32>);
    prove(SOURCE, &saturation);
}

#[test]
fn equals_its_twin_in_bf16() {
    prove(SOURCE, &proof::<Bf16>);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let mutations = [
        Mutation {
            from: "fmaf(silu, 1.0f - sigmoid, sigmoid)",
            to: "fmaf(silu, sigmoid, sigmoid)",
            caught_by: "d_gate_up",
        },
        Mutation { from: "if (column >= width) return;\n  const T*", to: "const T*", caught_by: "outside" },
        Mutation {
            from: "T* row = gate_up + static_cast<size_t>(blockIdx.x) * 2 * width;\n  float gate[N], up[N], gradient",
            to: "T* row = gate_up + static_cast<size_t>(blockIdx.x) * width;\n  float gate[N], up[N], gradient",
            caught_by: "race",
        },
    ];
    catches(SOURCE, &proof::<f32>, &mutations);
}
