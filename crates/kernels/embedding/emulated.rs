use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, close, random, widen};
use zephyr_kernels::cuda::Bf16;
use zephyr_kernels::embedding::{self, cuda};

const SOURCE: &str = "embedding/kernel.cu";

fn proof<T: Tested>(device: &Device) -> Result<(), String> {
    // More tokens than a block has threads, all tokens with one id, tails.
    for (table_rows, width, tokens) in [(1, 1, 1), (7, 3, 9), (5, 24, 70), (40, 136, 33), (300, 8, 200), (2, 1001, 3)] {
        let (table, table32) = random::<T>(table_rows * width, 1, 1.0);
        let (d_out, d_out32) = random::<T>(tokens * width, 2, 1.0);
        let ids: Vec<u32> = (0..tokens as u32).map(|token| (token * token + 3) % table_rows as u32 / 2).collect();
        let mut expected = vec![0.0; tokens * width];
        embedding::forward(&table32, width, &ids, &mut expected);
        let (ids_there, table) = (device.upload("ids", &ids), device.upload("table", &table));
        let out = device.empty("out", tokens * width);
        device.run(&cuda::forward(table, width, ids_there, out, tokens))?;
        close("out", &device.download::<T>("out", out, tokens * width)?, &expected, 0.0)?;

        let mut expected = table32;
        embedding::backward(&d_out32, width, &ids, &mut expected);
        device.run(&cuda::backward(device.upload("d_out", &d_out), width, ids_there, table, tokens))?;
        let found = device.download::<T>("d_table", table, table_rows * width)?;
        // In the order of the CPU, and rounded once: f32 sums have its very bits.
        let rounded: Vec<T> = expected.iter().map(|&value| T::from_f32(value)).collect();
        close("d_table", &found, &widen(&rounded), 0.0)?;
        if let Some(at) = widen(&found).iter().zip(&widen(&rounded)).position(|(a, e)| a.to_bits() != e.to_bits()) {
            return Err(format!("d_table[{at}] has other bits"));
        }
    }
    Ok(())
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
        Mutation { from: "if (first && match != blockIdx.x) return;", to: "", caught_by: "race" },
        Mutation { from: "token < tokens && ids[token]", to: "ids[token]", caught_by: "outside 'ids'" },
        Mutation {
            from: "votes[warp_index()] = vote;\n    __syncthreads();",
            to: "votes[warp_index()] = vote;",
            caught_by: "votes",
        },
        Mutation { from: "    }\n    __syncthreads();\n  }", to: "    }\n  }", caught_by: "race" },
        Mutation { from: "left &= left - 1", to: "left &= left - 1, left &= left - 1", caught_by: "d_table" },
    ];
    catches(SOURCE, &proof::<f32>, &mutations);
}
