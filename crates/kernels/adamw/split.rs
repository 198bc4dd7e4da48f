//! A weight as two halves: a bf16, which the forward pass sees, and the 16 bits that it lacks to the exact f32.
//!
//! The bf16 is the nearest one (a tie goes away from zero, so that the rest always fits 16 bits); the rest is the signed
//! difference of the two bit patterns. Together they are the f32 to the last bit, NaN and infinity included.

use crate::parallel;

/// The exact f32 of a bf16 (as an f32 whose low half is 0) and its rest.
fn joined(rounded: f32, rest: i16) -> f32 {
    f32::from_bits(rounded.to_bits().wrapping_add_signed(i32::from(rest)))
}

/// The nearest bf16, as an f32, and what it lacks.
fn halves(exact: f32) -> (f32, i16) {
    let bits = exact.to_bits();
    let rounded = bits.wrapping_add(0x8000) & 0xffff_0000;
    (f32::from_bits(rounded), bits.wrapping_sub(rounded) as i16)
}

/// Turns bf16 values into the exact f32 ones, in place.
pub fn join(values: &mut [f32], rests: &[i16]) {
    assert_eq!(values.len(), rests.len(), "rests");
    let chunk = parallel::rows_per_task(values.len(), 1);
    parallel::run(values.chunks_mut(chunk).zip(rests.chunks(chunk)), |(values, rests)| {
        for (value, &rest) in values.iter_mut().zip(rests) {
            *value = joined(*value, rest);
        }
    });
}

/// The opposite of [`join`]: rounds to bf16 in place and keeps what that costs.
pub fn split(values: &mut [f32], rests: &mut [i16]) {
    assert_eq!(values.len(), rests.len(), "rests");
    let chunk = parallel::rows_per_task(values.len(), 1);
    parallel::run(values.chunks_mut(chunk).zip(rests.chunks_mut(chunk)), |(values, rests)| {
        for (value, rest) in values.iter_mut().zip(rests) {
            (*value, *rest) = halves(*value);
        }
    });
}

#[cfg(test)]
mod test {
    use super::{halves, join, joined, split};
    use crate::oracle::random;
    use proptest::prelude::*;

    proptest! {
        /// Every bit pattern there is: the pair is the weight.
        #[test]
        fn halves_make_the_whole(bits in any::<u32>()) {
            let (rounded, rest) = halves(f32::from_bits(bits));
            prop_assert_eq!(rounded.to_bits() & 0xffff, 0);
            prop_assert_eq!(joined(rounded, rest).to_bits(), bits);
        }

        /// No bf16 is nearer than the one taken.
        #[test]
        fn the_half_is_the_nearest(value in -1e30f32..1e30) {
            let rounded = halves(value).0;
            let distance = |bits: u32| (f64::from(f32::from_bits(bits)) - f64::from(value)).abs();
            let taken = rounded.to_bits();
            for other in [taken.wrapping_add(0x1_0000), taken.wrapping_sub(0x1_0000)] {
                let outside = !f32::from_bits(other).is_finite();
                prop_assert!(outside || distance(taken) <= distance(other), "{value} is not {rounded}");
            }
        }
    }

    #[test]
    fn ties_ends_and_specials() {
        // 1 + 2^-8 lies between 1 and 1 + 2^-7: away from zero, and the rest is the lowest i16.
        assert_eq!(halves(1.0 + 0.00390625), (1.0078125, i16::MIN));
        assert_eq!(halves(-1.0 - 0.00390625), (-1.0078125, i16::MIN));
        for value in [0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, f32::INFINITY, f32::NEG_INFINITY] {
            let (rounded, rest) = halves(value);
            assert_eq!(joined(rounded, rest).to_bits(), value.to_bits());
        }
    }

    #[test]
    fn slices_go_there_and_back() {
        let exact = random(100_003, 4);
        let (mut values, mut rests) = (exact.clone(), vec![0; exact.len()]);
        split(&mut values, &mut rests);
        assert!(values.iter().all(|value| value.to_bits() & 0xffff == 0) && values != exact);
        join(&mut values, &rests);
        assert_eq!(values, exact);
    }
}
