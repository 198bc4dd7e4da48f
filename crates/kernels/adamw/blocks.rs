//! Moments in 8 bits: a code of a fixed map times the largest magnitude of its block (Dettmers et al. 2022, arXiv
//! 2110.02861; bitsandbytes' `AdamW8bit`).
//!
//! The map has seven decades, finer near 1: in decade 10^(i−6) there are 2^i (signed) or 2^(i+1) (unsigned) values, the
//! middles of equal parts of [0.1, 1]; and 0 and 1. First moments are signed, second ones are not. A block is 256
//! neighbours, so one large gradient costs the others of its block alone their digits.
//!
//! One thing is not as there: a second moment above 0 never becomes 0. It would leave `eps` alone under a first moment
//! that is not 0, and one weight would move by thousands of learning rates.

use std::sync::LazyLock;

use super::Config;
use super::cpu::{Scalars, update};
use crate::parallel;

/// Neighbours that share a scale.
pub const BLOCK: usize = 256;

/// bitsandbytes' `create_dynamic_map(signed)`, ascending.
fn dynamic_map(signed: bool) -> [f32; 256] {
    let mut values = vec![0.0, 1.0];
    for decade in 0..7 {
        let parts = if signed { 1 << decade } else { 2 << decade };
        let scale = 10f64.powi(decade - 6);
        for part in 0..parts {
            let edge = |at: i32| 0.1 + 0.9 * f64::from(at) / f64::from(parts);
            let value = (scale * (edge(part) + edge(part + 1)) / 2.0) as f32;
            values.push(value);
            if signed {
                values.push(-value);
            }
        }
    }
    values.sort_by(f32::total_cmp);
    values.try_into().expect("254 values of the decades, 0 and 1")
}

static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(dynamic_map(true)));
static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(dynamic_map(false)));

/// The 256 values and the 255 middles between them of the signed, then of the unsigned map, as the CUDA kernels take them.
pub(super) fn tables() -> Vec<f32> {
    [&*SIGNED, &*UNSIGNED].into_iter().flat_map(|map| map.values.into_iter().chain(map.middles)).collect()
}

/// A map and the middles between its values.
struct Map {
    values: [f32; 256],
    middles: [f32; 255],
}

impl Map {
    fn new(values: [f32; 256]) -> Self {
        Self { values, middles: std::array::from_fn(|at| f32::midpoint(values[at], values[at + 1])) }
    }

    /// Code of the nearest value; a middle goes down.
    fn code(&self, value: f32) -> u8 {
        self.middles.partition_point(|&middle| middle < value) as u8
    }
}

/// One moment of a run of parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocks {
    /// `[N]`
    pub codes: Vec<u8>,
    /// Largest magnitude of each block, `[⌈N / 256⌉]`.
    pub scales: Vec<f32>,
}

impl Blocks {
    /// Zeros; `signed` tells the map, and must be the same in every call.
    pub fn zeros(len: usize, signed: bool) -> Self {
        Self { codes: vec![map(signed).code(0.0); len], scales: vec![0.0; len.div_ceil(BLOCK)] }
    }

    /// The values.
    pub fn decode(&self, signed: bool) -> Vec<f32> {
        let values = &map(signed).values;
        self.codes.iter().enumerate().map(|(at, &code)| values[code as usize] * self.scales[at / BLOCK]).collect()
    }
}

fn map(signed: bool) -> &'static Map {
    if signed { &SIGNED } else { &UNSIGNED }
}

fn decode(codes: &[u8], scale: f32, map: &Map, out: &mut [f32]) {
    for (value, &code) in out.iter_mut().zip(codes) {
        *value = map.values[code as usize] * scale;
    }
}

/// `least`: the lowest code that a value above 0 may get.
fn encode(values: &[f32], map: &Map, least: u8, codes: &mut [u8]) -> f32 {
    let scale = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (code, value) in codes.iter_mut().zip(values) {
        *code = map.code(value * inverse).max(if *value > 0.0 { least } else { 0 });
    }
    scale
}

/// [`super::step`] with both moments in 8 bits: each block is decoded, updated in f32 and encoded again.
pub fn step_8bit(params: &mut [f32], grads: &[f32], m: &mut Blocks, v: &mut Blocks, config: &Config) {
    assert!(config.step > 0, "steps count from 1");
    assert_eq!(grads.len(), params.len(), "gradient elements");
    for moment in [&*m, &*v] {
        assert_eq!(moment.codes.len(), params.len(), "moment codes");
        assert_eq!(moment.scales.len(), params.len().div_ceil(BLOCK), "moment scales");
    }
    let scalars = Scalars::of(config);
    // Whole blocks to a task.
    let blocks = parallel::rows_per_task(params.len().div_ceil(BLOCK), BLOCK);
    let chunk = blocks * BLOCK;
    let tasks = params
        .chunks_mut(chunk)
        .zip(grads.chunks(chunk))
        .zip(m.codes.chunks_mut(chunk).zip(m.scales.chunks_mut(blocks)))
        .zip(v.codes.chunks_mut(chunk).zip(v.scales.chunks_mut(blocks)));
    parallel::run(tasks, |(((params, grads), (m_codes, m_scales)), (v_codes, v_scales))| {
        let (mut first, mut second) = ([0.0; BLOCK], [0.0; BLOCK]);
        let blocks = params.chunks_mut(BLOCK).zip(grads.chunks(BLOCK));
        let moments = m_codes.chunks_mut(BLOCK).zip(m_scales).zip(v_codes.chunks_mut(BLOCK).zip(v_scales));
        for ((params, grads), ((m_codes, m_scale), (v_codes, v_scale))) in blocks.zip(moments) {
            let (first, second) = (&mut first[..params.len()], &mut second[..params.len()]);
            decode(m_codes, *m_scale, &SIGNED, first);
            decode(v_codes, *v_scale, &UNSIGNED, second);
            update(params, grads, first, second, scalars);
            *m_scale = encode(first, &SIGNED, 0, m_codes);
            *v_scale = encode(second, &UNSIGNED, 1, v_codes);
        }
    });
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::adamw::step;
    use crate::oracle::{assert_close, assert_deterministic, random};
    use proptest::prelude::*;

    const CONFIG: Config =
        Config { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };

    /// Values of bitsandbytes 0.4x `create_dynamic_map`, by its formula: the middles of the first and the last decade.
    #[test]
    fn the_maps_are_those_of_bitsandbytes() {
        let (signed, unsigned) = (dynamic_map(true), dynamic_map(false));
        assert!(signed.windows(2).all(|pair| pair[0] < pair[1]) && unsigned.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((signed[127], signed[255], unsigned[0], unsigned[255]), (0.0, 1.0, 0.0, 1.0));
        // Smallest: (0.1 + 1)/2 · 1e-6, and of two parts (0.1 + 0.55)/2 · 1e-6.
        assert_close("signed", &[signed[128], -signed[126]], &[5.5e-7; 2], 1e-6);
        assert_close("unsigned", &[unsigned[1], unsigned[2]], &[3.25e-7, 7.75e-7], 1e-6);
        // Largest: 1 − 0.9/64/2 and 1 − 0.9/128/2; the mirror of the former at the other end.
        assert_close(
            "ends",
            &[signed[254], unsigned[254], -signed[0]],
            &[1.0 - 0.9 / 128.0, 1.0 - 0.9 / 256.0, 1.0 - 0.9 / 128.0],
            1e-6,
        );
    }

    proptest! {
        #[test]
        fn codes_are_the_nearest(value in -1.0f32..1.0) {
            for (map, value) in [(&*SIGNED, value), (&*UNSIGNED, value.abs())] {
                let taken = (map.values[map.code(value) as usize] - value).abs();
                prop_assert!(map.values.iter().all(|other| taken <= (other - value).abs() + 1e-9));
            }
        }
    }

    #[test]
    fn every_value_of_a_map_is_its_own_code() {
        for signed in [true, false] {
            for (code, &value) in map(signed).values.iter().enumerate() {
                assert_eq!(map(signed).code(value), code as u8);
            }
        }
    }

    /// The moments stay within the coarseness of the map; what is far from 0 is updated as with f32.
    #[test]
    fn stays_close_to_f32() {
        let len = 3 * BLOCK + 17;
        let start = random(len, 1);
        let (mut p, mut m, mut v) = (start.clone(), vec![0.0; len], vec![0.0; len]);
        let (mut p8, mut m8, mut v8) = (start.clone(), Blocks::zeros(len, true), Blocks::zeros(len, false));
        for number in 1..=20 {
            let g: Vec<f32> =
                random(len, 300 + number).iter().zip(&start).map(|(noise, start)| start + 0.1 * noise).collect();
            let config = Config { step: number, ..CONFIG };
            step(&mut p, &g, &mut m, &mut v, &config);
            step_8bit(&mut p8, &g, &mut m8, &mut v8, &config);
        }
        let moved = |p: &[f32]| p.iter().zip(&start).map(|(p, start)| p - start).collect::<Vec<f32>>();
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let (full, coded) = (moved(&p), moved(&p8));
        let apart: Vec<f32> = full.iter().zip(&coded).map(|(a, b)| a - b).collect();
        assert!(norm(&apart) < 0.05 * norm(&full), "{} of {}", norm(&apart), norm(&full));
        assert!(norm(&apart) > 0.0, "8 bits are not 32");
        assert!(v8.decode(false).iter().all(|&value| value >= 0.0));
    }

    /// One parameter has a gradient once, far below the others of its block: its weight must not run away.
    #[test]
    fn a_small_second_moment_does_not_vanish() {
        let len = BLOCK;
        let (mut p, mut m, mut v) = (vec![0.0; len], Blocks::zeros(len, true), Blocks::zeros(len, false));
        for step in 1..=3 {
            let mut g = vec![1.0; len];
            g[7] = if step == 1 { 1e-4 } else { 0.0 };
            step_8bit(&mut p, &g, &mut m, &mut v, &Config { step, weight_decay: 0.0, ..CONFIG });
        }
        assert!(v.decode(false)[7] > 0.0 && p[7].abs() <= 3.0 * CONFIG.lr as f32, "{}", p[7]);
    }

    #[test]
    fn a_first_step_is_that_of_f32() {
        // Moments are only encoded after the update.
        let (mut p, mut q) = (random(600, 5), random(600, 5));
        let g = random(600, 6);
        step(&mut p, &g, &mut [0.0; 600], &mut [0.0; 600], &CONFIG);
        step_8bit(&mut q, &g, &mut Blocks::zeros(600, true), &mut Blocks::zeros(600, false), &CONFIG);
        assert_eq!(p, q);
    }

    #[test]
    fn same_bits_every_time() {
        let (p, g) = (random(100_001, 1), random(100_001, 2));
        assert_deterministic("adamw 8-bit", || {
            let (mut p, mut m, mut v) = (p.clone(), Blocks::zeros(p.len(), true), Blocks::zeros(p.len(), false));
            for step in 1..=3 {
                step_8bit(&mut p, &g, &mut m, &mut v, &Config { step, ..CONFIG });
            }
            p.extend(m.decode(true));
            p.extend(v.scales);
            p
        });
    }
}
