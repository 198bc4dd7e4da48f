//! An emulated GPU that a model can be put on.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use zephyr_kernels::cuda::{Bf16, Device, DeviceError, Element, Fetched, Free, Launch, Part};
use zephyr_kernels::gemm::cuda::{Format, Place, Product};
use zephyr_kernels::gemm::{self, Mat, MatMut};

use crate::compiler::{Library, Watch};
use crate::machine::Machine;

/// Launches run on the emulation; matrix products are this library's own on the CPU, in f32, rounded where the GPU's are.
pub struct Emulated {
    machine: Arc<Mutex<Machine>>,
    total: usize,
    /// Bytes of each piece, by address
    pieces: Mutex<HashMap<u64, usize>>,
    schedule: u32,
    hopper: bool,
    allocations: AtomicUsize,
    waits: Arc<AtomicUsize>,
}

impl fmt::Debug for Emulated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Emulated")
    }
}

impl Emulated {
    /// With 256 MiB; `None` without a C++ compiler. `schedule` as that of [`crate::Device`].
    pub fn new(watch: Watch, schedule: u32) -> Option<Arc<Self>> {
        Self::with_memory(watch, schedule, 1 << 28)
    }

    /// As [`Emulated::new`], a card that takes the kernels of attention for Hopper.
    pub fn hopper(watch: Watch, schedule: u32) -> Option<Arc<Self>> {
        Self::made(watch, schedule, 1 << 28, true)
    }

    /// With so many bytes of memory, 256 MiB at most.
    pub fn with_memory(watch: Watch, schedule: u32, total: usize) -> Option<Arc<Self>> {
        Self::made(watch, schedule, total, false)
    }

    fn made(watch: Watch, schedule: u32, total: usize, hopper: bool) -> Option<Arc<Self>> {
        let library = Library::whole(watch)?;
        Some(Arc::new(Self {
            machine: Arc::new(Mutex::new(Machine::new(&library))),
            total,
            pieces: Mutex::default(),
            schedule,
            hopper,
            allocations: AtomicUsize::default(),
            waits: Arc::default(),
        }))
    }

    /// Pieces of memory that were asked for so far.
    pub fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Relaxed)
    }

    /// How often the host waited for the device so far.
    pub fn waits(&self) -> usize {
        self.waits.load(Ordering::Relaxed)
    }

    /// Bytes that are allocated.
    pub fn used(&self) -> usize {
        lock(&self.pieces).values().sum()
    }
}

/// The emulation as a model sees it, with its matrix products; `None` without a C++ compiler.
pub fn whole() -> Option<Arc<dyn Device>> {
    Some(Emulated::new(Watch::Off, 0)?)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: impl Into<String>, cause: impl Into<String>) -> DeviceError {
    DeviceError::Failed { what: what.into(), cause: cause.into() }
}

impl Device for Emulated {
    fn name(&self) -> String {
        "emulation".to_owned()
    }

    fn memory(&self) -> Result<Free, DeviceError> {
        // Its kernels take none of this memory, and nothing is rounded.
        Ok(Free { free: self.total.saturating_sub(self.used()), total: self.total, reserve: 0 })
    }

    fn allocate(&self, what: &str, bytes: usize, parts: &[Part]) -> Result<u64, DeviceError> {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        let free = self.memory()?.free;
        let refused = || DeviceError::OutOfMemory { what: what.to_owned(), asked_and_free: Some([bytes, free]) };
        if bytes > free {
            return Err(refused());
        }
        let base = lock(&self.machine).reserve(bytes, parts).ok_or_else(refused)?;
        lock(&self.pieces).insert(base, bytes);
        Ok(base)
    }

    fn free(&self, base: u64) {
        lock(&self.pieces).remove(&base);
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        if lock(&self.machine).write(to, bytes) {
            return Ok(());
        }
        Err(failed("a copy to the device", format!("{} bytes leave their part", bytes.len())))
    }

    /// A card copies some time between now and the wait: here at both ends, which must not differ.
    fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, DeviceError> {
        let mut early = vec![0; bytes];
        read(&lock(&self.machine), from, &mut early)?;
        let (machine, waits) = (self.machine.clone(), self.waits.clone());
        Ok(Fetched::new(bytes, move |late| {
            waits.fetch_add(1, Ordering::Relaxed);
            read(&lock(&machine), from, late)?;
            if *late != early[..] {
                return Err(failed("a fetch", format!("its {bytes} bytes were written before they were waited for")));
            }
            Ok(())
        }))
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceError> {
        self.write(at, &vec![0; bytes])
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        let mut held = vec![0; bytes];
        read(&lock(&self.machine), from, &mut held)?;
        self.write(to, &held)
    }

    fn run(&self, launch: &Launch) -> Result<(), DeviceError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let (outcome, _) = lock(&self.machine).run(launch, self.schedule);
        outcome.map_err(|cause| failed(launch.kernel, cause))
    }

    fn multiply(&self, product: &Product) -> Result<(), DeviceError> {
        let machine = lock(&self.machine);
        let [m, n, _] = product.sizes();
        let (a, b) = (matrix(&machine, &product.a)?, matrix(&machine, &product.b)?);
        let mut sums = match product.addend {
            Some(address) => matrix(&machine, &Place { address, ..product.c })?,
            None => vec![0.0; m * n],
        };
        let beta = if product.addend.is_some() { 1.0 } else { 0.0 };
        let c = MatMut::new(&mut sums, m, n);
        let a = Mat::new(&a, product.a.rows, product.a.cols);
        let b = Mat::new(&b, product.b.rows, product.b.cols);
        match (product.transpose_a, product.transpose_b) {
            (false, true) => gemm::nt(c, a, b, product.alpha(), beta),
            (false, false) => gemm::nn(c, a, b, product.alpha(), beta),
            (true, false) => gemm::tn(c, a, b, product.alpha(), beta),
            (true, true) => return Err(failed("a product", "nobody multiplies two transposes")),
        }
        store(&machine, &product.c, &sums)
    }

    fn takes_hopper_kernels(&self) -> bool {
        self.hopper
    }
}

fn read(machine: &Machine, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
    match machine.read(from, bytes) {
        Some(0) => Ok(()),
        Some(unwritten) => Err(failed("a read", format!("{unwritten} elements were never written"))),
        None => Err(failed("a read", format!("{} bytes leave their part", bytes.len()))),
    }
}

/// The elements, rows adjacent.
fn matrix(machine: &Machine, place: &Place) -> Result<Vec<f32>, DeviceError> {
    let Place { address, format, rows, cols, stride } = *place;
    let size = format.bytes();
    let mut bytes = vec![0; rows * cols * size];
    if stride == cols {
        read(machine, address, &mut bytes)?;
    } else {
        for (row, bytes) in bytes.chunks_exact_mut(cols * size).enumerate() {
            read(machine, address + (row * stride * size) as u64, bytes)?;
        }
    }
    Ok(match format {
        Format::F32 => bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect(),
        Format::Bf16 => bytes.as_chunks().0.iter().map(|&two| Bf16(u16::from_le_bytes(two)).to_f32()).collect(),
    })
}

fn store(machine: &Machine, place: &Place, values: &[f32]) -> Result<(), DeviceError> {
    let Place { address, format, cols, stride, .. } = *place;
    let bytes: Vec<u8> = match format {
        Format::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Format::Bf16 => values.iter().flat_map(|&value| Bf16::from_f32(value).0.to_le_bytes()).collect(),
    };
    let size = format.bytes();
    let whole = stride == cols;
    let span = if whole { bytes.len() } else { cols * size };
    for (row, bytes) in bytes.chunks_exact(span.max(1)).enumerate() {
        if !machine.write(address + (row * stride * size) as u64, bytes) {
            return Err(failed("a product", "its result leaves its part"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn bytes_that_are_written_before_they_were_waited_for_are_seen() {
        let Some(device) = Emulated::new(Watch::Off, 0) else { return };
        let part = Part { name: "numbers".to_owned(), offset: 0, bytes: 8, element: 4 };
        let at = device.allocate("numbers", 8, &[part]).unwrap();
        device.write(at, &[1; 8]).unwrap();
        let (mut first, mut second) = ([0u8; 4], [0u8; 4]);
        let (of_first, of_second) = (device.fetch(at, 4).unwrap(), device.fetch(at + 4, 4).unwrap());
        device.clear(at + 4, 4).unwrap();
        of_first.wait(&mut first).unwrap();
        assert_eq!((first, device.waits()), ([1; 4], 1));
        let error = of_second.wait(&mut second).unwrap_err();
        assert!(error.to_string().contains("written before they were waited for"), "{error}");
        // Who does not wait does not mind.
        drop(device.fetch(at, 4).unwrap());
        device.clear(at, 4).unwrap();
    }
}
