//! The driver's face ([`super::driver`]) against a driver that we made (stand_in.cpp), which works as late as it may. That library
//! is opened once in a process, so that the calls are made in one of their own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use cudarc::driver::sys::culib;

use super::driver::Driver;
use super::{Bf16, Device, Launch, PIECE, Pointer, TensorMap, queue};
use crate::cast;

/// Says in a child that the stand-in is what the loader finds.
const CHILD: &str = "ZEPHYR_STAND_IN";

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's, with the allocations of each thread counted.
struct Counting;

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A folder with the stand-in as both libraries; `None`, loudly, without a C++ compiler.
fn made() -> Option<PathBuf> {
    let folder = std::env::temp_dir().join(format!("zephyr-stand-in-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let source = folder.join("stand_in.cpp");
    std::fs::write(&source, include_str!("stand_in.cpp")).expect("a file");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let flags = ["-std=c++17", "-Wall", "-O1", "-fPIC", "-shared", "-o"];
    let output = Command::new(compiler).args(flags).arg(folder.join("libcuda.so")).arg(source).output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: no C++ compiler (g++, or CXX), so the copies of the driver's face are not tested");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::copy(folder.join("libcuda.so"), folder.join("libcublasLt.so")).expect("a file");
    Some(folder)
}

/// What a child that makes all calls below says, if it fails.
fn fault(folder: &Path, variable: &str, value: &str) -> Option<String> {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "cuda::stand_in::calls_in_a_child", "--include-ignored", "--nocapture"]);
    command.env(CHILD, "1").env("LD_LIBRARY_PATH", folder).env(variable, value);
    let output = command.stdin(Stdio::null()).output().expect("this program");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(text.contains("running 1 test"), "{text}");
    (!output.status.success()).then_some(text)
}

/// Functions that do nothing for one event or stream of theirs, and what is seen then. Events: those of the two stages, that of the
/// queue, that of the first landing. Streams: work, copies.
const MISTAKES: [(&str, &str); 10] = [
    ("cuStreamWaitEvent:2", "small copies"),
    ("cuEventRecord:1", "write 0 "),
    ("cuEventRecord:2", "write 3 "),
    ("cuEventRecord:3", "small copies"),
    ("cuEventRecord:4", "small copies"),
    ("cuEventSynchronize:1", "write 0 "),
    ("cuEventSynchronize:2", "write 3 "),
    ("cuEventSynchronize:4", "small copies"),
    ("cuStreamSynchronize:1", "16 bytes that are not there, or no longer"),
    ("cuStreamSynchronize:2", "16 bytes that are not there, or no longer"),
];

#[test]
fn copies_are_ordered_whenever_the_card_makes_them_and_without_an_event_they_are_not() {
    let Some(folder) = made() else { return };
    for (variable, value) in [("STAND_IN_LATE", "1"), ("STAND_IN_EAGER", "1")] {
        if let Some(text) = fault(&folder, variable, value) {
            panic!("{variable}: {text}");
        }
    }
    for (mistake, seen) in MISTAKES {
        let text = fault(&folder, "STAND_IN_IGNORES", mistake).unwrap_or_default();
        assert!(text.contains(seen), "without {mistake}: {text}");
    }
    std::fs::remove_dir_all(folder).expect("our folder");
}

/// A number that the stand-in tells.
fn told(name: &str) -> usize {
    // SAFETY: the function of that name in stand_in.cpp.
    unsafe { culib().get::<extern "C" fn() -> usize>(name).expect("the stand-in")() }
}

/// Values that no two places share.
fn values(len: usize, seed: usize) -> Vec<u32> {
    (0..len).map(|index| (index as u32).wrapping_mul(2_654_435_761) ^ (seed as u32) << 20).collect()
}

fn allocate<T>(device: &Arc<dyn Device>, len: usize) -> Pointer<T> {
    Pointer::new(device.allocate("a test", len * size_of::<T>(), &[]).expect("memory"))
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn calls_in_a_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let device: Arc<dyn Device> = Driver::open(0).expect("the stand-in");
    assert_eq!(device.name(), "stand-in");
    small_copies(&device);
    writes(&device);
    downloads(&device);
    freed_memory(&device);
    launches(&device);
    // What is queued leaves from memory that goes with the device.
    let last = allocate(&device, 9);
    device.upload(&values(9, 1), last).expect("queued");
    drop(device);
}

/// A copy waits for what was queued before, and for nothing that was queued later.
fn small_copies(device: &Arc<dyn Device>) {
    let [first, second, third] = [(); 3].map(|()| allocate::<u32>(device, 64));
    let (old, new) = (values(64, 1), values(64, 2));
    device.upload(&old, first).expect("queued");
    device.copy(first.address, second.address, 256).expect("queued");
    device.upload(&new, first).expect("queued");
    let of_first = device.fetch(first.address, 256).expect("queued");
    device.clear(third.address, 256).expect("queued");
    let (mut found, mut copied, mut cleared) = ([0u32; 64], [0u32; 64], [1u32; 64]);
    of_first.wait(&mut found).expect("a copy");
    assert_eq!(found[..], new, "small copies");
    // The stand-in has done nothing that nobody waited for.
    let late = std::env::var_os("STAND_IN_EAGER").is_none();
    assert_eq!(told("stand_in_pending"), usize::from(late), "work that the host did not wait for");

    // Out of turn, and the landing of one that nobody waited for is used again.
    let of_second = device.fetch(second.address, 256).expect("queued");
    drop(device.fetch(first.address, 256).expect("queued"));
    let of_third = device.fetch(third.address, 256).expect("queued");
    of_third.wait(&mut cleared).expect("a copy");
    of_second.wait(&mut copied).expect("a copy");
    assert_eq!((&copied[..], cleared), (&old[..], [0; 64]));
    assert_eq!(told("stand_in_pinned"), 4, "two stages, two landings at one time");
    for piece in [first, second, third] {
        device.free(piece.address);
    }
}

/// More than the stages hold, in pieces of all sizes, with nobody waiting in between.
fn writes(device: &Arc<dyn Device>) {
    let lengths = [5, 70_000, 1, 1 << 20, 300_001, (9 << 18) + 3, 17, 1 << 20, 999_999, 2, 1 << 19, 1 << 19, 1 << 19];
    let there = lengths.map(|len| allocate::<u32>(device, len));
    for (seed, (&len, &to)) in lengths.iter().zip(&there).enumerate() {
        let mut sent = values(len, seed);
        device.upload(&sent, to).expect("queued");
        sent.fill(0);
    }
    for (seed, (&len, &from)) in lengths.iter().zip(&there).enumerate() {
        let mut found = vec![0; len];
        device.download(from, &mut found).expect("a copy");
        assert!(found == values(len, seed), "write {seed} of {len} numbers");
    }
    for piece in there {
        device.free(piece.address);
    }
}

/// By the piece through two landings, which are there for the next one too.
fn downloads(device: &Arc<dyn Device>) {
    let mut pinned = 0;
    for (seed, len) in [3 * PIECE + 5, PIECE, 2 * PIECE, 0].into_iter().enumerate() {
        let there = allocate::<u32>(device, len);
        device.upload(&values(len, seed), there).expect("queued");
        let mut found = vec![0; len];
        device.download(there, &mut found).expect("a copy");
        assert!(found == values(len, seed), "{len} numbers");
        device.free(there.address);
        let before = std::mem::replace(&mut pinned, told("stand_in_pinned"));
        assert!(seed == 0 || pinned == before, "pinned memory is used again");
    }
}

/// Given back once all work and all copies are done: the stand-in ends a process that touches it later.
fn freed_memory(device: &Arc<dyn Device>) {
    let kept = allocate::<u32>(device, 4);
    device.upload(&[1; 4], kept).expect("queued");
    let [cleared, fetched] = [(); 2].map(|()| allocate::<u32>(device, 4));
    device.clear(cleared.address, 16).expect("queued");
    device.free(cleared.address);
    device.upload(&[7; 4], fetched).expect("queued");
    let coming = device.fetch(fetched.address, 16).expect("queued");
    device.free(fetched.address);
    let (mut found, mut others) = ([0u32; 4], [0u32; 4]);
    coming.wait(&mut found).expect("a copy");
    device.download(kept, &mut others).expect("a copy");
    assert_eq!((found, others), ([7; 4], [1; 4]));
    device.free(kept.address);
}

/// Arguments arrive as they were given, and nothing is allocated on the way once a kernel is known.
fn launches(device: &Arc<dyn Device>) {
    let out = allocate::<u32>(device, 2 * 19);
    let slots = |base: u64| -> Launch {
        let b = |count: u64| base + count;
        queue!(
            "stand_in_slots", [1, 1, 1], 32, 0;
            out, b(1), b(2), b(3), b(4), b(5), b(6), b(7), b(8), b(9), b(10), b(11), b(12), b(13), b(14), b(15), b(16), b(17),
            b(18), b(19)
        )
    };
    let map = |address| TensorMap { address, rows: 8, columns: 8, stride: 16, box_rows: 8, box_columns: 8 };
    let maps = |address: u64| -> Launch {
        queue!("stand_in_maps", [1, 1, 1], 32, 100_000; out, 1u32, map(address), map(address + 4096))
    };
    let words = |count: usize| -> Vec<u64> {
        let mut bytes = vec![0u8; 8 * count];
        device.fetch(out.address, bytes.len()).expect("queued").wait(&mut bytes).expect("a copy");
        bytes.as_chunks().0.iter().map(|&eight| u64::from_le_bytes(eight)).collect()
    };
    device.run(&slots(1 << 40)).expect("queued");
    assert_eq!(words(19), (1..20).map(|count| (1 << 40) + count).collect::<Vec<u64>>());
    device.run(&maps(1 << 20)).expect("queued");
    assert_eq!(words(4), [1 << 20, (1 << 20) + 15, (1 << 20) + 4096, (1 << 20) + 4096 + 15]);

    let before = ALLOCATIONS.get();
    device.run(&slots(3)).expect("queued");
    device.run(&maps(5)).expect("queued");
    let launch = cast::cuda::to_bf16(Pointer::NULL, Pointer::<Bf16>::NULL, 100);
    assert_eq!(ALLOCATIONS.get(), before, "a launch allocates");
    let error = device.run(&launch).expect_err("no kernel of the stand-in");
    assert!(error.to_string().contains("cast_bf16"), "{error}");
    device.free(out.address);
}
