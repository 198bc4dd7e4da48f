//! Hopper's instructions in the emulation: tensor cores and copies against their definitions, and mistakes that it must see.

use crate::emulator::{Device, Library, prove};
use crate::random;
use zephyr_kernels::cuda::{Argument, Bf16, Launch, Pointer, TensorMap};

const SOURCE: &str = "cuda/emulation/hopper_probe.cu";

fn launch(kernel: &'static str, threads: u32, arguments: &[Argument]) -> Launch {
    Launch {
        kernel,
        grid: [1, 1, 1],
        block: threads,
        shared: 3 * 8192 + 64,
        arguments: arguments.iter().copied().collect(),
    }
}

fn map(at: Pointer<Bf16>, rows: usize, columns: usize) -> TensorMap {
    let (rows, columns) = (rows as u64, columns as u64);
    TensorMap { address: at.address, rows, columns, stride: columns * 2, box_rows: 64, box_columns: 64 }
}

/// `found` [64, columns] is `scale` times the sum over k of `a[row, k] · b(k, column)`.
fn is_product(
    kernel: &str,
    found: &[f32],
    columns: usize,
    scale: f64,
    a: &[f32],
    b: impl Fn(usize, usize) -> f32,
) -> Result<(), String> {
    for (at, &found) in found.iter().enumerate() {
        let (row, column) = (at / columns, at % columns);
        let exact: f64 = (0..64).map(|k| f64::from(a[row * 64 + k]) * f64::from(b(k, column))).sum();
        if (f64::from(found) - scale * exact).abs() > 1e-5 {
            return Err(format!("{kernel}: {found} in row {row}, column {column} where {} is expected", scale * exact));
        }
    }
    Ok(())
}

#[test]
fn warpgroups_multiply_swizzled_tiles() {
    prove(SOURCE, &|device| {
        let ((a, a32), (b, b32)) = (random::<Bf16>(64 * 64, 1, 1.0), random::<Bf16>(64 * 128, 2, 1.0));
        let (a, b) = (device.upload("a", &a), device.upload("b", &b));
        let by_rows: Pointer<f32> = device.empty("by rows", 64 * 128);
        let maps: [Argument; 2] = [map(a, 64, 64).into(), map(b, 64, 128).into()];
        device.run(&launch("probe_rows", 128, &[maps[0], maps[1], a.into(), by_rows.into()]))?;
        let found = device.download("by rows", by_rows, 64 * 128)?;
        is_product("probe_rows", &found, 128, 2.0, &a32, |k, column| b32[k * 128 + column])?;

        // The first 64 columns of B: rows that are 256 bytes apart.
        let by_columns: Pointer<f32> = device.empty("by columns", 64 * 64);
        device.run(&launch("probe_columns", 128, &[maps[0], maps[1], by_columns.into()]))?;
        let found = device.download("by columns", by_columns, 64 * 64)?;
        is_product("probe_columns", &found, 64, 1.0, &a32, |k, column| b32[column * 128 + k])?;

        let square: Pointer<f32> = device.empty("square", 64 * 64);
        device.run(&launch("probe_written_tile", 384, &[a.into(), square.into()]))?;
        let found = device.download("square", square, 64 * 64)?;
        is_product("probe_written_tile", &found, 64, 1.0, &a32, |k, column| a32[column * 64 + k])
    });
}

/// Chunk c of row r lies where chunk c ^ r % 8 would; beyond the matrix all is 0.
#[test]
fn boxes_are_swizzled_and_end_in_zeros() {
    prove(SOURCE, &|device| {
        let (rows, columns) = (70, 104);
        let (values, _) = random::<Bf16>(rows * columns, 1, 1.0);
        let from = device.upload("from", &values);
        for (column, row) in [(0, 0), (64, 0), (0, 30), (64, 60), (0, 70)] {
            let out: Pointer<Bf16> = device.empty("out", 64 * 64);
            let arguments = [map(from, rows, columns).into(), (column as u32).into(), (row as u32).into(), out.into()];
            device.run(&launch("probe_box", 64, &arguments))?;
            for (at, &found) in device.download("out", out, 64 * 64)?.iter().enumerate() {
                let line = at / 64;
                let (r, c) = (row + line, column + ((at % 64 / 8) ^ (line % 8)) * 8 + at % 8);
                let expected = if r < rows && c < columns { values[r * columns + c] } else { Bf16(0) };
                if found != expected {
                    return Err(format!("{found:?} at {at} of the box from row {row}, column {column}"));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn barriers_in_shared_memory_hand_tiles_around() {
    prove(SOURCE, &|device| {
        let out: Pointer<u32> = device.empty("out", 64);
        device.run(&launch("probe_ring", 96, &[out.into(), 9u32.into()]))?;
        if device.download("out", out, 64)? == [36; 64] { Ok(()) } else { Err("a turn is lost".into()) }
    });
}

#[test]
fn mistakes_are_seen() {
    let Some(library) = Library::of(SOURCE) else { return };
    let expected = [
        ("wrong_no_fence", "were not named to a wgmma.fence"),
        ("wrong_registers_not_named", "were not named to a wgmma.fence"),
        ("wrong_changed_after_fence", "sums of a product have changed since wgmma.fence"),
        ("wrong_not_committed", "has not committed"),
        ("wrong_no_wait", "left before its products were waited for"),
        ("wrong_wait_without_names", "are not named to the wait"),
        ("wrong_sums_touched", "sums of a product were changed before"),
        ("wrong_operands_touched", "operands of a product were changed before"),
        ("wrong_tile_overwritten", "have not been waited for"),
        ("wrong_tile_overwritten_unordered", "read what is to be overwritten"),
        ("wrong_tile_not_waited_for", "multiplies 'dynamic shared memory'"),
        ("wrong_expects_too_much", "lacks 0 arrivals and 808 bytes"),
        ("wrong_expects_too_little", "brings 8192 bytes to"),
        ("wrong_expects_nothing", ""),
        ("wrong_not_published_barrier", "was made and not published"),
        ("wrong_not_published_tile", "has not published to them"),
        ("wrong_pattern_elsewhere", "does not begin at a multiple of 1024"),
        ("wrong_one_warp_less", "has had other products than its warpgroup"),
        ("wrong_other_operands_by_warp", "ask for different products"),
        ("wrong_barrier_of_nobody", "nobody has made"),
        ("wrong_too_many_registers", "wait at setmaxnreg.inc"),
        ("wrong_copy_left_behind", "all threads have left, and"),
        ("wrong_copy_over_readers", "read what is to be overwritten"),
        ("wrong_outside", "outside"),
    ];
    for schedule in [0, 1, 2, 3] {
        for (kernel, words) in expected {
            let device = Device::new(&library, schedule);
            let from = device.upload("from", &random::<Bf16>(64 * 64, 1, 1.0).0);
            let out: Pointer<f32> = device.empty("out", 64 * 64);
            let threads = if kernel == "wrong_too_many_registers" { 384 } else { 128 };
            match device.run(&launch(kernel, threads, &[map(from, 64, 64).into(), out.into()])) {
                Ok(()) => panic!("{kernel} runs"),
                Err(fault) => assert!(fault.contains(words), "{kernel}, schedule {schedule}: {fault}"),
            }
        }
    }
}
