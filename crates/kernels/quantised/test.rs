use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use half::f16;
use proptest::prelude::*;
use std::borrow::Cow;
use std::convert::Infallible;

use super::activations::Activations;
use super::cpu::plain;
use super::exact::Exact;
use super::{Kind, Quantised, exact_nt, nt};
use crate::gemm::{Mat, MatMut};
use crate::oracle::{assert_close, assert_deterministic, elements, random};

pub(super) fn dtype(kind: Kind) -> GgmlDType {
    match kind {
        Kind::Q4_0 => GgmlDType::Q4_0,
        Kind::Q4_1 => GgmlDType::Q4_1,
        Kind::Q5_0 => GgmlDType::Q5_0,
        Kind::Q5_1 => GgmlDType::Q5_1,
        Kind::Q8_0 => GgmlDType::Q8_0,
        Kind::Q4_K => GgmlDType::Q4K,
        Kind::Q5_K => GgmlDType::Q5K,
        Kind::Q6_K => GgmlDType::Q6K,
    }
}

/// Random blocks: every bit pattern of the codes and factors occurs, the scales are of both signs, or 0, or subnormal.
pub(super) fn random_bytes(kind: Kind, values: usize, seed: u64) -> Vec<u8> {
    let blocks = values / kind.block_len();
    let noise = random(blocks * (kind.block_bytes() + 2), seed);
    let (codes, scales) = noise.split_at(blocks * kind.block_bytes());
    let mut bytes: Vec<u8> = codes.iter().map(|value| ((value + 1.0) * 128.0) as u8).collect();
    for (block, (bytes, scales)) in bytes.chunks_exact_mut(kind.block_bytes()).zip(scales.chunks_exact(2)).enumerate() {
        let scale = match block % 19 {
            7 => 0.0,
            11 => 3e-7,
            _ => scales[0] * 0.01,
        };
        let at = if kind == Kind::Q6_K { 208 } else { 0 };
        bytes[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        if matches!(kind, Kind::Q4_1 | Kind::Q5_1 | Kind::Q4_K | Kind::Q5_K) {
            bytes[2..4].copy_from_slice(&f16::from_f32(scales[1] * 0.02).to_le_bytes());
        }
    }
    bytes
}

fn packed(kind: Kind, rows: usize, columns: usize, bytes: &[u8]) -> Quantised {
    let row = kind.row_bytes(columns);
    let read = |first: usize, out: &mut [u8]| {
        out.copy_from_slice(&bytes[first * row..][..out.len()]);
        Ok::<(), Infallible>(())
    };
    Quantised::pack(kind, rows, columns, read).unwrap_or_else(|never| match never {})
}

/// The values by candle.
pub(super) fn dequantised(kind: Kind, values: usize, bytes: &[u8]) -> Vec<f32> {
    // candle reinterprets the bytes as blocks and asserts their alignment.
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    // SAFETY: the words have at least as many bytes.
    let aligned = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), bytes.len()) };
    aligned.copy_from_slice(bytes);
    let storage = QStorage::from_data(Cow::Borrowed(&*aligned), &Device::Cpu, dtype(kind)).unwrap();
    elements(&QTensor::new(storage, values).unwrap().dequantize(&Device::Cpu).unwrap())
}

#[test]
fn values_are_those_of_candle_bit_for_bit() {
    for kind in Kind::ALL {
        for (rows, blocks) in [(1, 1), (16, 2), (37, 3)] {
            let columns = blocks * kind.block_len();
            let bytes = random_bytes(kind, rows * columns, 1);
            let matrix = packed(kind, rows, columns, &bytes);
            let expected = dequantised(kind, rows * columns, &bytes);
            let mut found = vec![f32::NAN; rows * columns];
            matrix.read(0, &mut found);
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(found.to_bits() == expected.to_bits(), "{kind:?} [{index}]: {found} for {expected}");
            }
            let part = 5..rows * columns - 3;
            let mut found = vec![f32::NAN; part.len()];
            matrix.read(part.start, &mut found);
            assert_eq!(found, expected[part]);
        }
    }
}

/// The products, which differ in what they round.
const WAYS: [Product; 2] = [nt, exact_nt];

type Product = fn(MatMut, Mat, &[&Quantised], f32);

/// What rounding the activations to 16 bits may move a product by, and some roundings of f32.
fn bound(x: &[f32], w: &[f32], step: f64) -> f64 {
    let mut bound = 0.0;
    for (x, w) in x.chunks(32).zip(w.chunks(32)) {
        let most = x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        for (x, w) in x.iter().zip(w) {
            bound += f64::from(w.abs()) * (step * f64::from(most) + f64::from(2e-6 * x.abs()));
        }
    }
    bound + 1e-30
}

fn check(kind: Kind, tokens: usize, sizes: &[usize], columns: usize, seed: u64) {
    let rows: usize = sizes.iter().sum();
    let bytes = random_bytes(kind, rows * columns, seed);
    let w = dequantised(kind, rows * columns, &bytes);
    let mut parts = Vec::new();
    let mut rest = &bytes[..];
    for &size in sizes {
        let (mine, others) = rest.split_at(size * kind.row_bytes(columns));
        parts.push(packed(kind, size, columns, mine));
        rest = others;
    }
    let parts: Vec<&Quantised> = parts.iter().collect();
    let mut x = random(tokens * (columns + 1), seed + 1);
    // An outlier, as real activations have them, and a run of zeros.
    x[3] = 70.0;
    x[columns - 32..columns].fill(0.0);
    let start = random(tokens * (rows + 2), seed + 2);
    // Half a step of 16 bits, and nothing.
    for ((nt, step), beta) in WAYS.into_iter().zip([0.501 / 32767.0, 0.0]).flat_map(|way| [(way, 0.0), (way, 0.5)]) {
        let mut y = start.clone();
        let x_matrix = Mat::strided(&x, tokens, columns, columns + 1);
        nt(MatMut::strided(&mut y, tokens, rows, rows + 2), x_matrix, &parts, beta);
        for token in 0..tokens {
            let x = &x[token * (columns + 1)..][..columns];
            for row in 0..rows + 2 {
                let (found, old) = (y[token * (rows + 2) + row], start[token * (rows + 2) + row]);
                if row >= rows {
                    assert_eq!(found, old, "what lies between the rows of C is not touched");
                    continue;
                }
                let w = &w[row * columns..][..columns];
                let dot: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let expected = dot + f64::from(beta * old);
                let off = (f64::from(found) - expected).abs();
                let bound = bound(x, w, step) + 1e-6 * expected.abs();
                assert!(off <= bound, "{kind:?}, {tokens} tokens, row {row}: {found} for {expected}, bound {bound:e}");
            }
        }
    }
}

#[test]
fn products_are_those_of_the_values() {
    for kind in Kind::ALL {
        let block = kind.block_len();
        for tokens in [1, 2, 3, 5, 6, 7, 13, 40] {
            check(kind, tokens, &[48, 16, 7], 3 * block, 1);
        }
        // More columns than a panel has, and more rows.
        check(kind, 7, &[150], 512 + block, 2);
        check(kind, 1, &[150], 512 + block, 3);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_sizes(kind in 0..8usize, tokens in 1..20usize, rows in 1..70usize, more in 0..40usize, blocks in 1..7usize) {
        let kind = Kind::ALL[kind];
        let sizes = if more == 0 { vec![rows] } else { vec![rows, more] };
        check(kind, tokens, &sizes, blocks * kind.block_len(), (rows * 7 + more) as u64);
    }
}

#[test]
fn same_bits_every_time_and_for_every_number_of_tokens() {
    for (kind, nt) in Kind::ALL.into_iter().flat_map(|kind| WAYS.map(|nt| (kind, nt))) {
        let (tokens, rows, columns) = (14, 200, 768);
        let matrix = packed(kind, rows, columns, &random_bytes(kind, rows * columns, 1));
        let x = random(tokens * columns, 2);
        let run = |first: usize, tokens: usize| {
            let mut y = vec![0.0; tokens * rows];
            let x = Mat::new(&x[first * columns..][..tokens * columns], tokens, columns);
            nt(MatMut::new(&mut y, tokens, rows), x, &[&matrix], 0.0);
            y
        };
        assert_deterministic("nt", || run(0, tokens));
        let all = run(0, tokens);
        for (first, count) in [(0, 1), (5, 1), (2, 3), (6, 8)] {
            assert_eq!(run(first, count), all[first * rows..][..count * rows], "{kind:?}, {count} tokens");
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let kind = Kind::Q4_1;
    let matrix = packed(kind, 20, 64, &random_bytes(kind, 20 * 64, 1));
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for (wrong, nt) in values.into_iter().flat_map(|wrong| WAYS.map(|nt| (wrong, nt))) {
        let mut x = random(2 * 64, 2);
        x[64 + 40] = wrong;
        let mut y = vec![0.0; 40];
        nt(MatMut::new(&mut y, 2, 20), Mat::new(&x, 2, 64), &[&matrix], 0.0);
        assert!(y[..20].iter().all(|y| y.is_finite()), "{wrong} of one token in another");
        assert!(y[20..].iter().all(|y| !y.is_finite()), "{wrong} is lost");
    }
}

#[test]
fn tiny_and_huge_activations_do_not_overflow() {
    for scale in [1e-44f32, 1e-39, 1e-20, 1e20, 3e38] {
        let x: Vec<f32> = random(64, 1).iter().map(|x| x * scale).collect();
        let mut activations = Activations::default();
        activations.round(Mat::new(&x, 1, 64), &[1]);
        let data = activations.tile(activations.tiles[0], 0);
        for (index, x) in x.iter().enumerate() {
            // SAFETY: a tile of one token and 64 columns.
            let (code, step) = unsafe { (*data.codes.add(index), *data.steps.add(index / 32)) };
            let off = (f64::from(code) * f64::from(step) - f64::from(*x)).abs();
            assert!(off <= 1e-38 + f64::from(scale) * 2e-5, "{x} became {code} · {step}");
        }
    }
}

/// Blocks that candle has quantised: our reading of the layout does not rest on our own writing of it.
#[test]
fn blocks_that_candle_writes() {
    let (rows, columns) = (24, 512);
    let values = random(rows * columns, 1);
    let tensor = Tensor::from_slice(&values, (rows, columns), &Device::Cpu).unwrap();
    for kind in Kind::ALL {
        let quantised = QTensor::quantize(&tensor, dtype(kind)).unwrap();
        let bytes = quantised.data().unwrap();
        let mut found = vec![0.0; rows * columns];
        packed(kind, rows, columns, &bytes).read(0, &mut found);
        assert_eq!(found, elements(&quantised.dequantize(&Device::Cpu).unwrap()), "{kind:?}");
        let off = found.iter().zip(&values).map(|(found, value)| (found - value).abs()).fold(0.0, f32::max);
        assert!(off < 0.15, "{kind:?}: off by {off}");
    }
}

/// The lanes of processors without pair products of ours, which these tests would not run otherwise.
#[test]
fn plain_lanes_give_the_same() {
    let plain: [fn(MatMut, Mat, &Quantised); 2] = [plain::<Activations>, plain::<Exact>];
    let ways = WAYS.into_iter().zip(plain);
    for (kind, (nt, plain)) in ways.flat_map(|way| Kind::ALL.map(|kind| (kind, way))) {
        let (tokens, rows, columns) = (9, 40, 768);
        let matrix = packed(kind, rows, columns, &random_bytes(kind, rows * columns, 1));
        let x = random(tokens * columns, 2);
        let (mut expected, mut found) = (vec![0.0; tokens * rows], vec![0.0; tokens * rows]);
        nt(MatMut::new(&mut expected, tokens, rows), Mat::new(&x, tokens, columns), &[&matrix], 0.0);
        plain(MatMut::new(&mut found, tokens, rows), Mat::new(&x, tokens, columns), &matrix);
        assert_close(&format!("{kind:?}"), &found, &expected, 1e-6);
    }
}
