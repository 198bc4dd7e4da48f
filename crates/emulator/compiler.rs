//! Compiles kernels' sources for the CPU (see `emulation.h` of the kernels) and loads them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

/// Where the sources are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels");
const RUNTIME: [&str; 5] = ["fibre", "memory", "machine", "device", "hopper"];
/// The sources of the kernels that models launch.
const SOURCES: [&str; 16] = [
    "adamw/kernel.cu",
    "attention/backward.cu",
    "attention/cached.cu",
    "attention/forward.cu",
    "attention/hopper_backward.cu",
    "attention/hopper_forward.cu",
    "attention/plain.cu",
    "dropout/kernel.cu",
    "embedding/kernel.cu",
    "head/kernel.cu",
    "nf4/kernel.cu",
    "noise/kernel.cu",
    "norm/kernel.cu",
    "rms_norm/kernel.cu",
    "rope/kernel.cu",
    "swiglu/kernel.cu",
];

/// Whether every access to memory is watched, or kernels just run: some twenty times faster, for whole models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    On,
    Off,
}

impl Watch {
    /// What the emulation itself is compiled with.
    fn runtime_flags(self) -> Vec<&'static str> {
        let mut flags = vec!["-std=c++17", "-O2", "-fPIC", "-Wall"];
        if self == Self::Off {
            flags.push("-DEMULATION_UNWATCHED");
        }
        flags
    }

    /// Kernels: no product and sum are fused behind our back, no two types are thought to lie apart, and what a template
    /// keeps is its own library's. Watched, every access to memory becomes a call (the sanitizer's library is not linked:
    /// memory.cpp has the calls).
    fn kernel_flags(self) -> Vec<&'static str> {
        let mut flags = vec![
            "-std=c++17",
            "-fPIC",
            "-Wall",
            "-Wno-unknown-pragmas",
            "-ffp-contract=off",
            "-fno-strict-aliasing",
            "-fno-gnu-unique",
        ];
        flags.extend(match self {
            Self::On => ["-O1", "-fsanitize=thread"],
            Self::Off => ["-O2", "-DEMULATION_UNWATCHED"],
        });
        flags
    }
}

/// The C++ compiler; none: said once, and the proofs skip themselves.
static COMPILER: LazyLock<Option<String>> = LazyLock::new(|| {
    if cfg!(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))) {
        eprintln!("SKIPPED: the emulation runs on Linux, x86-64 or aarch64, so the CUDA kernels are not proved");
        return None;
    }
    let wished = std::env::var("CXX").ok();
    let found = wished.into_iter().chain(["g++".into(), "c++".into()]).find(|name| version(name).is_some());
    if found.is_none() {
        eprintln!("SKIPPED: no C++ compiler (g++, or CXX), so the CUDA kernels are not proved");
    }
    found
});

fn version(compiler: &str) -> Option<String> {
    let output = Command::new(compiler).arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where compiled kernels are kept from run to run, named after everything that they are made of: ZEPHYR_EMULATED_KERNELS, or
/// the target folder of a program of cargo's; of any other program the folder of temporary files.
fn cache() -> PathBuf {
    let folder = std::env::var_os("ZEPHYR_EMULATED_KERNELS").map(PathBuf::from).unwrap_or_else(|| {
        let program = std::env::current_exe().expect("the tests' own program");
        // target/<profile>/deps/<program>
        match program.parent().filter(|folder| folder.ends_with("deps")).and_then(|deps| deps.ancestors().nth(2)) {
            Some(target) => target.join("tmp/emulated"),
            None => std::env::temp_dir().join("zephyr-emulated"),
        }
    });
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// Runs the compiler unless its result is already there.
fn compile(name: &str, ingredients: &[&str], arguments: impl FnOnce(&Path) -> Vec<String>) -> PathBuf {
    let compiler = COMPILER.as_deref().expect("asked before");
    let mut hash = DefaultHasher::new();
    (compiler, version(compiler), ingredients).hash(&mut hash);
    let path = cache().join(format!("{name}-{:016x}", hash.finish()));
    // Two tests may want the same file: one makes it, the other waits.
    static MAKING: LazyLock<Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>> = LazyLock::new(Mutex::default);
    let making = lock(&MAKING).entry(path.clone()).or_default().clone();
    let _guard = lock(&making);
    if !path.exists() {
        let unfinished = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
        let output = Command::new(compiler)
            .args(arguments(&path))
            .arg("-o")
            .arg(&unfinished)
            .output()
            .expect("the compiler that just told its version");
        assert!(output.status.success(), "{name}:\n{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&unfinished, &path).expect("target/tmp can be written");
    }
    path
}

/// A test that failed with the lock in hand has left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn read(relative: &str) -> String {
    let path = Path::new(FOLDER).join(relative);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `text` with the headers of the folder of `source` in the place of their first inclusion.
fn with_headers(source: &str, text: &str, seen: &mut Vec<String>) -> String {
    let folder = Path::new(source).parent().expect("a file in a folder");
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| *line != "#pragma once") {
        let name = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        let header = name.map(|name| folder.join(name).display().to_string());
        match header.filter(|header| Path::new(FOLDER).join(header).exists()) {
            Some(header) if seen.contains(&header) => {}
            Some(header) => {
                seen.push(header.clone());
                lines.push(with_headers(source, &read(&header), seen));
            }
            None => lines.push(line.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

/// All headers, as one text: what a change of them must make anew.
static HEADERS: LazyLock<String> = LazyLock::new(|| {
    let folders = ["cuda", "cuda/emulation", "attention"];
    let mut names: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(Path::new(FOLDER).join(folder)).expect("a folder of this crate"))
        .map(|entry| entry.expect("a folder of this crate").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "h" || extension == "cuh"))
        .collect();
    names.sort();
    names.iter().map(|path| std::fs::read_to_string(path).expect("a header")).collect()
});

/// The emulation itself, compiled.
fn runtime(watch: Watch) -> Vec<String> {
    let object = |name: &&str| {
        let (source, flags) = (format!("cuda/emulation/{name}.cpp"), watch.runtime_flags());
        let path = compile(&format!("{name}.o"), &[&read(&source), &HEADERS, &flags.concat()], |_| {
            let source = Path::new(FOLDER).join(&source).display().to_string();
            flags.iter().map(|flag| (*flag).to_owned()).chain(["-c".into(), source]).collect()
        });
        path.display().to_string()
    };
    RUNTIME.iter().map(object).collect()
}

/// The kernels of `text`, which stands in for `source`, compiled.
fn object(source: &str, text: &str, watch: Watch) -> String {
    let (name, flags) = (source.replace(['/', '.'], "-"), watch.kernel_flags());
    let folder = Path::new(FOLDER).join(source).parent().expect("a file in a folder").to_owned();
    let path = compile(&format!("{name}.o"), &[text, &HEADERS, &flags.concat()], |path| {
        let copy = PathBuf::from(format!("{}.cu", path.display()));
        std::fs::write(&copy, text).expect("target/tmp can be written");
        let include = |folder: &Path| format!("-I{}", folder.display());
        let mut arguments: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        arguments.extend([include(&Path::new(FOLDER).join("cuda")), include(&folder)]);
        arguments.extend(["-x", "c++", "-c", &copy.display().to_string()].map(String::from));
        arguments
    });
    path.display().to_string()
}

fn shared(name: &str, objects: Vec<String>) -> PathBuf {
    let ingredients: Vec<&str> = objects.iter().map(String::as_str).collect();
    compile(name, &ingredients, |_| [vec!["-shared".to_owned()], objects.clone()].concat())
}

fn open(path: &Path) -> libloading::Library {
    // SAFETY: the library's initialisers only fill a table of names.
    unsafe { libloading::Library::new(path) }.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Kernels without the largest instances of attention, which take the longest to compile.
fn without(text: &str, instances: &[&str]) -> String {
    let kept = |line: &&str| !instances.iter().any(|start| line.starts_with(start));
    text.lines().filter(kept).collect::<Vec<_>>().join("\n") + "\n"
}

/// Compiled kernels with the emulation that runs them.
pub struct Library {
    library: libloading::Library,
    /// Kernels that share it.
    _kernels: Vec<libloading::Library>,
}

impl Library {
    /// The kernels of `source`, a path in the kernels' crate, watched; `None` without a compiler.
    pub fn of(source: &str) -> Option<Arc<Self>> {
        static LOADED: LazyLock<Mutex<HashMap<String, Arc<Library>>>> = LazyLock::new(Mutex::default);
        COMPILER.as_ref()?;
        if let Some(library) = lock(&LOADED).get(source) {
            return Some(library.clone());
        }
        let library = Arc::new(Self::build(source, &read(source)));
        Some(lock(&LOADED).entry(source.to_owned()).or_insert(library).clone())
    }

    /// The kernels of `source` with one place of it changed, or of the headers of its folder that it includes.
    pub fn mutant(source: &str, from: &str, to: &str) -> Option<Arc<Self>> {
        COMPILER.as_ref()?;
        let mut text = read(source);
        if !text.contains(from) {
            text = with_headers(source, &text, &mut Vec::new());
        }
        assert_eq!(text.matches(from).count(), 1, "{source} must hold this once: {from}");
        Some(Arc::new(Self::build(source, &without(&text, &["FOR_HEAD(96", "FOR_HEAD(128"]).replace(from, to))))
    }

    /// The kernels of models on one machine; watched, those of attention in bf16 are for head dimensions 16 and 32 alone, for Hopper 64.
    pub fn whole(watch: Watch) -> Option<Arc<Self>> {
        static LOADED: LazyLock<Mutex<HashMap<Watch, Arc<Library>>>> = LazyLock::new(Mutex::default);
        COMPILER.as_ref()?;
        let mut loaded = lock(&LOADED);
        if let Some(library) = loaded.get(&watch) {
            return Some(library.clone());
        }
        let small = |source: &str| {
            let largest: &[&str] = match (watch, source.contains("hopper_")) {
                // Sessions run here, with the head dimensions of models in use.
                (Watch::Off, _) => &[],
                (Watch::On, true) => &["FOR_HEAD(128"],
                (Watch::On, false) => &["FOR_HEAD(64", "FOR_HEAD(96", "FOR_HEAD(128"],
            };
            without(&read(source), largest)
        };
        let emulation = shared("emulation.so", runtime(watch));
        // Each source is a library of its own, as their templates have the same names.
        let kernels = SOURCES.map(|source| {
            let objects = vec![object(source, &small(source), watch), emulation.display().to_string()];
            open(&shared(&format!("{}.so", source.replace(['/', '.'], "-")), objects))
        });
        let library = Arc::new(Self { library: open(&emulation), _kernels: kernels.into() });
        loaded.insert(watch, library.clone());
        Some(library)
    }

    fn build(source: &str, text: &str) -> Self {
        let objects = [vec![object(source, text, Watch::On)], runtime(Watch::On)].concat();
        let library = open(&shared(&format!("{}.so", source.replace(['/', '.'], "-")), objects));
        Self { library, _kernels: Vec::new() }
    }

    /// # Safety
    /// `F` must be the type of the function of that name in `emulation/device.cpp`.
    pub(crate) unsafe fn function<F: Copy>(&self, name: &str) -> F {
        // SAFETY: by the caller's promise; the symbol does not outlive the library's use of it here.
        *unsafe { self.library.get::<F>(name) }.unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}
