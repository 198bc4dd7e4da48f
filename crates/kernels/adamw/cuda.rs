//! Launches of `kernel.cu`: every form of the weights with every form of the moments.
//!
//! | | f32 moments | bf16 moments | 8-bit moments |
//! |---|---|---|---|
//! | f32 weights and a bf16 copy, bf16 gradients | 16 bytes a parameter | 12 | 10 |
//! | bf16 weights and their rests, bf16 gradients | 14 | 10 | 8 |
//!
//! f32 and 8-bit moments have the bits of the CPU. bf16 moments are rounded by chance, which is a function of the seed and
//! of the place: the same bits every time, and right on average.

use super::cpu::Scalars;
use super::{BLOCK, Config};
use crate::cuda::{Argument, Arguments, Bf16, Element, Launch, Pointer, narrow};

const THREADS: u32 = 256;
/// Neighbours that a thread updates.
const RUN: usize = 8;
/// Blocks of threads at most, where blocks of moments take turns.
const MOST_BLOCKS: usize = 2048;

/// How weights are held.
#[derive(Clone, Copy, Debug)]
pub enum Weights {
    /// In f32, with a copy for the forward pass where it computes in bf16.
    Full { params: Pointer<f32>, copy: Option<Pointer<Bf16>> },
    /// As bf16 and what each lacks to the exact f32 ([`super::split`]).
    Split { weights: Pointer<Bf16>, rests: Pointer<i16> },
}

/// One moment in 8 bits, as [`super::Blocks`].
#[derive(Clone, Copy, Debug)]
pub struct Codes {
    pub codes: Pointer<u8>,
    pub scales: Pointer<f32>,
}

/// How moments are held.
#[derive(Clone, Copy, Debug)]
pub enum Moments {
    Full {
        m: Pointer<f32>,
        v: Pointer<f32>,
    },
    /// `seed` must be another one in every step.
    Bf16 {
        m: Pointer<Bf16>,
        v: Pointer<Bf16>,
        seed: u32,
    },
    /// `tables`: [`tables`], in device memory.
    Coded {
        m: Codes,
        v: Codes,
        tables: Pointer<f32>,
    },
}

/// The maps of 8-bit moments as the kernels take them.
pub fn tables() -> Vec<f32> {
    super::blocks::tables()
}

/// One update of `len` parameters. The gradients' factor is read from `grad_scale` `[1]` in device memory, where
/// [`norm`](crate::norm::cuda) puts it (`config.grad_scale` is not used); if it is not finite, nothing is changed.
pub fn step<G: Element>(
    weights: Weights,
    gradients: Pointer<G>,
    moments: Moments,
    len: usize,
    grad_scale: Pointer<f32>,
    config: &Config,
) -> Launch {
    assert!(config.step > 0, "steps count from 1");
    let held: [Argument; 2] = match weights {
        Weights::Full { params, copy } => [params.into(), copy.into()],
        Weights::Split { weights, rests } => [weights.into(), rests.into()],
    };
    let mut arguments: Arguments = held.into_iter().chain([gradients.into()]).collect();
    match moments {
        Moments::Full { m, v } => arguments.extend([Argument::from(m), v.into()]),
        Moments::Bf16 { m, v, seed } => arguments.extend([Argument::from(m), v.into(), seed.into()]),
        Moments::Coded { m, v, tables } => {
            arguments.extend([
                Argument::from(m.codes),
                m.scales.into(),
                v.codes.into(),
                v.scales.into(),
                tables.into(),
            ]);
        }
    }
    let aligned = arguments.iter().filter(|argument| argument.is_pointer()).all(|argument| argument.slot % 16 == 0);
    let s = Scalars::of(config);
    arguments.extend([Argument::from(len as u64), u32::from(aligned).into(), grad_scale.into()]);
    arguments.extend([s.decay, s.weight1, s.beta2, s.weight2, s.bias2_root, s.eps, s.step_size].map(Argument::from));

    let blocks = match moments {
        Moments::Coded { .. } => len.div_ceil(BLOCK * THREADS as usize / 32).min(MOST_BLOCKS),
        _ => len.div_ceil(RUN * THREADS as usize),
    };
    let kernel = match (weights, moments) {
        (Weights::Full { .. }, Moments::Full { .. }) => G::kernel("adamw_full_f32_f32", "adamw_full_f32_bf16"),
        (Weights::Full { .. }, Moments::Bf16 { .. }) => G::kernel("adamw_full_bf16_f32", "adamw_full_bf16_bf16"),
        (Weights::Full { .. }, Moments::Coded { .. }) => G::kernel("adamw_full_8bit_f32", "adamw_full_8bit_bf16"),
        (Weights::Split { .. }, Moments::Full { .. }) => G::kernel("adamw_split_f32_f32", "adamw_split_f32_bf16"),
        (Weights::Split { .. }, Moments::Bf16 { .. }) => G::kernel("adamw_split_bf16_f32", "adamw_split_bf16_bf16"),
        (Weights::Split { .. }, Moments::Coded { .. }) => G::kernel("adamw_split_8bit_f32", "adamw_split_8bit_bf16"),
    };
    Launch { kernel, grid: [narrow("blocks", blocks), 1, 1], block: THREADS, shared: 0, arguments }
}
