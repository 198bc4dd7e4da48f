//! What drivers, libraries and cards do wrong, with real libraries that a C compiler makes: the faults are theirs, and what
//! reads them is the code that ships.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Build, Card, Choice, Refusal, Surroundings, Survey, Wanted, choose};

/// A machine: an empty root, and a folder of libraries in LD_LIBRARY_PATH.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    /// `None`, loudly, without a C compiler.
    fn new() -> Option<Self> {
        if Command::new("cc").arg("--version").output().is_err() {
            eprintln!("SKIPPED: no C compiler (cc), so faults of drivers are not tested");
            return None;
        }
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("mine")).expect("a folder");
        Some(Self { root })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join("mine").join(name)
    }

    /// A driver as the macros tell it.
    fn with_driver(self, macros: &[&str]) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("test/driver.c");
        let flags = macros.iter().map(|define| format!("-D{define}"));
        compile(Command::new("cc").args(flags).arg(source), &self.at("libcuda.so.1"));
        self
    }

    fn with_libraries(self) -> Self {
        let source = self.at("empty.c");
        std::fs::write(&source, "int cublasLtCreate(void) { return 0; }\n").expect("a file");
        compile(Command::new("cc").arg(source), &self.at("libcublasLt.so.13"));
        self
    }

    fn with_text(self, name: &str) -> Self {
        std::fs::write(self.at(name), "version https://git-lfs.github.com/spec/v1\n".repeat(4)).expect("a file");
        self
    }

    fn surroundings(&self) -> Surroundings {
        let folders = self.root.path().join("mine").display().to_string();
        Surroundings::new(self.root.path(), &[("LD_LIBRARY_PATH", folders)])
    }

    fn choose(&self, wanted: &str) -> Result<Choice, Refusal> {
        choose(Wanted::parse(wanted).expect("a name"), Build::Cuda, &self.surroundings())
    }

    fn card(&self, wanted: &str) -> Card {
        match self.choose(wanted) {
            Ok(Choice::Card(card)) => card,
            other => panic!("{other:?}"),
        }
    }

    /// The code and the text of what stands against `wanted`.
    fn refusal(&self, wanted: &str) -> (&'static str, String) {
        let refusal = self.choose(wanted).expect_err("it cannot be used");
        (refusal.error.code(), refusal.to_string())
    }
}

fn compile(command: &mut Command, library: &Path) {
    let output = command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).output().expect("the compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Where the loader itself finds a driver, what is wrong with one of ours is not the end of the search.
fn is_here(library: &str) -> bool {
    // SAFETY: NVIDIA's library, or none.
    let here = unsafe { libloading::Library::new(library) }.is_ok();
    if here {
        eprintln!("SKIPPED: this machine has {library}");
    }
    here
}

#[test]
fn a_good_card_is_taken() {
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&["CARDS=2"]).with_libraries();
    for (wanted, index) in [("cuda", 0), ("auto", 0), ("cuda:1", 1)] {
        let card = machine.card(wanted);
        assert_eq!((card.index, card.name.as_str(), card.compute_capability), (index, "NVIDIA H200", [9, 0]));
        assert_eq!((card.memory, card.free), (150_754_820_096, Some(149_000_000_000)));
        assert_eq!(card.multiprocessors, 132);
    }
    assert_eq!(machine.card("cuda:1").uuid, "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f");
    let survey = Survey::of(&machine.surroundings());
    assert_eq!(survey.problem, None);
    assert_eq!(survey.driver.expect("a driver").cuda, "13.0");
    assert_eq!(survey.libraries[0].path, machine.at("libcublasLt.so.13"));
}

#[test]
fn a_card_that_is_not_there() {
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&["CARDS=2"]).with_libraries();
    let (code, text) = machine.refusal("cuda:2");
    assert_eq!(code, "ZA_DEVICE_INDEX");
    assert!(text.contains("no card 2: the driver shows 2, from 0 to 1"), "{text}");
    assert!(text.contains("Remedy: Take one of cuda:0 to cuda:1."), "{text}");
}

#[test]
fn a_driver_without_cards() {
    for macros in [["CARDS=0"], ["INIT=100"]] {
        let Some(machine) = Machine::new() else { return };
        let machine = machine.with_driver(&macros).with_libraries();
        assert_eq!(machine.refusal("cuda").0, "ZA_DEVICE_NO_CARD");
        let Ok(Choice::Cpu { because: Some(because), .. }) = machine.choose("auto") else { panic!("auto never fails") };
        assert_eq!(because.code(), "ZA_DEVICE_NO_CARD");
    }
}

#[test]
fn a_driver_that_is_too_old() {
    let Some(machine) = Machine::new() else { return };
    // It also lacks functions of newer ones, which is not what is wrong with it.
    let machine = machine.with_driver(&["VERSION=11040", "WITHOUT_NAME"]).with_libraries();
    let (code, text) = machine.refusal("cuda");
    assert_eq!(code, "ZA_DEVICE_DRIVER_OLD");
    assert!(text.contains("can do CUDA 11.4, and CUDA 13.0 is needed"), "{text}");
    assert!(text.contains(&machine.at("libcuda.so.1").display().to_string()), "{text}");
}

#[test]
fn a_driver_that_fails() {
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&["INIT=803"]).with_libraries();
    let (code, text) = machine.refusal("cuda");
    assert_eq!(code, "ZA_DEVICE_FAILS");
    assert!(text.contains("cuInit gives CUDA_ERROR_AS_TOLD (803)"), "{text}");
    assert!(text.contains("kernel module differ"), "{text}");
}

#[test]
fn a_card_that_is_too_old() {
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&["MAJOR=7", "NAME=\"Tesla V100\""]).with_libraries();
    let (code, text) = machine.refusal("cuda:0");
    assert_eq!(code, "ZA_DEVICE_CARD_OLD");
    assert!(text.contains("card 0 (Tesla V100) is sm_70"), "{text}");
}

#[test]
fn a_card_without_free_memory_and_one_that_is_taken() {
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&["FREE=(100ull<<20)"]).with_libraries();
    let (code, text) = machine.refusal("cuda");
    assert_eq!(code, "ZA_DEVICE_MEMORY");
    assert!(text.contains("has 0.1 GiB of 140.4 GiB free, and the engine alone needs 0.5 GiB"), "{text}");
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&["BUSY"]).with_libraries();
    let (code, text) = machine.refusal("cuda");
    assert_eq!(code, "ZA_DEVICE_FAILS");
    assert!(text.contains("cuDevicePrimaryCtxRetain gives an error (46)"), "{text}");
}

#[test]
fn a_library_that_is_missing_or_damaged() {
    if is_here("libcublasLt.so.13") {
        return;
    }
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&[]);
    let (code, text) = machine.refusal("cuda");
    assert_eq!(code, "ZA_DEVICE_LIBRARY");
    assert!(text.contains("libcublasLt.so.13: not in"), "{text}");
    assert!(text.contains("libcuda.so.1: taken"), "{text}");
    let machine = machine.with_text("libcublasLt.so.13");
    let (code, text) = machine.refusal("cuda");
    assert_eq!(code, "ZA_DEVICE_LIBRARY");
    assert!(text.contains("mine/libcublasLt.so.13: "), "{text}");
    assert!(text.contains("invalid ELF header"), "{text}");
}

#[test]
fn no_driver_at_all_and_what_is_none() {
    if is_here("libcuda.so.1") {
        return;
    }
    let Some(machine) = Machine::new() else { return };
    let (code, text) = machine.with_libraries().refusal("cuda");
    assert_eq!(code, "ZA_DEVICE_NO_DRIVER");
    assert!(text.contains("libcuda.so.1: not in") && text.contains("the loader's own search"), "{text}");

    let faults: [(&str, &str); 3] = [
        ("WITHOUT_NAME", "it has no function cuDeviceGetName"),
        ("STUB", "it is a stub for linking, not the driver"),
        ("", "invalid ELF header"),
    ];
    for (define, fault) in faults {
        let Some(machine) = Machine::new() else { return };
        let machine =
            if define.is_empty() { machine.with_text("libcuda.so.1") } else { machine.with_driver(&[define]) };
        let (code, text) = machine.with_libraries().refusal("cuda");
        assert_eq!(code, "ZA_DEVICE_NO_DRIVER");
        assert!(text.contains(fault), "{fault}: {text}");
    }
}

/// An ELF file of another machine, as a copied folder of an ARM computer has.
#[test]
fn a_driver_of_another_architecture() {
    if is_here("libcuda.so.1") {
        return;
    }
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&[]).with_libraries();
    let path = machine.at("libcuda.so.1");
    let mut bytes = std::fs::read(&path).expect("the driver");
    // e_machine: IBM's S/390.
    bytes[18] = 22;
    std::fs::remove_file(&path).expect("a file");
    std::fs::write(&path, bytes).expect("a file");
    let (code, text) = machine.refusal("cuda");
    assert_eq!(code, "ZA_DEVICE_NO_DRIVER");
    assert!(text.contains("mine/libcuda.so.1: "), "{text}");
}

#[test]
fn a_build_without_cuda_says_so() {
    let Some(machine) = Machine::new() else { return };
    let machine = machine.with_driver(&[]).with_libraries();
    let build = Build::WithoutCuda;
    let refusal = choose(Wanted::Cuda(None), build, &machine.surroundings()).expect_err("no card helps");
    assert_eq!(refusal.error.code(), "ZA_DEVICE_NO_BUILD");
    assert!(refusal.to_string().contains("no CUDA"), "{refusal}");
    let chosen = choose(Wanted::Auto, build, &machine.surroundings()).expect("auto never fails");
    assert!(matches!(chosen, Choice::Cpu { because: Some(_), card_here: false }), "{chosen:?}");
}
