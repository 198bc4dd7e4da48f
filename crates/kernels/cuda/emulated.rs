//! The emulation itself: its instructions against their definitions, and mistakes that it must see.

use crate::emulator::{Device, Library, prove};
use crate::{oracle, random};
use zephyr_kernels::cuda::{Argument, Bf16, Element, Launch, Pointer};

const SOURCE: &str = "cuda/emulation/probe.cu";

fn launch(kernel: &'static str, blocks: u32, threads: u32, arguments: &[Argument]) -> Launch {
    Launch { kernel, grid: [blocks, 1, 1], block: threads, shared: 0, arguments: arguments.iter().copied().collect() }
}

fn near(what: &str, actual: f32, expected: f64, tolerance: f64) -> Result<(), String> {
    let off = (f64::from(actual) - expected).abs();
    if off <= tolerance { Ok(()) } else { Err(format!("{what}: {actual} where {expected} is expected")) }
}

#[test]
fn tensor_cores_multiply_what_ldmatrix_gives_them() {
    prove(SOURCE, &|device| {
        let ((a, a32), (b, b32)) = (random::<Bf16>(16 * 16, 1, 1.0), random::<Bf16>(16 * 8, 2, 1.0));
        let (a, b) = (device.upload("a", &a), device.upload("b", &b));
        for (kernel, by_rows) in [("probe_product", true), ("probe_product_transposed", false)] {
            let c: Pointer<f32> = device.empty("c", 16 * 8);
            device.run(&launch(kernel, 1, 32, &[a.into(), b.into(), c.into()]))?;
            for (at, &found) in device.download("c", c, 16 * 8)?.iter().enumerate() {
                let (row, column) = (at / 8, at % 8);
                let element = |k: usize| f64::from(if by_rows { b32[column * 16 + k] } else { b32[k * 8 + column] });
                let expected: f64 = (0..16).map(|k| f64::from(a32[row * 16 + k]) * element(k)).sum();
                near(kernel, found, expected, 1e-6)?;
            }
        }
        Ok(())
    });
}

/// 1 + 2⁻²⁵ + … is cut off, not rounded: a tensor core loses what the last place does not hold.
#[test]
fn tensor_cores_round_towards_zero() {
    prove(SOURCE, &|device| {
        let (mut a, mut b) = (vec![Bf16::default(); 256], vec![Bf16::default(); 128]);
        // 1 · 1 in the first eight products; in the second 2⁻¹² · (2⁻¹² − 2⁻²⁰), just under a unit in the last place.
        (a[0], a[8]) = (Bf16::from_f32(1.0), Bf16::from_f32(2f32.powi(-12)));
        (b[0], b[8]) = (Bf16::from_f32(-1.0), Bf16::from_f32(-(2f32.powi(-12) - 2f32.powi(-20))));
        let (a, b, c) = (device.upload("a", &a), device.upload("b", &b), device.empty::<f32>("c", 128));
        device.run(&launch("probe_product", 1, 32, &[a.into(), b.into(), c.into()]))?;
        near("c", device.download("c", c, 128)?[0], -1.0, 0.0)
    });
}

#[test]
fn functions_are_as_wrong_as_nvidia_says() {
    prove(SOURCE, &|device| {
        let mut x: Vec<f32> = oracle::random(3000, 1).iter().map(|x| x * 100.0).collect();
        // Halfway between two bf16: to the even one.
        x.extend([
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
            -1.0 - 1.0 / 256.0,
            f32::MAX,
            1e-40,
            -130.0,
            f32::NEG_INFINITY,
        ]);
        let len = x.len();
        let there = device.upload("x", &x);
        let (rounded, exp2, log2) =
            (device.empty("rounded", len), device.empty("exp2", len), device.empty("log2", len));
        let arguments = [there.into(), Argument::from(rounded), exp2.into(), log2.into(), (len as u32).into()];
        device.run(&launch("probe_functions", (len as u32).div_ceil(64), 64, &arguments))?;
        let expected: Vec<Bf16> = x.iter().map(|&x| Bf16::from_f32(x)).collect();
        if device.download::<Bf16>("rounded", rounded, len)? != expected {
            return Err("bf16 are not rounded to the nearest even".into());
        }
        let (exp2, log2): (Vec<f32>, Vec<f32>) =
            (device.download("exp2", exp2, len)?, device.download("log2", log2, len)?);
        let mut inexact = 0;
        for (&x, (&exp2, &log2)) in x.iter().zip(exp2.iter().zip(&log2)) {
            let exact = f64::from(x).exp2();
            let flushed = if exact < f64::from(f32::MIN_POSITIVE) { f64::from(f32::MIN_POSITIVE) } else { 0.0 };
            if x < 128.0 {
                near("exp2", exp2, exact, exact * 4.0f64.powi(-11) * 1.3 + flushed)?;
                inexact += usize::from(exp2 != exact as f32);
            }
            let exact = f64::from(x.abs()).log2();
            if exact.is_finite() {
                near("log2", log2, exact, 4.0f64.powi(-11) * 1.3 * exact.abs().max(1.0))?;
            }
        }
        if inexact < 1000 { Err(format!("only {inexact} results are not the nearest")) } else { Ok(()) }
    });
}

#[test]
fn barriers_copies_and_atomics_do_what_they_are_for() {
    prove(SOURCE, &|device| {
        let out: Pointer<u32> = device.empty("out", 32);
        device.run(&launch("probe_named_barriers", 1, 64, &[out.into()]))?;
        if device.download("out", out, 32)? != (7..39).collect::<Vec<u32>>() {
            return Err("what was written before an arrival is not seen after it".into());
        }
        let (count, most) = (device.upload("count", &[0u32]), device.upload("most", &[0u32]));
        device.run(&launch("probe_atomics", 5, 64, &[count.into(), most.into()]))?;
        if (device.download("count", count, 1)?, device.download("most", most, 1)?) != (vec![5 * 63 * 32], vec![319]) {
            return Err("an update is lost".into());
        }
        let values = oracle::random(3 * 128, 1);
        let (from, to) = (device.upload("from", &values), device.empty::<f32>("to", 3 * 128));
        device.run(&launch("probe_copies", 1, 32, &[from.into(), to.into()]))?;
        let expected = [&values[..128], &[0.0; 128], &values[256..]].concat();
        if device.download("to", to, 3 * 128)? == expected { Ok(()) } else { Err("copies bring something else".into()) }
    });
}

#[test]
fn mistakes_are_seen() {
    let Some(library) = Library::of(SOURCE) else { return };
    let expected = [
        ("wrong_part_of_a_block_waits", 1, 64, "32 have left the kernel; 32 wait at barrier 0"),
        ("wrong_lanes_part", 1, 32, "the lanes of a warp part"),
        ("wrong_shuffle_from_nobody", 1, 32, "from lane 20, which takes no part"),
        ("wrong_neighbour_in_a_warp", 1, 32, "race"),
        ("wrong_blocks_meet", 2, 1, "another block wrote"),
        ("wrong_read_of_another_block", 2, 32, "another block"),
        ("wrong_end", 1, 64, "writes 4 bytes outside 'out' (256 bytes of global memory) at byte 256"),
        ("wrong_shared_end", 1, 32, "outside 'values' (128 bytes of shared memory) at byte 128"),
        ("wrong_unwritten", 1, 32, "which nothing has written"),
        ("wrong_alignment", 1, 1, "no multiple of 16"),
        ("wrong_copy_not_waited_for", 1, 32, "has not been waited for"),
        ("wrong_host_memory", 1, 32, "outside device memory"),
    ];
    for schedule in [0, 1, 2] {
        for (kernel, blocks, threads, words) in expected {
            let device = Device::new(&library, schedule);
            let out: Pointer<u32> = device.empty("out", 64);
            match device.run(&launch(kernel, blocks, threads, &[out.into()])) {
                Ok(()) => panic!("{kernel} runs"),
                Err(fault) => {
                    // A block that reads what another is still to write finds nothing there.
                    let early = kernel == "wrong_read_of_another_block" && fault.contains("nothing has written");
                    assert!(fault.contains(words) || early, "{kernel}: {fault}");
                }
            }
        }
    }
}

#[test]
fn a_launch_must_fit_its_kernel() {
    let Some(library) = Library::of(SOURCE) else { return };
    let device = Device::new(&library, 0);
    let out: Pointer<f32> = device.empty("out", 64);
    let run = |launch: Launch| device.run(&launch).unwrap_err();
    assert_eq!(run(launch("wrong_end", 1, 32, &[out.into()])), "wrong_end takes u, not f");
    assert_eq!(run(launch("nobody", 1, 32, &[])), "no kernel is called nobody");
    let large = Launch { shared: 100 * 1024, ..launch("wrong_end", 1, 32, &[Pointer::<u32>::new(out.address).into()]) };
    assert!(run(large).contains("shared memory"));
}
