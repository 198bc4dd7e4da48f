use super::sum_of_squares;
use crate::oracle::{random, with_threads};

#[test]
fn agrees_with_a_plain_sum() {
    for len in [0, 1, 15, 17, 65_535, 65_536, 65_537, 300_001] {
        let x = random(len, 1);
        let expected: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let actual = sum_of_squares(&x);
        assert!((actual - expected).abs() <= 1e-12 * expected, "{len}: {actual} for {expected}");
    }
}

#[test]
fn one_bad_element_shows() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for index in [0, 70_000, 199_999] {
            let mut x = random(200_000, 2);
            x[index] = bad;
            assert!(!sum_of_squares(&x).is_finite());
        }
    }
    assert!(sum_of_squares(&[f32::MAX; 100]).is_finite(), "f64 holds the squares of every f32");
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let x = random(1_000_003, 3);
    let one = with_threads(1, || sum_of_squares(&x));
    assert_eq!(one.to_bits(), with_threads(2, || sum_of_squares(&x)).to_bits());
    assert_eq!(one.to_bits(), with_threads(3, || sum_of_squares(&x)).to_bits());
}
