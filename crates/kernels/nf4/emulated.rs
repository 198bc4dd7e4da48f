use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, oracle, same, widen};
use zephyr_kernels::cuda::Bf16;
use zephyr_kernels::nf4::{Nf4, cuda};

const SOURCE: &str = "nf4/kernel.cu";

fn proof<T: Tested>(device: &Device) -> Result<(), String> {
    let tables = device.upload("tables", &cuda::tables());
    for len in [1, 15, 16, 64, 65, 1000, 64 * 300 + 7] {
        let nf4 = Nf4::quantise(&oracle::random(len, 3));
        let (packed, absmax, nested, offset) = nf4.parts();
        let parts = cuda::Parts {
            packed: device.upload("packed", packed),
            absmax: device.upload("absmax", absmax),
            nested_absmax: device.upload("nested_absmax", nested),
            offset,
            tables,
        };
        for start in [0, 64, 64 * 257] {
            if start >= len {
                continue;
            }
            for count in [len - start, 5.min(len - start)] {
                let mut expected = vec![0.0; count];
                nf4.dequantise(start, &mut expected);
                let expected: Vec<T> = expected.into_iter().map(T::from_f32).collect();
                let out = device.empty("out", count);
                device.run(&cuda::dequantise(&parts, start, count, out))?;
                same("out", &widen(&device.download::<T>("out", out, count)?), &widen(&expected))?;
            }
        }
    }
    Ok(())
}

#[test]
fn has_the_bits_of_its_twin_in_f32() {
    prove(SOURCE, &proof::<f32>);
}

#[test]
fn has_the_bits_of_its_twin_in_bf16() {
    prove(SOURCE, &proof::<Bf16>);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let mutations = [
        Mutation {
            from: "i % 2 == 0 ? byte >> 4 & 15u : byte & 15u",
            to: "i % 2 == 1 ? byte >> 4 & 15u : byte & 15u",
            caught_by: "out[",
        },
        Mutation {
            from: "quantiles[threadIdx.x] = tables[threadIdx.x];\n  __syncthreads();",
            to: "quantiles[threadIdx.x] = tables[threadIdx.x];",
            caught_by: "quantiles",
        },
        Mutation {
            from: "nested_absmax[block / NESTED]",
            to: "nested_absmax[block / BLOCK]",
            caught_by: "outside 'nested_absmax'",
        },
        Mutation { from: "first + RUN <= count", to: "first < count", caught_by: "outside" },
    ];
    catches(SOURCE, &proof::<f32>, &mutations);
}
