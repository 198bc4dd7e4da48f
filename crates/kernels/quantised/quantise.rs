//! Values rounded into blocks, by the rules of ggml's reference (`quantize_row_*_ref` in `ggml-quants.c`).
//!
//! The types without K scale by the largest magnitude (or the span) of a block, and give the reference's bytes. The K types
//! search: for each run, scale (and minimum) of the least weighted error over some neighbouring scales, large values weighing
//! more; the factors of the runs are then rounded against the block's own scale, and the codes chosen again for what is left.

use half::f16;

use super::Kind;
use super::blocks::{Block, LONGEST};

/// Below it a run counts as zero (ggml's GROUP_MAX_EPS).
const ZERO: f32 = 1e-15;

/// Above it no type has a scale, and the searches would overflow.
const MOST: f32 = 1e9;

impl Kind {
    /// Rounds whole blocks of values into their bytes, as they stand in a file.
    ///
    /// # Errors
    /// A value that is not finite, or too large for the half-precision scale of its block.
    ///
    /// # Panics
    /// If `bytes` is not as long as the blocks of `values`.
    pub fn quantise(self, values: &[f32], bytes: &mut [u8]) -> Result<(), f32> {
        assert!(values.len().is_multiple_of(self.block_len()), "{} values are not whole blocks", values.len());
        assert_eq!(bytes.len(), self.row_bytes(values.len()), "bytes of the blocks");
        let mut block = Block::default();
        let blocks = values.chunks_exact(self.block_len()).zip(bytes.chunks_exact_mut(self.block_bytes()));
        for (values, bytes) in blocks {
            if let Some(value) = values.iter().find(|value| value.is_nan() || value.abs() > MOST) {
                return Err(*value);
            }
            block.quantise(self, values);
            let half = |bits| f16::from_bits(bits).is_finite();
            if !half(block.scale) || !half(block.min) {
                return Err(values
                    .iter()
                    .fold(0.0, |large, value| if value.abs() > large { value.abs() } else { large }));
            }
            block.write(self, bytes);
        }
        Ok(())
    }
}

impl Block {
    /// The block nearest to the values.
    fn quantise(&mut self, kind: Kind, values: &[f32]) {
        self.min = 0;
        match kind {
            Kind::Q4_0 => {
                let inverse = self.symmetric(values, 8);
                self.each(values, |value| (value * inverse + 8.5) as u8);
                self.codes[..32].iter_mut().for_each(|code| *code = (*code).min(15) ^ 8);
            }
            Kind::Q5_0 => {
                let inverse = self.symmetric(values, 16);
                self.each(values, |value| ((value * inverse + 16.5) as u8).min(31));
            }
            Kind::Q4_1 => self.between(values, 15),
            Kind::Q5_1 => self.between(values, 31),
            Kind::Q8_0 => {
                let scale = largest(values).abs() / 127.0;
                self.scale = bits(scale);
                let inverse = reciprocal(scale);
                self.each(values, |value| (value * inverse).round() as i8 as u8);
            }
            Kind::Q4_K => self.runs(values, Search { most: 15, first: -1.0, steps: 20 }),
            Kind::Q5_K => self.runs(values, Search { most: 31, first: -0.5, steps: 15 }),
            Kind::Q6_K => self.signed_runs(values),
        }
    }

    fn each(&mut self, values: &[f32], code: impl Fn(f32) -> u8) {
        for (place, value) in self.codes.iter_mut().zip(values) {
            *place = code(*value);
        }
    }

    /// Codes from −half to half − 1: the largest magnitude gets −half. Returns what values are multiplied by.
    fn symmetric(&mut self, values: &[f32], half: i8) -> f32 {
        let scale = largest(values) / -f32::from(half);
        self.scale = bits(scale);
        reciprocal(scale)
    }

    /// Codes from 0 to `most` between the least and the largest value.
    fn between(&mut self, values: &[f32], most: u8) {
        let (least, largest) = span(values);
        let scale = (largest - least) / f32::from(most);
        (self.scale, self.min) = (bits(scale), bits(least));
        let inverse = reciprocal(scale);
        self.each(values, |value| (((value - least) * inverse + 0.5) as u8).min(most));
    }

    /// Q4_K and Q5_K: eight runs of 32 with factors of six bits on a scale and on a minimum.
    fn runs(&mut self, values: &[f32], search: Search) {
        let mut found = [(0.0f32, 0.0f32); 8];
        for (found, run) in found.iter_mut().zip(values.chunks_exact(32)) {
            *found = search.scale_and_min(run);
        }
        let top = found.iter().fold((0.0f32, 0.0f32), |top, run| (top.0.max(run.0), top.1.max(run.1)));
        (self.scale, self.min) = (bits(top.0 / 63.0), bits(top.1 / 63.0));
        let factor = |value: f32, top: f32| nearest(if top > 0.0 { 63.0 / top * value } else { 0.0 }).min(63) as u8;
        let (scale, min) = (f16::from_bits(self.scale).to_f32(), f16::from_bits(self.min).to_f32());
        for (run, values) in values.chunks_exact(32).enumerate() {
            (self.scales[run], self.mins[run]) = (factor(found[run].0, top.0), factor(found[run].1, top.1));
            let (scale, min) = (scale * f32::from(self.scales[run]), min * f32::from(self.mins[run]));
            for (code, value) in self.codes[32 * run..].iter_mut().zip(values) {
                let exact = if scale == 0.0 { 0.0 } else { (value + min) / scale };
                *code = nearest(exact).clamp(0, i32::from(search.most)) as u8;
            }
        }
    }

    /// Q6_K: sixteen runs of 16 with signed factors of eight bits on one scale.
    fn signed_runs(&mut self, values: &[f32]) {
        let mut found = [0.0; 16];
        for (found, run) in found.iter_mut().zip(values.chunks_exact(16)) {
            *found = signed_scale(run, 32);
        }
        let top = largest(&found);
        if top.abs() < ZERO {
            (self.scale, self.scales, self.codes) = (0, [0; 16], [0; LONGEST]);
            return;
        }
        let inverse = -128.0 / top;
        self.scale = bits(1.0 / inverse);
        let scale = f16::from_bits(self.scale).to_f32();
        for (run, values) in values.chunks_exact(16).enumerate() {
            let factor = nearest(inverse * found[run]).min(127) as i8;
            self.scales[run] = factor as u8;
            let scale = scale * f32::from(factor);
            for (code, value) in self.codes[16 * run..].iter_mut().zip(values) {
                let exact = if scale == 0.0 { 0.0 } else { value / scale };
                *code = (nearest(exact).clamp(-32, 31) + 32) as u8;
            }
        }
    }
}

/// How scale and minimum of a run are looked for: codes from 0 to `most`, and `steps` + 1 scales in which the span has
/// `most` + `first` + 0.1·step codes.
#[derive(Clone, Copy)]
struct Search {
    most: u8,
    first: f32,
    steps: u8,
}

impl Search {
    /// Scale and (negated) minimum of the least error, each value weighing as its magnitude and the run's mean square root.
    fn scale_and_min(self, values: &[f32]) -> (f32, f32) {
        let most = f32::from(self.most);
        let mean = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
        let weighted = || values.iter().map(|value| (*value, mean + value.abs()));
        let (least, largest) = span(values);
        let least = least.min(0.0);
        if largest <= least {
            return (0.0, -least);
        }
        let code = |value: f32, inverse: f32| nearest(inverse * (value - least)).clamp(0, i32::from(self.most)) as f32;
        let error = |inverse: f32, scale: f32, min: f32| -> f32 {
            weighted().map(|(value, weight)| weight * (scale * code(value, inverse) + min - value).powi(2)).sum()
        };
        let (sum_w, sum_x) = weighted().fold((0.0, 0.0), |(w, x), (value, weight)| (w + weight, x + weight * value));
        let inverse = most / (largest - least);
        let mut best = (1.0 / inverse, least);
        let mut best_error = error(inverse, best.0, best.1);
        for step in 0..=self.steps {
            let inverse = (self.first + 0.1 * f32::from(step) + most) / (largest - least);
            let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
            for (value, weight) in weighted() {
                let code = code(value, inverse);
                sum_l += weight * code;
                sum_l2 += weight * code * code;
                sum_xl += weight * code * value;
            }
            // The least squares of these codes.
            let determinant = sum_w * sum_l2 - sum_l * sum_l;
            if determinant <= 0.0 {
                continue;
            }
            let mut scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if min > 0.0 {
                (scale, min) = (sum_xl / sum_l2, 0.0);
            }
            let error = error(inverse, scale, min);
            if error < best_error {
                (best, best_error) = ((scale, min), error);
            }
        }
        (best.0, -best.1)
    }
}

/// The scale of the least error for codes from −half to half − 1, each value weighing as its square.
fn signed_scale(values: &[f32], half: i32) -> f32 {
    let largest = largest(values);
    if largest.abs() < ZERO {
        return 0.0;
    }
    // Of the codes that a scale gives: Σ w·x·l and Σ w·l², whose quotient is the best scale for them.
    let sums = |inverse: f32| {
        values.iter().fold((0.0f32, 0.0f32), |(products, squares), value| {
            let code = nearest(inverse * value).clamp(-half, half - 1) as f32;
            let weight = value * value;
            (products + weight * value * code, squares + weight * code * code)
        })
    };
    let (products, squares) = sums(-(half as f32) / largest);
    let mut scale = if squares == 0.0 { 0.0 } else { products / squares };
    let mut best = scale * products;
    for step in (-9i8..=9).filter(|step| *step != 0) {
        let (products, squares) = sums(-(half as f32 + 0.1 * f32::from(step)) / largest);
        if squares > 0.0 && products * products > best * squares {
            scale = products / squares;
            best = scale * products;
        }
    }
    scale
}

/// The value of the largest magnitude, the first of several.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |large: f32, value| if value.abs() > large.abs() { *value } else { large })
}

fn span(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, -f32::MAX), |(least, large), value| (least.min(*value), large.max(*value)))
}

fn bits(value: f32) -> u16 {
    f16::from_f32(value).to_bits()
}

fn reciprocal(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn nearest(value: f32) -> i32 {
    value.round_ties_even() as i32
}

#[cfg(test)]
mod test;
