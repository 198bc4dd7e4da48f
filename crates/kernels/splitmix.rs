//! splitmix64 (Steele, Lea and Flood 2014): a generator without state, as a function of place.

/// What its counter grows by from one number to the next.
pub const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Its finaliser: 64 bits of a counter, thoroughly mixed.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The number after `state`, which moves on.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(GAMMA);
    mix(*state)
}

/// The state after that many numbers.
pub fn after(state: u64, numbers: usize) -> u64 {
    state.wrapping_add(GAMMA.wrapping_mul(numbers as u64))
}

#[cfg(test)]
mod test {
    use super::{after, next};

    #[test]
    fn gives_the_published_sequence() {
        // The first outputs of the authors' C code (prng.di.unimi.it) for the seed 1234567.
        let mut state = 1_234_567;
        let first: Vec<u64> = (0..3).map(|_| next(&mut state)).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert_eq!(next(&mut after(1_234_567, 2)), first[2]);
    }
}
