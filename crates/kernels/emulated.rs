//! `npm run test:cuda-emulated`: the CUDA kernels against their CPU twins, without a GPU.
//!
//! An op's proof is a function that runs its kernels on an emulated device and compares. It must hold under two schedules
//! with the same bits (`prove`), and it must fail for sources with a mistake put into them (`catches`). With the feature
//! `card` the same proofs run on a real one (bench/gpu).

#[path = "adamw/emulated.rs"]
mod adamw;
#[path = "attention/emulated.rs"]
mod attention;
#[path = "cast/emulated.rs"]
mod cast;
#[path = "dropout/emulated.rs"]
mod dropout;
#[path = "embedding/emulated.rs"]
mod embedding;
#[cfg(not(feature = "card"))]
#[path = "cuda/emulated.rs"]
mod emulation;
#[cfg(feature = "card")]
#[path = "cuda/on_card.rs"]
mod emulator;
#[path = "gemm/emulated.rs"]
mod gemm;
#[path = "head/emulated.rs"]
mod head;
#[cfg(not(feature = "card"))]
#[path = "cuda/hopper_emulated.rs"]
mod hopper;
#[path = "nf4/emulated.rs"]
mod nf4;
#[path = "noise/emulated.rs"]
mod noise;
#[path = "norm/emulated.rs"]
mod norm;
#[allow(dead_code)]
#[path = "oracle.rs"]
mod oracle;
#[path = "rms_norm/emulated.rs"]
mod rms_norm;
#[path = "rope/emulated.rs"]
mod rope;
#[path = "swiglu/emulated.rs"]
mod swiglu;

use emulator::Device;
#[cfg(not(feature = "card"))]
use zephyr_emulator as emulator;
use zephyr_kernels::cuda::{Bf16, Element};

/// The type of a test's tensors, and how far its results may lie from those of the CPU.
trait Tested: Element {
    /// Half a unit in the last place, relative.
    const ROUNDING: f64;
}

impl Tested for f32 {
    const ROUNDING: f64 = 0.0;
}

impl Tested for Bf16 {
    const ROUNDING: f64 = 1.0 / 256.0;
}

/// Reproducible values in (−1, 1) times `size`, and the same as the f32 that they are: what the CPU twin is fed.
fn random<T: Tested>(len: usize, seed: u64, size: f32) -> (Vec<T>, Vec<f32>) {
    let values: Vec<T> = oracle::random(len, seed).iter().map(|value| T::from_f32(value * size)).collect();
    let widened = widen(&values);
    (values, widened)
}

fn widen<T: Tested>(values: &[T]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

/// Each element within its type's rounding of the expected one, and `tolerance` of it plus the root mean square of all.
fn close<T: Tested>(what: &str, actual: &[T], expected: &[f32], tolerance: f64) -> Result<(), String> {
    if actual.len() != expected.len() {
        return Err(format!("{what}: {} elements where {} are expected", actual.len(), expected.len()));
    }
    let squares: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
    let scale = (squares / expected.len().max(1) as f64).sqrt();
    for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let (a, e) = (f64::from(a.to_f32()), f64::from(e));
        let bound = T::ROUNDING * e.abs() + tolerance * (e.abs() + scale) + 1e-30;
        let difference = (a - e).abs();
        if difference.is_nan() || difference > bound {
            return Err(format!("{what}[{index}] is {a} where {e} is expected (off by {difference:e} > {bound:e})"));
        }
    }
    Ok(())
}

/// The last launch read and wrote so many bytes of global memory, `wide` of them by accesses of 16 bytes.
fn moves(device: &Device, read: usize, written: usize, wide: Option<usize>) -> Result<(), String> {
    if cfg!(feature = "card") {
        return Ok(());
    }
    let moved = device.statistics();
    let as_told = (moved.global_read, moved.global_written) == (read as u64, written as u64)
        && wide.is_none_or(|wide| moved.global_wide == wide as u64);
    if as_told { Ok(()) } else { Err(format!("{moved:?} where {read} + {written}, wide {wide:?}, are expected")) }
}

/// The very bits.
fn same(what: &str, actual: &[f32], expected: &[f32]) -> Result<(), String> {
    let differs = |(_, (a, e)): &(usize, (&f32, &f32))| a.to_bits() != e.to_bits();
    match actual.iter().zip(expected).enumerate().find(differs) {
        Some((index, (a, e))) => Err(format!("{what}[{index}] is {a:e} and not exactly {e:e}")),
        None if actual.len() != expected.len() => Err(format!("{what}: {} elements", actual.len())),
        None => Ok(()),
    }
}
