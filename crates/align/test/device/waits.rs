//! Where the host waits in a step, and what the device has to do meanwhile.

use std::sync::{Arc, Mutex};

use zephyr_kernels::cuda::{Device, DeviceError, Fetched, Free, Launch, Part};
use zephyr_kernels::gemm::cuda::Product;

use super::{
    LossConfig, ReferenceLogps, denominator, documents, emulated, golden_pairs, in_f32, json, models, packed,
    packed_pairs, update, weights,
};

/// A device that notes what it is asked for.
#[derive(Debug)]
struct Noted {
    inner: Arc<dyn Device>,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Noted {
    fn note(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
    }

    /// The calls since the last time; of kernels the name.
    fn taken(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

impl Device for Noted {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn memory(&self) -> Result<Free, DeviceError> {
        self.inner.memory()
    }

    fn allocate(&self, what: &str, bytes: usize, parts: &[Part]) -> Result<u64, DeviceError> {
        self.inner.allocate(what, bytes, parts)
    }

    fn free(&self, base: u64) {
        self.inner.free(base);
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.note("write");
        self.inner.write(to, bytes)
    }

    fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, DeviceError> {
        self.note("fetch");
        let (fetched, calls) = (self.inner.fetch(from, bytes)?, self.calls.clone());
        Ok(Fetched::new(bytes, move |to| {
            calls.lock().unwrap().push("wait");
            fetched.wait(to)
        }))
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceError> {
        self.note("clear");
        self.inner.clear(at, bytes)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        self.note("copy");
        self.inner.copy(from, to, bytes)
    }

    fn run(&self, launch: &Launch) -> Result<(), DeviceError> {
        self.note(launch.kernel);
        self.inner.run(launch)
    }

    fn multiply(&self, product: &Product) -> Result<(), DeviceError> {
        self.note("product");
        self.inner.multiply(product)
    }
}

/// What was queued between the one fetch and its wait, and whether anything was queued after.
fn between(calls: &[&'static str]) -> (Vec<&'static str>, bool) {
    let place = |call: &str| {
        let mut places = calls.iter().enumerate().filter(|(_, found)| **found == call).map(|(place, _)| place);
        let place = places.next().expect(call);
        assert_eq!(places.next(), None, "one {call} in {calls:?}");
        place
    };
    let (fetch, wait) = (place("fetch"), place("wait"));
    (calls[fetch + 1..wait].to_vec(), wait + 1 < calls.len())
}

#[test]
fn while_the_host_waits_the_device_has_the_backward_pass_or_the_update_to_do() {
    let Some(folder) = models().into_iter().next() else { return };
    let Some(inner) = emulated() else { return };
    let noted = Arc::new(Noted { inner, calls: Arc::default() });
    let mut model = weights(folder.join("model.safetensors"));
    let mut session = in_f32(noted.clone());
    let batch = packed(&documents(&folder)[..2]);
    session.accumulate_sft(&model, &batch, 100.0).unwrap();
    noted.taken();

    // The coefficient is known before: the last chunk's gradients, and the whole backward pass.
    session.accumulate_sft(&model, &batch, 100.0).unwrap();
    let (queued, more) = between(&noted.taken());
    assert_eq!(queued[..2], ["head_gradient_f32_f32", "product"]);
    assert_eq!(queued.iter().filter(|call| call.starts_with("attention_key_gradients")).count(), model.config.layers);
    assert_eq!((queued.last(), more), (Some(&"embedding_backward_f32"), false));

    // The norm: everything that follows it in a step.
    session.apply(&mut model, &update(1e-3)).unwrap();
    let (queued, more) = between(&noted.taken());
    let (clear, updates) = queued.split_last().expect("calls");
    assert!(!updates.is_empty() && updates.iter().all(|call| call.starts_with("adamw_full")), "{queued:?}");
    assert_eq!((*clear, more), ("clear", false));

    // A loss that follows from the log-probabilities: the backward pass wants it, so nothing comes before the wait.
    let pairs = golden_pairs(&json(folder.join("dpo.json")));
    let zeros = vec![0.0; pairs.len()];
    let reference = ReferenceLogps { chosen: &zeros, rejected: &zeros };
    let (packed, losses) = (packed_pairs(&pairs), LossConfig::default());
    session.accumulate_dpo(&model, &packed, reference, &losses, denominator(&pairs)).unwrap();
    let (queued, more) = between(&noted.taken());
    assert!(queued.is_empty() && more, "{queued:?}");
}
