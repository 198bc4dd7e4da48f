use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::super::Kind;
use super::super::blocks::Block;
use super::super::test::{dequantised, dtype, random_bytes};
use crate::oracle::random;

fn quantised(kind: Kind, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xAA; kind.row_bytes(values.len())];
    kind.quantise(values, &mut bytes).unwrap();
    bytes
}

/// Bytes and values of candle's quantiser.
fn of_candle(kind: Kind, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
    let quantised = QTensor::quantize(&tensor, dtype(kind)).unwrap();
    let bytes = quantised.data().unwrap().into_owned();
    let back = dequantised(kind, values.len(), &bytes);
    (bytes, back)
}

fn rmse(found: &[f32], expected: &[f32]) -> f64 {
    let sum: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / expected.len() as f64).sqrt()
}

/// Sums of uniform numbers: nearly normal, as weights are, with a few outliers.
fn weights(count: usize, seed: u64) -> Vec<f32> {
    let noise = random(6 * count, seed);
    let outlier = |index: usize| if index % 97 == 13 { 5.0 } else { 1.0 };
    noise.chunks_exact(6).enumerate().map(|(index, six)| six.iter().sum::<f32>() * 0.02 * outlier(index)).collect()
}

#[test]
fn a_block_taken_apart_and_put_together_is_the_same() {
    for kind in Kind::ALL {
        let bytes = random_bytes(kind, 40 * kind.block_len(), 9);
        let mut block = Block::default();
        for bytes in bytes.chunks_exact(kind.block_bytes()) {
            block.read(kind, bytes);
            let mut again = vec![0xAA; bytes.len()];
            block.write(kind, &mut again);
            assert!(again == bytes, "{kind:?}");
        }
    }
}

#[test]
fn types_without_k_have_the_bytes_of_the_reference() {
    let mut values = weights(512 * 32, 3);
    // A block of zeros, one of equal values, ties of the largest magnitude.
    values[..32].fill(0.0);
    values[32..64].fill(-0.25);
    values[64..96].iter_mut().enumerate().for_each(|(index, value)| *value = if index % 2 == 0 { 0.5 } else { -0.5 });
    for kind in [Kind::Q4_0, Kind::Q4_1, Kind::Q5_0, Kind::Q5_1, Kind::Q8_0] {
        assert!(quantised(kind, &values) == of_candle(kind, &values).0, "{kind:?}");
    }
}

#[test]
fn the_k_types_lose_no_more_than_candle_loses() {
    let values = weights(512 * 256, 5);
    let deviation = rmse(&values, &vec![0.0; values.len()]);
    for (kind, most) in [(Kind::Q4_K, 0.09), (Kind::Q5_K, 0.05), (Kind::Q6_K, 0.025)] {
        let ours = rmse(&dequantised(kind, values.len(), &quantised(kind, &values)), &values);
        let theirs = rmse(&of_candle(kind, &values).1, &values);
        eprintln!("{kind:?}: relative error {:.5}, candle's {:.5}", ours / deviation, theirs / deviation);
        assert!(ours <= theirs * 1.001, "{kind:?}: {ours} against {theirs}");
        assert!(ours < most * deviation, "{kind:?}: {}", ours / deviation);
    }
}

#[test]
fn values_without_a_place_are_given_back() {
    for kind in Kind::ALL {
        let mut bytes = vec![0; kind.block_bytes()];
        for wrong in [f32::NAN, f32::INFINITY, -3e38, 5e8] {
            let mut values = vec![0.1; kind.block_len()];
            values[7] = wrong;
            let found = kind.quantise(&values, &mut bytes).unwrap_err();
            assert!(found.is_nan() == wrong.is_nan() && (wrong.is_nan() || found.abs() == wrong.abs()), "{kind:?}");
        }
        kind.quantise(&vec![0.0; kind.block_len()], &mut bytes).unwrap();
        assert!(dequantised(kind, kind.block_len(), &bytes).iter().all(|value| *value == 0.0), "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_moves_further_than_the_steps_of_its_block(
        exponent in -8i32..14,
        seed in any::<u64>(),
    ) {
        for kind in Kind::ALL {
            let values: Vec<f32> = weights(256, seed).iter().map(|value| value * 2f32.powi(exponent)).collect();
            let back = dequantised(kind, values.len(), &quantised(kind, &values));
            let top = values.iter().fold(0.0f32, |top, value| top.max(value.abs()));
            // A step is at most 1/7 of the largest magnitude; a half-precision scale may be subnormal, and factors multiply it.
            let allowed = 0.16 * top + 4096.0 * 6e-8;
            for (value, back) in values.iter().zip(&back) {
                prop_assert!((value - back).abs() <= allowed, "{:?}: {} became {}", kind, value, back);
            }
        }
    }
}
