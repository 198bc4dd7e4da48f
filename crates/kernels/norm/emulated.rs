use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, moves, random};
use zephyr_kernels::cuda::{Bf16, Launch};
use zephyr_kernels::norm::{cuda, sum_of_squares};

const SOURCE: &str = "norm/kernel.cu";

/// Factor and norm of `x` scaled by `scale` and clipped to `most`, beside PyTorch's.
fn clipped<T: Tested>(device: &Device, x: &[T], x32: &[f32], scale: f32, most: Option<f32>) -> Result<(), String> {
    let count = cuda::share_count(x.len());
    let (there, shares) = (device.upload("x", x), device.empty("shares", count));
    device.run(&cuda::shares(there, x.len(), shares))?;
    moves(device, size_of_val(x), 8 * count, None)?;
    let (grad_scale, norm) = (device.empty("grad_scale", 1), device.empty("norm", 1));
    device.run(&cuda::clip(shares, count, scale, most, grad_scale, norm))?;
    let (factor, norm) = (device.download("grad_scale", grad_scale, 1)?[0], device.download("norm", norm, 1)?[0]);
    let expected_norm = sum_of_squares(x32).sqrt() * f64::from(scale);
    if !expected_norm.is_finite() {
        return if factor.is_finite() || norm.is_finite() {
            Err(format!("factor {factor}, norm {norm}"))
        } else {
            Ok(())
        };
    }
    let clip = most.map_or(1.0, |most| (f64::from(most) / (expected_norm + 1e-6)).min(1.0));
    let expected = (clip * f64::from(scale)) as f32;
    if (norm - expected_norm as f32).abs() > 2e-7 * norm || (factor - expected).abs() > 2e-7 * expected {
        return Err(format!(
            "norm {norm} for {expected_norm}, factor {factor} for {expected}, of {} elements",
            x.len()
        ));
    }
    Ok(())
}

/// Few blocks for many elements: each takes its turn again and again.
fn turns<T: Tested>(device: &Device) -> Result<(), String> {
    let (x, x32) = random::<T>(20_003, 3, 1.0);
    let shares = device.empty("shares", 3);
    let launch = Launch { grid: [3, 1, 1], ..cuda::shares(device.upload("x", &x), x.len(), shares) };
    device.run(&launch)?;
    let found: f64 = device.download("shares", shares, 3)?.iter().sum();
    let expected = sum_of_squares(&x32);
    if (found - expected).abs() > 1e-12 * expected {
        Err(format!("{found} where {expected} is expected"))
    } else {
        Ok(())
    }
}

fn proof<T: Tested>(device: &Device) -> Result<(), String> {
    for len in [1, 7, 8, 255, 2049, 70_001] {
        let (x, x32) = random::<T>(len, 1, 1.0);
        for (scale, most) in [(1.0, None), (0.25, Some(1.0)), (1.0, Some(1e6))] {
            clipped(device, &x, &x32, scale, most)?;
        }
    }
    turns::<T>(device)?;
    for bad in [f32::NAN, f32::INFINITY] {
        let (mut x, mut x32) = random::<T>(5000, 2, 1.0);
        (x[4999], x32[4999]) = (T::from_f32(bad), bad);
        clipped(device, &x, &x32, 1.0, Some(1.0))?;
    }
    Ok(())
}

#[test]
fn equals_its_twin_in_f32() {
    prove(SOURCE, &proof::<f32>);
}

#[test]
fn equals_its_twin_in_bf16() {
    prove(SOURCE, &proof::<Bf16>);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let mutations = [
        Mutation { from: "* (length - length + 1.0)", to: "", caught_by: "factor" },
        Mutation { from: "first += stride", to: "first += stride + RUN", caught_by: "where" },
        Mutation { from: "aligned && first + RUN <= len", to: "aligned", caught_by: "outside 'x'" },
        Mutation { from: "if (threadIdx.x == 0) shares", to: "shares", caught_by: "race" },
    ];
    catches(SOURCE, &proof::<f32>, &mutations);
}
