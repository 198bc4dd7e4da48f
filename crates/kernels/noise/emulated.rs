use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, close, moves, random, same};
use zephyr_kernels::cuda::Bf16;
use zephyr_kernels::noise::{Noise, cuda};

const SOURCE: &str = "noise/kernel.cu";

fn made<T: Tested>(device: &Device, segments: &[u32], width: usize) -> Result<(Vec<T>, Vec<f32>), String> {
    let noise = Noise { alpha: 5.0, seed: 3, counter: 1 << 33 };
    let tokens = *segments.last().unwrap() as usize;
    let (values, mut expected) = random::<T>(tokens * width, 1, 0.1);
    noise.add(segments, width, &mut expected);
    let embeddings = device.upload("embeddings", &values);
    let reaches = device.upload("reaches", &noise.reaches(segments, width));
    device.run(&cuda::add(&noise, embeddings, reaches, tokens, width))?;
    let bytes = tokens * width * size_of::<T>();
    let pack = if width.is_multiple_of(T::PACK as usize) { T::PACK as usize } else { 1 };
    let reading = tokens * width / pack * size_of::<f32>();
    moves(device, bytes + reading, bytes, (pack > 1).then_some(2 * bytes))?;
    Ok((device.download("embeddings", embeddings, tokens * width)?, expected))
}

fn proof<T: Tested>(device: &Device) -> Result<(), String> {
    for (segments, width) in
        [(&[0, 1][..], 1), (&[0, 3], 7), (&[0, 2, 5], 8), (&[0, 1, 1, 4], 36), (&[0, 2], 1001), (&[0, 3], 2304)]
    {
        let (found, expected) = made::<T>(device, segments, width)?;
        close("embeddings", &found, &expected, 1e-7)?;
    }
    Ok(())
}

/// In f32 the CPU's bits.
fn bits(device: &Device) -> Result<(), String> {
    let (found, expected) = made::<f32>(device, &[0, 5, 40], 96)?;
    same("embeddings", &found, &expected)
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
        Mutation { from: "reaches[blockIdx.x]", to: "reaches[0]", caught_by: "embeddings" },
        Mutation { from: "at(key + first + i)", to: "at(key + column + i)", caught_by: "embeddings" },
        Mutation { from: "(2.0f * uniform - 1.0f)", to: "uniform", caught_by: "embeddings" },
        Mutation { from: "if (column >= width) return;", to: "", caught_by: "outside" },
    ];
    catches(SOURCE, &proof::<f32>, &mutations);
}
