use std::path::PathBuf;

use super::{Nf4, QUANTILES, Quantiser, dynamic_map};
use crate::oracle::random;

/// nf4.safetensors of the golden folder, by name; or a loud skip.
fn golden() -> Option<std::collections::HashMap<String, candle_core::Tensor>> {
    let folder = std::env::var_os("ZEPHYR_GOLDEN")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden")), PathBuf::from);
    let path = folder.join("nf4.safetensors");
    if !path.exists() {
        eprintln!("SKIPPED: {} is missing; set ZEPHYR_GOLDEN", path.display());
        return None;
    }
    Some(candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap())
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn golden_codes_scales_and_values_are_those_of_bitsandbytes_bit_for_bit() {
    let Some(tensors) = golden() else { return };
    let floats = |name: &str| tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let bytes = |name: &str| tensors[name].flatten_all().unwrap().to_vec1::<u8>().unwrap();
    assert_eq!(bits(&floats("plain.code")), bits(&QUANTILES));
    assert_eq!(bits(&floats("double.state2_code")), bits(dynamic_map()));
    for case in ["plain", "outlier", "zeros"] {
        let mut quantiser = Quantiser::default();
        quantiser.push(&floats(&format!("{case}.weight")));
        let (packed, absmax) = quantiser.single();
        assert!(packed == bytes(&format!("{case}.packed")), "{case}: codes");
        assert_eq!(bits(absmax), bits(&floats(&format!("{case}.absmax"))), "{case}: absmax");
        let expected = floats(&format!("{case}.dequantised"));
        let found: Vec<f32> = (0..expected.len())
            .map(|at| QUANTILES[(packed[at / 2] >> (4 - at % 2 * 4) & 15) as usize] * absmax[at / 64])
            .collect();
        assert_eq!(found, expected, "{case}: values");
    }
    let weight = floats("double.weight");
    let nf4 = Nf4::quantise(&weight);
    let (packed, absmax, nested, offset) = nf4.parts();
    assert!(packed == bytes("double.packed"), "codes");
    assert_eq!(offset.to_bits(), floats("double.absmax_offset")[0].to_bits());
    assert!(absmax == bytes("double.absmax_q"), "absmax");
    assert_eq!(bits(nested), bits(&floats("double.state2_absmax")));
    let mut values = vec![f32::NAN; weight.len()];
    nf4.dequantise(0, &mut values);
    assert_eq!(bits(&values), bits(&floats("double.dequantised")));
}

#[test]
fn any_part_is_that_part_of_the_whole() {
    for len in [1, 63, 64, 65, 1000, 64 * 300 + 7] {
        let values = random(len, 3);
        let nf4 = Nf4::quantise(&values);
        let mut whole = vec![f32::NAN; len];
        nf4.dequantise(0, &mut whole);
        assert!(whole.iter().all(|value| value.is_finite()));
        for start in [0, 1, 5, 63, 64, 130] {
            for count in [0, 1, 2, 31, 64, 200] {
                if start + count <= len {
                    let mut part = vec![f32::NAN; count];
                    nf4.dequantise(start, &mut part);
                    assert_eq!(bits(&part), bits(&whole[start..start + count]), "{start}+{count} of {len}");
                }
            }
        }
        let mut pieces = Quantiser::default();
        values.chunks(128).for_each(|piece| pieces.push(piece));
        assert_eq!(pieces.finish(), nf4);
        assert!(nf4.bytes() * 8 <= len * 17 / 4 + 800, "{} bytes for {len} values", nf4.bytes());
    }
}

/// No quantile is nearer than the one that was taken, and a block's largest value is nearly kept.
#[test]
fn every_value_takes_its_nearest_quantile() {
    let values = random(64 * 50, 5);
    let mut quantiser = Quantiser::default();
    quantiser.push(&values);
    let (packed, absmax) = quantiser.single();
    for (at, value) in values.iter().enumerate() {
        let scaled = value / absmax[at / 64];
        let code = (packed[at / 2] >> (4 - at % 2 * 4) & 15) as usize;
        let distance = (QUANTILES[code] - scaled).abs();
        assert!(QUANTILES.iter().all(|other| (other - scaled).abs() >= distance - 1e-6));
    }
}

#[test]
fn equal_blocks_and_zeros_stay() {
    for values in [vec![0.0f32; 640], vec![0.25f32; 640], [vec![0.5f32; 64], vec![0.0; 64]].concat()] {
        let mut found = vec![f32::NAN; values.len()];
        Nf4::quantise(&values).dequantise(0, &mut found);
        for (found, value) in found.iter().zip(&values) {
            assert!((found - value).abs() <= 1e-2 * value.abs() + 2e-5, "{found} for {value}");
        }
    }
}

/// Three borderline values for which bitsandbytes does not take the nearest entry of the dynamic type.
#[test]
fn the_second_quantisation_goes_through_the_grid_of_bitsandbytes() {
    for (scaled, code) in [(0.676_555_04f32, 232), (-0.184_380_05, 58), (0.004_374_309, 149)] {
        let (codes, scales) = super::cpu::quantise_absmax(&[1.0, scaled], 0.0);
        assert_eq!((codes[1], scales[0]), (code, 1.0));
        let nearest = |code: u8| (dynamic_map()[code as usize] - scaled).abs();
        assert!(nearest(code - 1) < nearest(code));
    }
}
