use super::{Matrix, nn, nt, to_bf16};
use crate::gemm::{Mat, MatMut};
use crate::nf4::Nf4;
use crate::oracle::{assert_close, assert_deterministic, random};

fn unpacked(w: Matrix) -> Vec<f32> {
    let mut values = vec![f32::NAN; w.len()];
    w.read(0, &mut values);
    values
}

#[test]
fn products_are_those_of_the_unpacked_matrix() {
    for (m, n, k) in [(1, 5, 7), (3, 40, 64), (33, 700, 576), (200, 1100, 300), (150, 96, 2048)] {
        let values = random(n * k, 1);
        let halves: Vec<u16> = values.iter().map(|&value| to_bf16(value)).collect();
        let nf4 = Nf4::quantise(&values);
        for w in [Matrix::F32(&values), Matrix::Bf16(&halves), Matrix::Nf4(&nf4)] {
            let whole = unpacked(w);
            for beta in [0.0, 1.0] {
                let (a, start) = (random(m * k, 2), random(m * (n + 3), 3));
                let run = |w: Matrix| {
                    let mut c = start.clone();
                    nt(MatMut::strided(&mut c, m, n, n + 3), Mat::new(&a, m, k), w, beta);
                    c
                };
                assert_close("nt", &run(w), &run(Matrix::F32(&whole)), 1e-6);
                let (a, start) = (random(m * (n + 2), 4), random(m * k, 5));
                let run = |w: Matrix| {
                    let mut c = start.clone();
                    nn(MatMut::new(&mut c, m, k), Mat::strided(&a, m, n, n + 2), w, beta);
                    c
                };
                assert_close("nn", &run(w), &run(Matrix::F32(&whole)), 2e-6);
            }
        }
    }
}

#[test]
fn same_bits_every_time() {
    let (m, n, k) = (64, 900, 576);
    let (nf4, a) = (Nf4::quantise(&random(n * k, 1)), random(m * k, 2));
    assert_deterministic("nt", || {
        let mut c = vec![0.0; m * n];
        nt(MatMut::new(&mut c, m, n), Mat::new(&a, m, k), Matrix::Nf4(&nf4), 0.0);
        c
    });
}

#[test]
fn bf16_rounds_to_nearest_even() {
    let next = |bits: u16, by: u32| f32::from_bits((u32::from(bits) << 16) + by);
    assert_eq!(to_bf16(1.0), 0x3f80);
    assert_eq!(to_bf16(next(0x3f80, 0x7fff)), 0x3f80);
    assert_eq!(to_bf16(next(0x3f80, 0x8000)), 0x3f80, "a tie goes to the even one");
    assert_eq!(to_bf16(next(0x3f81, 0x8000)), 0x3f82);
    assert_eq!(to_bf16(next(0x3f80, 0x8001)), 0x3f81);
    assert_eq!(to_bf16(f32::INFINITY), 0x7f80);
    assert_eq!(to_bf16(f32::MAX), 0x7f80);
    let nan = unpacked(Matrix::Bf16(&[to_bf16(f32::NAN), to_bf16(f32::from_bits(0x7f80_0001))]));
    assert!(nan.iter().all(|value| value.is_nan()));
    let values = random(1000, 1);
    let halves: Vec<u16> = values.iter().map(|&value| to_bf16(value)).collect();
    for (found, value) in unpacked(Matrix::Bf16(&halves)).iter().zip(&values) {
        assert!((found - value).abs() <= value.abs() / 256.0);
    }
}
