use super::{Mat, MatMut, nn, nt, tn};
use crate::oracle::{assert_close, assert_deterministic, random, with_threads};
use crate::simd::LANES;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Orientation {
    Nt,
    Nn,
    Tn,
}
use Orientation::{Nn, Nt, Tn};

/// Plain triple loop in f64.
fn reference(
    o: Orientation,
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    alpha: f32,
    beta: f32,
) {
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k)
                .map(|p| {
                    let (a, b) = match o {
                        Nt => (a[i * k + p], b[j * k + p]),
                        Nn => (a[i * k + p], b[p * n + j]),
                        Tn => (a[p * m + i], b[p * n + j]),
                    };
                    f64::from(a) * f64::from(b)
                })
                .sum();
            let old = if beta == 0.0 { 0.0 } else { f64::from(beta) * f64::from(c[i * n + j]) };
            c[i * n + j] = (old + f64::from(alpha) * sum) as f32;
        }
    }
}

fn ours(o: Orientation, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32], alpha: f32, beta: f32) {
    let c = MatMut::new(c, m, n);
    match o {
        Nt => nt(c, Mat::new(a, m, k), Mat::new(b, n, k), alpha, beta),
        Nn => nn(c, Mat::new(a, m, k), Mat::new(b, k, n), alpha, beta),
        Tn => tn(c, Mat::new(a, k, m), Mat::new(b, k, n), alpha, beta),
    }
}

fn compare(o: Orientation, size: (usize, usize, usize), alpha: f32, beta: f32) {
    let (m, n, k) = size;
    let (a, b) = (random(m * k, 1), random(k * n, 2));
    let mut expected = random(m * n, 3);
    let mut actual = if beta == 0.0 { vec![f32::NAN; m * n] } else { expected.clone() };
    reference(o, size, &a, &b, &mut expected, alpha, beta);
    ours(o, size, &a, &b, &mut actual, alpha, beta);
    assert_close(&format!("{o:?} {size:?} alpha {alpha} beta {beta}"), &actual, &expected, 1e-5);
}

#[test]
fn agrees_with_a_triple_loop() {
    let sizes = [1, 2, 3, 5, 8, 17, 33, 65];
    for o in [Nt, Nn, Tn] {
        for m in sizes {
            for n in sizes {
                for k in [1, 2, 3, 16, 17, 65] {
                    compare(o, (m, n, k), 1.0, 0.0);
                }
            }
        }
        for size in [
            (1, 576, 576),
            (2, 300, 130),
            (4, 1001, 577),
            (5, 1001, 577),
            (130, 257, 400),
            (257, 129, 33),
            (128, 201, 1031),
            (131, 64, 1024),
        ] {
            for (alpha, beta) in [(1.0, 0.0), (0.5, 1.0), (-2.0, 0.25), (0.0, 1.0)] {
                compare(o, size, alpha, beta);
            }
        }
    }
}

#[test]
fn empty_sums_and_empty_matrices() {
    for o in [Nt, Nn, Tn] {
        let mut c = vec![f32::NAN; 6];
        ours(o, (2, 3, 0), &[], &[], &mut c, 1.0, 0.0);
        assert_eq!(c, [0.0; 6], "{o:?}");
        let mut c = vec![2.0; 6];
        ours(o, (2, 3, 0), &[], &[], &mut c, 1.0, 0.5);
        assert_eq!(c, [1.0; 6], "{o:?}");
        ours(o, (0, 3, 4), &[], &[0.0; 12], &mut [], 1.0, 0.0);
        ours(o, (3, 0, 4), &[0.0; 12], &[], &mut [], 1.0, 0.0);
    }
}

#[test]
fn strided_operands_leave_the_rest_alone() {
    for m in [1, 3, 40] {
        let (n, k) = (19, 21);
        let (a, b) = (random(m * 30, 1), random(n * 32, 2));
        let compact = |x: &[f32], stride: usize, cols: usize| -> Vec<f32> {
            x.chunks(stride).flat_map(|row| &row[..cols]).copied().collect()
        };
        let mut expected = vec![0.0; m * n];
        reference(Nt, (m, n, k), &compact(&a, 30, k), &compact(&b, 32, k), &mut expected, 1.0, 0.0);
        let mut c = vec![7.0; m * 25];
        nt(MatMut::strided(&mut c, m, n, 25), Mat::strided(&a, m, k, 30), Mat::strided(&b, n, k, 32), 1.0, 0.0);
        assert_close("strided", &compact(&c, 25, n), &expected, 1e-5);
        assert!(c.chunks(25).all(|row| row[n..].iter().all(|&x| x == 7.0)));
    }
}

#[test]
#[should_panic(expected = "nt: C [2, 3]")]
fn shapes_are_checked() {
    nt(MatMut::new(&mut [0.0; 6], 2, 3), Mat::new(&[0.0; 8], 2, 4), Mat::new(&[0.0; 15], 3, 5), 1.0, 0.0);
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for o in [Nt, Nn, Tn] {
        for size @ (m, n, k) in [(1, 3000, 577), (3, 3000, 577), (33, 900, 600), (200, 300, 400), (513, 577, 1100)] {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let run = || {
                let mut c = vec![0.0; m * n];
                ours(o, size, &a, &b, &mut c, 1.0, 0.0);
                c
            };
            assert_deterministic(&format!("{o:?} {size:?}"), run);
            let one = with_threads(1, run);
            assert!(one == with_threads(2, run) && one == with_threads(3, run), "{o:?} {size:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn tiles_agree_with_a_triple_loop(m in 1usize..40, lanes in 1usize..6, k in 1usize..70, transposed: bool, accumulate: bool) {
        let n = lanes * LANES;
        let (a, b) = (random(m * k, 4), random(k * n, 5));
        let mut expected = random(m * n, 6);
        let mut actual = expected.clone();
        let (o, strides) = if transposed { (Tn, (1, m)) } else { (Nn, (k, 1)) };
        reference(o, (m, n, k), &a, &b, &mut expected, 1.0, if accumulate { 1.0 } else { 0.0 });
        super::tile::product((m, n, k), (&a, strides.0, strides.1), (&b, n), (&mut actual, n), accumulate);
        assert_close("tile", &actual, &expected, 1e-5);
    }
}
