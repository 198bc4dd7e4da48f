//! With the feature `cuda`: nvcc makes a fatbin of every kernel source, with machine code for the cards that we know and
//! PTX for what comes after. Needs a CUDA 13 toolkit in `CUDA_HOME` or on the `PATH`. Without the feature: nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

/// What each source is compiled for; sm_90a is Hopper with its own instructions.
const TARGETS: [&str; 5] = [
    "arch=compute_80,code=sm_80",
    "arch=compute_86,code=sm_86",
    "arch=compute_89,code=sm_89",
    "arch=compute_90a,code=sm_90a",
    "arch=compute_80,code=compute_80",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let sources = sources();
    // Not their folders: every change of Rust in them would compile all kernels again, for minutes. A new op is in lib.rs.
    for path in sources.iter().chain(&files("cuh")).map(PathBuf::as_path).chain([Path::new("lib.rs")]) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let nvcc = env::var_os("CUDA_HOME").map_or_else(|| "nvcc".into(), |home| PathBuf::from(home).join("bin/nvcc"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));

    let queue = Mutex::new(sources.clone());
    let resources = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, |count| count.get());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(source) = { queue.lock().expect("no worker panics with it").pop() } {
                    let used = compile(&nvcc, &source, &out.join(fatbin(&source)));
                    resources.lock().expect("no worker panics with it").extend(used);
                }
            });
        }
    });

    let fatbins: String = sources
        .iter()
        .map(|source| {
            let (name, file) = (source.display().to_string(), out.join(fatbin(source)).display().to_string());
            format!("    ({name:?}, include_bytes!({file:?})),\n")
        })
        .collect();
    let mut resources = resources.into_inner().expect("no worker panics with it");
    resources.sort();
    let write = |name: &str, text: String| fs::write(out.join(name), text).expect("OUT_DIR can be written");
    write("fatbins.rs", format!("&[\n{fatbins}]\n"));
    write("resources.rs", format!("&[\n{}]\n", resources.concat()));
}

/// Every `.cu` of an op folder.
fn sources() -> Vec<PathBuf> {
    let of_ops = |path: &PathBuf| path.components().next().is_some_and(|folder| folder.as_os_str() != "cuda");
    files("cu").into_iter().filter(of_ops).collect()
}

/// Every file with that extension in a folder of this crate.
fn files(extension: &str) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a folder of this crate");
        entries.map(|entry| entry.expect("a folder of this crate").path()).collect()
    };
    let mut files: Vec<PathBuf> = entries(Path::new("."))
        .iter()
        .filter(|path| path.is_dir())
        .flat_map(|folder| entries(folder))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.strip_prefix(".").map(Path::to_owned).unwrap_or(path))
        .collect();
    files.sort();
    files
}

fn fatbin(source: &Path) -> String {
    source.display().to_string().replace(['/', '\\', '.'], "-") + ".fatbin"
}

/// Makes a fatbin; gives a row of `cuda::launch::RESOURCES` for each kernel and target.
///
/// `-fmad=false`: products and sums are fused where the source says so and nowhere else, as in the emulated tests.
fn compile(nvcc: &Path, source: &Path, fatbin: &Path) -> Vec<String> {
    let folder = source.parent().expect("a file in a folder");
    let mut command = Command::new(nvcc);
    command.args(["-O3", "-std=c++17", "-fmad=false", "-fatbin", "--resource-usage", "-Icuda", "-I"]).arg(folder);
    for target in TARGETS {
        command.args(["-gencode", target]);
    }
    let output = command.arg(source).arg("-o").arg(fatbin).output().unwrap_or_else(|error| {
        panic!("{}: {error}. The feature `cuda` needs a CUDA 13 toolkit: set CUDA_HOME to its folder.", nvcc.display())
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{text}", source.display());

    // ptxas: `Compiling entry function 'name' for 'sm_80'`, then the bytes that go to memory, then `Used 40 registers`.
    let mut rows = Vec::new();
    let (mut kernel, mut target, mut spilled) = ("", "", "");
    for line in text.lines() {
        // `(C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized …`, and waits put in by the compiler.
        assert!(!line.contains("(C75"), "{}: {line}", source.display());
        let word = |before: &str, after: &str| line.split_once(before).and_then(|(_, rest)| rest.split_once(after));
        if let Some((name, rest)) = word("entry function '", "' for '") {
            (kernel, target) = (name, rest.trim_end_matches('\''));
        } else if let Some((bytes, _)) = word("bytes stack frame, ", " bytes spill stores") {
            spilled = bytes;
        } else if let Some((registers, _)) = word("Used ", " registers") {
            rows.push(format!("    ({kernel:?}, {target:?}, {registers}, {spilled}),\n"));
        } else if line.contains("warning") {
            println!("cargo:warning={}: {line}", source.display());
        }
    }
    rows
}
