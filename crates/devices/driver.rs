//! NVIDIA's driver: the few functions that tell its version, its cards and their free memory.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

use libloading::Library;
use serde::Serialize;

/// `CUresult`; 0 is success.
type Code = c_int;

/// Codes that mean something to us (cuda.h).
pub(crate) mod code {
    pub const STUB_LIBRARY: i32 = 34;
    pub const NO_DEVICE: i32 = 100;
    pub const SYSTEM_NOT_READY: i32 = 802;
    pub const DRIVER_MISMATCH: i32 = 803;
}

/// `CUdevice_attribute`.
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;
const MULTIPROCESSORS: c_int = 16;

/// `functions! { struct Name { field: "symbol"(types…); … } }`: pointers to functions of a library.
macro_rules! functions {
    ($(#[$doc:meta])* struct $name:ident { $($field:ident: $symbol:literal($($type:ty),*);)* }) => {
        $(#[$doc])*
        pub(crate) struct $name { $($field: unsafe extern "C" fn($($type),*) -> Code,)* }

        impl $name {
            pub(crate) fn of(library: &Library) -> Result<Self, String> {
                // SAFETY: the types are those of cuda.h.
                Ok(Self { $($field: unsafe { symbol(library, $symbol)? },)* })
            }
        }
    };
}

functions! {
    /// What cards there are.
    struct Driver {
        init: "cuInit"(c_uint);
        count: "cuDeviceGetCount"(*mut c_int);
        device: "cuDeviceGet"(*mut c_int, c_int);
        name: "cuDeviceGetName"(*mut c_char, c_int, c_int);
        uuid: "cuDeviceGetUuid_v2"(*mut [u8; 16], c_int);
        bus: "cuDeviceGetPCIBusId"(*mut c_char, c_int, c_int);
        memory: "cuDeviceTotalMem_v2"(*mut usize, c_int);
        attribute: "cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
        retain: "cuDevicePrimaryCtxRetain"(*mut *mut c_void, c_int);
        release: "cuDevicePrimaryCtxRelease_v2"(c_int);
        push: "cuCtxPushCurrent_v2"(*mut c_void);
        pop: "cuCtxPopCurrent_v2"(*mut *mut c_void);
        memory_left: "cuMemGetInfo_v2"(*mut usize, *mut usize);
        explain: "cuGetErrorName"(c_int, *mut *const c_char);
    }
}

/// # Safety
/// `F` must be the type of that function.
unsafe fn symbol<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
    // SAFETY: by the caller's promise; the library stays open when it is taken (`library::look_for`).
    unsafe { library.get::<F>(name) }.map(|found| *found).map_err(|_| format!("it has no function {name}"))
}

/// The newest CUDA that a driver can do: 13000 for 13.0. A stub for linking has none.
pub(crate) fn cuda_version(library: &Library) -> Result<i32, String> {
    // SAFETY: the type is that of cuda.h; the function may be called before cuInit.
    let (code, version) = unsafe {
        let ask: unsafe extern "C" fn(*mut c_int) -> Code = symbol(library, "cuDriverGetVersion")?;
        let mut version = 0;
        (ask(&mut version), version)
    };
    match code {
        0 => Ok(version),
        code::STUB_LIBRARY => Err("it is a stub for linking, not the driver".to_owned()),
        code => Err(format!("cuDriverGetVersion gives error {code}")),
    }
}

/// One graphics card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    /// As the driver counts; `CUDA_VISIBLE_DEVICES` hides and reorders.
    pub index: usize,
    pub name: String,
    /// 9.0 is [9, 0].
    pub compute_capability: [u32; 2],
    pub multiprocessors: u32,
    /// Bytes
    pub memory: u64,
    /// Bytes that nobody uses, as far as it was asked for and the driver could tell.
    pub free: Option<u64>,
    /// `GPU-…`, as nvidia-smi prints it.
    pub uuid: String,
    /// Its place on the PCI bus, `0000:01:00.0`.
    pub bus: String,
}

/// A call of the driver that failed.
#[derive(Debug)]
pub(crate) struct Fault {
    pub code: i32,
    /// `cuInit: CUDA_ERROR_UNKNOWN (999)`
    pub text: String,
}

impl Driver {
    /// Starts the driver and asks for its cards.
    pub fn cards(&self) -> Result<Vec<Card>, Fault> {
        // SAFETY: pointers to locals of the types that cuda.h wants, here and below.
        self.check("cuInit", unsafe { (self.init)(0) })?;
        let mut count = 0;
        self.check("cuDeviceGetCount", unsafe { (self.count)(&mut count) })?;
        (0..usize::try_from(count).unwrap_or(0)).map(|index| self.card(index)).collect()
    }

    fn card(&self, index: usize) -> Result<Card, Fault> {
        let device = self.handle(index)?;
        let (mut memory, mut uuid) = (0usize, [0u8; 16]);
        // SAFETY: as above.
        self.check("cuDeviceTotalMem", unsafe { (self.memory)(&mut memory, device) })?;
        self.check("cuDeviceGetUuid", unsafe { (self.uuid)(&mut uuid, device) })?;
        let attribute = |which| {
            let mut value = 0;
            // SAFETY: as above.
            let code = unsafe { (self.attribute)(&mut value, which, device) };
            self.check("cuDeviceGetAttribute", code).map(|()| value.unsigned_abs())
        };
        Ok(Card {
            index,
            // SAFETY: the driver writes at most so many characters.
            name: self.text("cuDeviceGetName", |text, room| unsafe { (self.name)(text, room, device) })?,
            compute_capability: [attribute(COMPUTE_CAPABILITY_MAJOR)?, attribute(COMPUTE_CAPABILITY_MINOR)?],
            multiprocessors: attribute(MULTIPROCESSORS)?,
            memory: memory as u64,
            free: None,
            uuid: uuid_text(&uuid),
            // SAFETY: as for the name.
            bus: self.text("cuDeviceGetPCIBusId", |text, room| unsafe { (self.bus)(text, room, device) })?,
        })
    }

    /// Bytes of a card that nobody uses. Makes a context on it for a moment, as the driver tells it to no one else.
    pub fn free_memory(&self, index: usize) -> Result<u64, Fault> {
        let device = self.handle(index)?;
        let (mut context, mut popped, mut free, mut total) = (null_mut(), null_mut(), 0usize, 0usize);
        // SAFETY: as above; the context is pushed and popped on this thread, and retained as often as released.
        unsafe {
            self.check("cuDevicePrimaryCtxRetain", (self.retain)(&mut context, device))?;
            let asked = self.check("cuCtxPushCurrent", (self.push)(context)).and_then(|()| {
                let asked = self.check("cuMemGetInfo", (self.memory_left)(&mut free, &mut total));
                self.check("cuCtxPopCurrent", (self.pop)(&mut popped)).and(asked)
            });
            self.check("cuDevicePrimaryCtxRelease", (self.release)(device)).and(asked)?;
        }
        Ok(free as u64)
    }

    fn handle(&self, index: usize) -> Result<c_int, Fault> {
        let mut device = 0;
        // SAFETY: as above.
        self.check("cuDeviceGet", unsafe { (self.device)(&mut device, index as c_int) }).map(|()| device)
    }

    fn text(&self, name: &str, ask: impl FnOnce(*mut c_char, c_int) -> Code) -> Result<String, Fault> {
        let mut bytes = [0u8; 256];
        // The last byte stays 0 whatever the driver writes.
        self.check(name, ask(bytes.as_mut_ptr().cast(), bytes.len() as c_int - 1))?;
        let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy);
        Ok(text.map(|text| text.trim().to_owned()).unwrap_or_default())
    }

    fn check(&self, function: &str, code: Code) -> Result<(), Fault> {
        if code == 0 {
            return Ok(());
        }
        let mut name: *const c_char = std::ptr::null();
        // SAFETY: the driver gives a text that lives as long as it does, or none.
        let name = unsafe {
            let known = (self.explain)(code, &mut name) == 0 && !name.is_null();
            known.then(|| CStr::from_ptr(name).to_string_lossy())
        };
        Err(Fault { code, text: format!("{function} gives {} ({code})", name.as_deref().unwrap_or("an error")) })
    }
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
