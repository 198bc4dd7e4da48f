use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, close, moves, random};
use zephyr_kernels::cuda::Bf16;
use zephyr_kernels::rope::{Direction, Table, apply, cuda};

const SOURCE: &str = "rope/kernel.cu";

fn proof<T: Tested>(device: &Device) -> Result<(), String> {
    // Rows, heads, head dimension, row stride: one pair, odd pairs, a stride with columns of others, more packs than threads.
    for (rows, heads, dim, stride) in
        [(1, 1, 2, 2), (3, 2, 6, 15), (2, 2, 6, 16), (5, 3, 16, 48), (2, 4, 96, 512), (3, 40, 128, 6144)]
    {
        let table = Table::new(dim, 10_000.0, 50);
        let positions: Vec<u32> = (0..rows as u32).map(|row| (row * 17 + 49) % 50).collect();
        let (cos, sin) = (device.upload("cos", &table.cos), device.upload("sin", &table.sin));
        let on_device = device.upload("positions", &positions);
        for direction in [Direction::Forward, Direction::Backward] {
            let (x, mut expected) = random::<T>(rows * stride, 1, 2.0);
            apply(&mut expected, stride, heads, dim, &positions, &table, direction);
            let x = device.upload("x", &x);
            device.run(&cuda::apply(x, stride, heads, dim, on_device, cos, sin, direction, rows))?;
            let turned = rows * heads * dim;
            let angles = 4 * turned + 4 * rows * device_threads(heads, dim, stride, T::PACK as usize);
            moves(device, turned * size_of::<T>() + angles, turned * size_of::<T>(), None)?;
            close("x", &device.download("x", x, rows * stride)?, &expected, 1e-6)?;
        }
    }
    Ok(())
}

/// Threads of a block: each reads the row's position.
fn device_threads(heads: usize, dim: usize, stride: usize, pack: usize) -> usize {
    let pack = if (dim / 2).is_multiple_of(pack) && stride.is_multiple_of(pack) { pack } else { 1 };
    (heads * (dim / 2 / pack)).next_multiple_of(32).clamp(32, 256)
}

#[test]
fn equals_its_twin_in_f32() {
    prove(SOURCE, &proof::<f32>);
}

#[test]
fn equals_its_twin_in_bf16() {
    prove(SOURCE, &proof::<Bf16>);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let mutations = [
        Mutation { from: "a[i] * s);", to: "-(a[i] * s));", caught_by: "x[" },
        Mutation { from: "half % PACK<T> == 0 && ", to: "", caught_by: "are expected" },
        Mutation { from: "number < heads * packs", to: "number <= heads * packs", caught_by: "outside 'x'" },
        Mutation { from: "number / packs * 2 * half", to: "number / packs * half", caught_by: "race" },
    ];
    catches(SOURCE, &proof::<f32>, &mutations);
}
