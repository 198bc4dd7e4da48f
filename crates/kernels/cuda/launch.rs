//! Runs [`Launch`]es on a GPU, by its driver. **Not yet run on a GPU.**

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{from_ref, null_mut};
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::{CudaFunction, CudaModule, CudaStream, DriverError, result, sys};
use cudarc::nvrtc::Ptx;

use super::arguments::MOST;
use super::{Launch, TensorMap};

/// The kernels of each source, for every card that [`build.rs`](../../build.rs) names and those to come.
static FATBINS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

/// Kernel, target, registers of a thread, and bytes that did not fit them, as the compiler reports.
pub static RESOURCES: &[(&str, &str, u32, u32)] = include!(concat!(env!("OUT_DIR"), "/resources.rs"));

/// Dynamic shared memory that a kernel may have without asking.
const UNASKED_SHARED: u32 = 48 * 1024;

/// What the driver refused.
#[derive(Debug)]
pub struct LaunchError {
    /// The kernel, or the source whose kernels could not be loaded.
    pub what: String,
    pub cause: DriverError,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {:?}", self.what, self.cause)
    }
}

impl std::error::Error for LaunchError {}

/// The kernels, loaded for one card, on one stream of it.
#[derive(Debug)]
pub struct Launcher {
    stream: Arc<CudaStream>,
    modules: Vec<Arc<CudaModule>>,
    functions: HashMap<&'static str, CudaFunction>,
}

impl Launcher {
    /// Loads all kernels.
    ///
    /// # Errors
    /// The card is older than sm_80, or the driver older than the toolkit that built the kernels.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self, LaunchError> {
        let load = |(source, fatbin): &(&str, &[u8])| {
            let loaded = stream.context().load_module(Ptx::from_binary(fatbin.to_vec()));
            loaded.map_err(|cause| LaunchError { what: (*source).to_owned(), cause })
        };
        let modules = FATBINS.iter().map(load).collect::<Result<_, _>>()?;
        Ok(Self { stream, modules, functions: HashMap::new() })
    }

    /// Sources whose kernels are loaded.
    pub fn sources(&self) -> usize {
        self.modules.len()
    }

    /// Queues `launch` behind everything that the stream has; one without blocks does nothing. Nothing is allocated here: the
    /// driver copies the arguments from where they lie.
    ///
    /// # Errors
    /// What the driver finds at once. A kernel that fails later makes the next calls on the context fail.
    ///
    /// # Safety
    /// The pointers must lie in memory of this card that is large enough and lives until the stream is done with it.
    pub unsafe fn run(&mut self, launch: &Launch) -> Result<(), LaunchError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let failed = |cause| LaunchError { what: launch.kernel.to_owned(), cause };
        self.stream.context().bind_to_thread().map_err(failed)?;
        let function = self.function(launch).map_err(failed)?;
        let mut maps = [const { MaybeUninit::<sys::CUtensorMap>::uninit() }; MOST];
        let mut places: [*mut c_void; MOST] = [null_mut(); MOST];
        for ((place, map), argument) in places.iter_mut().zip(&mut maps).zip(&*launch.arguments) {
            *place = match &argument.map {
                Some(given) => from_ref(map.write(encode(given).map_err(failed)?)).cast_mut().cast(),
                None => from_ref(&argument.slot).cast_mut().cast(),
            };
        }
        let places = &mut places[..launch.arguments.len()];
        let [x, y, z] = launch.grid;
        // SAFETY: the arguments are as the kernel's signature has them (the emulated tests compare the two), each at the
        // start of its slot or a map, and the driver only reads them; the memory is the caller's promise.
        unsafe {
            let stream = self.stream.cu_stream();
            result::launch_kernel(function, (x, y, z), (launch.block, 1, 1), launch.shared, stream, places)
        }
        .map_err(failed)
    }

    /// The kernel, ready for as much shared memory as the launch wants.
    fn function(&mut self, launch: &Launch) -> Result<cudarc::driver::sys::CUfunction, DriverError> {
        if let Some(function) = self.functions.get(launch.kernel) {
            return Ok(function.cu_function());
        }
        let mut found = Err(DriverError(cudarc::driver::sys::CUresult::CUDA_ERROR_NOT_FOUND));
        for module in &self.modules {
            found = module.load_function(launch.kernel);
            if found.is_ok() {
                break;
            }
        }
        let function = found?;
        // A kernel's shared memory depends on its head dimension alone, so the first launch asks for all that follow.
        if launch.shared > UNASKED_SHARED {
            let bytes = launch.shared as i32;
            function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)?;
        }
        let handle = function.cu_function();
        self.functions.insert(launch.kernel, function);
        Ok(handle)
    }
}

/// The map as Hopper's copy engine takes it: bf16, swizzled by 128 bytes, zeros outside.
fn encode(map: &TensorMap) -> Result<sys::CUtensorMap, DriverError> {
    let mut encoded = MaybeUninit::uninit();
    // SAFETY: each pointer is that of as many numbers as a matrix of two dimensions has; the driver looks at no memory of the
    // card, and writes the map if it gives no error.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            encoded.as_mut_ptr(),
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            2,
            map.address as *mut c_void,
            [map.columns, map.rows].as_ptr(),
            [map.stride].as_ptr(),
            [map.box_columns, map.box_rows].as_ptr(),
            [1, 1].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
        .result()?;
        Ok(encoded.assume_init())
    }
}

#[cfg(test)]
mod test {
    use super::{FATBINS, RESOURCES};
    use std::collections::HashSet;

    #[test]
    fn every_kernel_is_there_for_every_card() {
        let kernels: HashSet<&str> = RESOURCES.iter().map(|row| row.0).collect();
        assert!(kernels.len() > 50, "{} kernels", kernels.len());
        for kernel in kernels {
            for target in ["sm_80", "sm_86", "sm_89", "sm_90a"] {
                assert!(RESOURCES.iter().any(|row| (row.0, row.1) == (kernel, target)), "{kernel} for {target}");
            }
        }
        assert!(FATBINS.iter().all(|(_, fatbin)| fatbin.len() > 1000));
    }

    /// Registers that spill to memory cost time: none do, except a few in the largest tiles of attention.
    #[test]
    fn registers_suffice() {
        for &(kernel, target, registers, spilled) in RESOURCES {
            if spilled > 0 {
                eprintln!("{kernel} for {target}: {registers} registers, {spilled} bytes spilled");
            }
            let allowed = if kernel.starts_with("attention_") { 96 } else { 0 };
            assert!(spilled <= allowed, "{kernel} for {target} spills {spilled} bytes");
        }
    }
}
