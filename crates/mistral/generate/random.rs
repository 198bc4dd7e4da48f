//! xoshiro256++ (Blackman and Vigna 2019), seeded by splitmix64 as its authors advise: small, fast, and the same on
//! every machine.

use zephyr_kernels::splitmix;

pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut mixer = seed;
        Random { state: std::array::from_fn(|_| splitmix::next(&mut mixer)) }
    }

    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let out = s0.wrapping_add(*s3).rotate_left(23).wrapping_add(*s0);
        let t = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= t;
        *s3 = s3.rotate_left(45);
        out
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn gives_the_published_sequence() {
        // First outputs of the authors' C code (prng.di.unimi.it) for the state 1, 2, 3, 4.
        let mut random = Random { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| random.next_u64()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn is_uniform() {
        let mut random = Random::new(7);
        let mut bins = [0u32; 10];
        for _ in 0..100_000 {
            bins[(random.uniform() * 10.0) as usize] += 1;
        }
        // Six standard deviations of a binomial count.
        assert!(bins.iter().all(|count| count.abs_diff(10_000) < 570), "{bins:?}");
    }
}
