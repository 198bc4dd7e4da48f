//! Which library of CUDA the loader has opened. cudarc asks for `libcuda.so` and `libcublasLt.so` before it asks for their
//! numbered names, and the loader takes what is open already only for the very soname: an old toolkit, or a stub for linking, on
//! `LD_LIBRARY_PATH` comes before the library that was found and reported. **Not yet run on a GPU.**

use std::ffi::{CStr, c_char, c_int, c_void};

use cudarc::{cublaslt, driver};

use super::DeviceError;
use super::driver::done;

/// Major and minor; what the kernels and the calls of this build are made for.
const NEEDED: [u32; 2] = [13, 0];

/// What the loader tells of an address: `Dl_info` of dlfcn.h.
#[repr(C)]
struct Info {
    file: *const c_char,
    base: *mut c_void,
    symbol: *const c_char,
    address: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, info: *mut Info) -> c_int;
}

/// The file that holds that address.
fn file_of(address: *const c_void) -> Option<String> {
    let mut info = std::mem::MaybeUninit::<Info>::uninit();
    // SAFETY: it looks the address up and follows it nowhere; where it finds a file, it has written a path that lives as long as
    // the library, and cudarc closes none.
    unsafe {
        (dladdr(address, info.as_mut_ptr()) != 0)
            .then(|| CStr::from_ptr(info.assume_init().file).to_string_lossy().into_owned())
    }
}

/// Where cudarc has a function from: the file of its library.
macro_rules! file_with {
    ($library:expr, $function:literal) => {{
        // SAFETY: the library was opened for a call before; the address alone is taken, and nothing is called.
        let found = unsafe { $library().get::<*const c_void>($function.as_bytes()) };
        found.ok().and_then(|address| file_of(*address)).unwrap_or_else(|| "an unknown file".to_owned())
    }};
}

/// Refuses a library that is older than this build; without a version it is a stub.
fn check(name: &'static str, file: impl FnOnce() -> String, version: Option<[u32; 2]>) -> Result<(), DeviceError> {
    let text = |[major, minor]: [u32; 2]| format!("{major}.{minor}");
    match version {
        Some(version) if version >= NEEDED => Ok(()),
        version => {
            let found =
                version.map_or_else(|| "a stub for linking".to_owned(), |version| format!("CUDA {}", text(version)));
            Err(DeviceError::LibraryOld { name, file: file(), found, needed: format!("CUDA {}", text(NEEDED)) })
        }
    }
}

/// The driver that cudarc has opened can do what this build needs.
pub(super) fn check_driver() -> Result<(), DeviceError> {
    use driver::sys::{CUresult, cuDriverGetVersion, culib};
    let mut version: c_int = 0;
    // SAFETY: it may be called before anything else, and writes the number.
    let version = match unsafe { cuDriverGetVersion(&mut version) } {
        CUresult::CUDA_ERROR_STUB_LIBRARY => None,
        answer => {
            done("asking for the driver's version", answer.result())?;
            Some([version as u32 / 1000, version as u32 % 1000 / 10])
        }
    };
    check("NVIDIA's driver", || file_with!(culib, "cuDriverGetVersion"), version)
}

/// So is cublasLt, whose versions are those of the toolkit that it comes with.
pub(super) fn check_cublaslt() -> Result<(), DeviceError> {
    use cublaslt::sys::{cublasLtGetVersion, culib};
    // SAFETY: it may be called before anything else.
    let version = unsafe { cublasLtGetVersion() } as u32;
    // Every function of a stub gives one status; no version of cublasLt is so small.
    let version = (version >= 1000).then_some([version / 10_000, version / 100 % 100]);
    check("cublasLt", || file_with!(culib, "cublasLtGetVersion"), version)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_library_of_another_toolkit_is_refused_with_its_file() {
        let of = |version| check("cublasLt", || "/opt/old/libcublasLt.so".to_owned(), version);
        assert_eq!((of(Some([13, 0])), of(Some([13, 1]))), (Ok(()), Ok(())));
        for (version, found) in [(Some([12, 8]), "CUDA 12.8"), (None, "a stub for linking")] {
            let error = of(version).unwrap_err();
            assert_eq!(error.code(), "ZA_DEVICE_LIBRARY");
            let text = error.to_string();
            for part in [found, "CUDA 13.0", "/opt/old/libcublasLt.so", "LD_LIBRARY_PATH"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn the_file_of_an_address_is_told() {
        let file = file_of(file_of as *const c_void).expect("this program is a file");
        assert!(std::path::Path::new(&file).exists(), "{file}");
        assert_eq!(file_of(std::ptr::null()), None);
    }

    /// Where neither driver nor cublasLt is, or stubs are, it is an error of its own and no panic.
    #[test]
    fn without_a_usable_driver_the_error_is_typed() {
        if let Err(error) = super::super::open(0) {
            eprintln!("{error}");
            assert!(error.code().starts_with("ZA_"), "{error}");
        }
    }
}
