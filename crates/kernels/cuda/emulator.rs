//! Compiles a kernel's source for the CPU (see `emulation/emulation.h`), loads it and launches it.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use zephyr_kernels::cuda::{Launch, Pointer, Stored};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");
const RUNTIME: [&str; 4] = ["fibre", "memory", "machine", "device"];
/// What the emulation itself is compiled with.
const RUNTIME_FLAGS: [&str; 4] = ["-std=c++17", "-O2", "-fPIC", "-Wall"];
/// Kernels: every access to memory becomes a call (the sanitizer's library is not linked: device.cpp has the calls), no
/// product and sum are fused behind our back, and no two types are thought to lie apart.
const KERNEL_FLAGS: [&str; 8] = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-fsanitize=thread",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
];
/// Dynamic shared memory that a block may have on every card from sm_80 on (sm_86 and sm_89 have the least).
const SHARED_LIMIT: u32 = 99 * 1024;

/// A kernel source, compiled.
pub struct Library {
    library: libloading::Library,
}

/// What a launch did, counted by the emulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Statistics {
    /// Bytes of global memory
    pub global_read: u64,
    pub global_written: u64,
    /// The part of both that went by accesses of 16 bytes
    pub global_wide: u64,
    /// Barriers that were passed
    pub barriers: u64,
    /// mma.sync instructions
    pub matrix_products: u64,
    /// Rows that ldmatrix had to wait for
    pub bank_conflicts: u64,
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

/// Where compiled kernels are kept from run to run, named after everything that they are made of.
fn cache() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated");
    std::fs::create_dir_all(&folder).expect("target/tmp can be written");
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
        let unfinished = path.with_extension(format!("{}", std::process::id()));
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

static RUNTIME_OBJECTS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let object = |name: &&str| {
        let source = format!("cuda/emulation/{name}.cpp");
        compile(&format!("{name}.o"), &[&read(&source), &HEADERS, &RUNTIME_FLAGS.concat()], |_| {
            let mut arguments = RUNTIME_FLAGS.map(String::from).to_vec();
            arguments.extend(["-c".into(), Path::new(FOLDER).join(&source).display().to_string()]);
            arguments
        })
    };
    RUNTIME.iter().map(object).collect()
});

impl Library {
    /// The kernels of `source`, a path in this crate; `None` without a compiler.
    pub fn of(source: &str) -> Option<Arc<Self>> {
        static LOADED: LazyLock<Mutex<HashMap<String, Arc<Library>>>> = LazyLock::new(Mutex::default);
        COMPILER.as_ref()?;
        if let Some(library) = lock(&LOADED).get(source) {
            return Some(library.clone());
        }
        let library = Arc::new(Self::build(source, &read(source)));
        Some(lock(&LOADED).entry(source.to_owned()).or_insert(library).clone())
    }

    /// The kernels of `source` with one place of it changed; without the largest instances of attention, which take the
    /// longest to compile.
    pub fn mutant(source: &str, from: &str, to: &str) -> Option<Arc<Self>> {
        COMPILER.as_ref()?;
        let text = read(source);
        assert_eq!(text.matches(from).count(), 1, "{source} must hold this once: {from}");
        let large = ["FOR_HEAD(96", "FOR_HEAD(128"];
        let small: Vec<&str> = text.lines().filter(|line| !large.iter().any(|start| line.starts_with(start))).collect();
        Some(Arc::new(Self::build(source, &(small.join("\n") + "\n").replace(from, to))))
    }

    fn build(source: &str, text: &str) -> Self {
        let name = source.replace(['/', '.'], "-");
        let folder = Path::new(FOLDER).join(source).parent().expect("a file in a folder").to_owned();
        let objects: Vec<String> = RUNTIME_OBJECTS.iter().map(|path| path.display().to_string()).collect();
        let ingredients = [text, &HEADERS, &KERNEL_FLAGS.concat(), &objects.concat()];
        let path = compile(&format!("{name}.so"), &ingredients, |path| {
            let copy = path.with_extension("cu");
            std::fs::write(&copy, text).expect("target/tmp can be written");
            let mut arguments = KERNEL_FLAGS.map(String::from).to_vec();
            let include = |folder: &Path| format!("-I{}", folder.display());
            arguments.extend([include(&Path::new(FOLDER).join("cuda")), include(&folder)]);
            let object = path.with_extension("o").display().to_string();
            arguments.extend(["-x", "c++", "-c", &copy.display().to_string()].map(String::from));
            let compiler = COMPILER.as_deref().expect("asked before");
            let output = Command::new(compiler).args(&arguments).args(["-o", &object]).output().expect("the compiler");
            assert!(output.status.success(), "{source}:\n{}", String::from_utf8_lossy(&output.stderr));
            [vec!["-shared".into(), object], objects.clone()].concat()
        });
        // SAFETY: the library's initialisers only fill a table of names.
        let library = unsafe { libloading::Library::new(&path) }.unwrap_or_else(|error| panic!("{source}: {error}"));
        Self { library }
    }

    /// # Safety
    /// `F` must be the type of the function of that name in `emulation/device.cpp`.
    unsafe fn function<F: Copy>(&self, name: &str) -> F {
        // SAFETY: by the caller's promise; the symbol does not outlive the library's use of it here.
        *unsafe { self.library.get::<F>(name) }.unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// One emulated GPU.
pub struct Device<'a> {
    library: &'a Library,
    machine: *mut c_void,
    schedule: u32,
    statistics: Cell<Statistics>,
    digest: Cell<u64>,
}

type Open = unsafe extern "C" fn() -> *mut c_void;
type Close = unsafe extern "C" fn(*mut c_void);
type Allocate = unsafe extern "C" fn(*mut c_void, *const c_char, u64, u32) -> u64;
type Write = unsafe extern "C" fn(*mut c_void, u64, *const c_void, u64) -> bool;
type Read = unsafe extern "C" fn(*mut c_void, u64, *mut c_void, u64, *mut u64) -> bool;
type Run = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    *const c_char,
    *const u32,
    *const u32,
    u64,
    *const u64,
    u32,
    *mut Statistics,
) -> *const c_char;

impl<'a> Device<'a> {
    /// `schedule` 0 runs threads and blocks in their order, any other number in an order of its own.
    pub fn new(library: &'a Library, schedule: u32) -> Self {
        // SAFETY: the type is that of device.cpp.
        let machine = unsafe { library.function::<Open>("emulation_open")() };
        Self { library, machine, schedule, statistics: Cell::default(), digest: Cell::default() }
    }

    /// Memory that nothing has written; `name` is for messages.
    pub fn empty<T: Stored>(&self, name: &str, len: usize) -> Pointer<T> {
        let text = CString::new(name).expect("a name");
        // SAFETY: the type is that of device.cpp, the machine is open.
        let address = unsafe {
            let allocate = self.library.function::<Allocate>("emulation_allocate");
            allocate(self.machine, text.as_ptr(), size_of::<T>() as u64 * len as u64, size_of::<T>() as u32)
        };
        Pointer::new(address)
    }

    /// A copy of `values`.
    pub fn upload<T: Stored>(&self, name: &str, values: &[T]) -> Pointer<T> {
        let pointer = self.empty(name, values.len());
        // SAFETY: the type is that of device.cpp, the machine is open, the slice is as long as told.
        let written = unsafe {
            let write = self.library.function::<Write>("emulation_write");
            write(self.machine, pointer.address, values.as_ptr().cast(), size_of_val(values) as u64)
        };
        assert!(written, "{name} fits its own memory");
        pointer
    }

    /// What lies at `pointer`; an error if a part of it was never written.
    pub fn download<T: Stored + Default>(&self, name: &str, pointer: Pointer<T>, len: usize) -> Result<Vec<T>, String> {
        let mut values = vec![T::default(); len];
        let bytes = size_of_val(&values[..]);
        let mut unwritten = 0;
        // SAFETY: the type is that of device.cpp, the machine is open, the vector is as long as told.
        let read = unsafe {
            let read = self.library.function::<Read>("emulation_read");
            read(self.machine, pointer.address, values.as_mut_ptr().cast(), bytes as u64, &mut unwritten)
        };
        assert!(read, "{name} is not in device memory");
        if unwritten > 0 {
            return Err(format!("{unwritten} of {len} elements of {name} were never written"));
        }
        let mut hash = DefaultHasher::new();
        self.digest.get().hash(&mut hash);
        // SAFETY: numbers without padding.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), bytes) }.hash(&mut hash);
        self.digest.set(hash.finish());
        Ok(values)
    }

    /// Runs a kernel; an error tells what it did wrong.
    pub fn run(&self, launch: &Launch) -> Result<(), String> {
        if launch.shared > SHARED_LIMIT {
            return Err(format!("{} wants {} bytes of shared memory", launch.kernel, launch.shared));
        }
        let text = |text: &str| CString::new(text).expect("a name");
        let letters: String = launch.arguments.iter().map(|argument| argument.letter).collect();
        let slots: Vec<u64> = launch.arguments.iter().map(|argument| argument.slot).collect();
        let (name, letters) = (text(launch.kernel), text(&letters));
        let mut statistics = Statistics::default();
        // SAFETY: the type is that of device.cpp, the machine is open, the message is copied at once.
        let fault = unsafe {
            let run = self.library.function::<Run>("emulation_launch");
            let message = run(
                self.machine,
                name.as_ptr(),
                letters.as_ptr(),
                launch.grid.as_ptr(),
                [launch.block, 1, 1].as_ptr(),
                u64::from(launch.shared),
                slots.as_ptr(),
                self.schedule,
                &mut statistics,
            );
            (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
        };
        self.statistics.set(statistics);
        fault.map_or(Ok(()), Err)
    }

    /// Of the last launch.
    pub fn statistics(&self) -> Statistics {
        self.statistics.get()
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        // SAFETY: the type is that of device.cpp; nobody uses the machine any more.
        unsafe { self.library.function::<Close>("emulation_close")(self.machine) };
    }
}

/// What is to be shown of the kernels of a library, on a device with whatever schedule.
pub type Proof<'a> = &'a dyn Fn(&Device) -> Result<(), String>;

fn under_two_schedules(library: &Library, proof: Proof) -> Result<(), String> {
    let mut digests = Vec::new();
    for schedule in [0, 1] {
        let device = Device::new(library, schedule);
        proof(&device)?;
        digests.push(device.digest.get());
    }
    if digests[0] == digests[1] { Ok(()) } else { Err("another order of threads and blocks gives other bits".into()) }
}

/// `proof` holds for the kernels of `source`, with the same bits under two schedules.
pub fn prove(source: &str, proof: Proof) {
    let Some(library) = Library::of(source) else { return };
    if let Err(fault) = under_two_schedules(&library, proof) {
        panic!("{fault}");
    }
}

/// A change of a source, and a word of what must then go wrong.
pub struct Mutation {
    pub from: &'static str,
    pub to: &'static str,
    pub caught_by: &'static str,
}

/// `proof` fails, and for the right reason, for every one of the `mutations` of `source`.
pub fn catches(source: &str, proof: Proof, mutations: &[Mutation]) {
    let mut complaints = Vec::new();
    for Mutation { from, to, caught_by } in mutations {
        let Some(library) = Library::mutant(source, from, to) else { return };
        match under_two_schedules(&library, proof) {
            Ok(()) => complaints.push(format!("as good with {to:?} for {from:?}")),
            Err(fault) if !fault.contains(caught_by) => complaints.push(format!("{from:?} → {to:?} shows as: {fault}")),
            Err(_) => {}
        }
    }
    assert!(complaints.is_empty(), "{source}:\n{}", complaints.join("\n"));
}
