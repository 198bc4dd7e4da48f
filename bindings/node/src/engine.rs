//! The engine thread: it owns the compute threads, and JavaScript queues work on it.
//!
//! One thread for the process, so that two trainers never fight for the cores and libuv's pool stays free. Jobs run
//! in the order in which they were queued; a panic in one is caught and rejects its promise only.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use napi::bindgen_prelude::{Object, ToNapiValue};
use napi::{Env, JsDeferred};
use napi_derive::napi;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::failure::Failure;

type Job = Box<dyn FnOnce(&mut Pool) + Send>;

static ENGINE: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// The compute threads; rebuilt when another count is asked for.
struct Pool {
    threads: usize,
    pool: Option<ThreadPool>,
}

impl Pool {
    fn get(&mut self) -> Result<&ThreadPool, Failure> {
        if self.pool.is_none() {
            let built = ThreadPoolBuilder::new()
                .num_threads(self.threads)
                .thread_name(|index| format!("zephyr-compute-{index}"))
                .build()
                .map_err(|error| Failure::new("ZA_THREADS", format!("{} threads: {error}", self.threads)))?;
            self.pool = Some(built);
        }
        Ok(self.pool.as_ref().expect("built above"))
    }
}

fn queue(job: Job) -> Result<(), Failure> {
    let gone = |_| Failure::new("ZA_INTERNAL", "the engine thread is gone. Remedy: restart the process");
    let mut engine = ENGINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if engine.is_none() {
        let (sender, receiver) = channel::<Job>();
        std::thread::Builder::new()
            .name("zephyr-engine".into())
            .spawn(move || {
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                let mut pool = Pool { threads, pool: None };
                while let Ok(job) = receiver.recv() {
                    job(&mut pool);
                }
            })
            .map_err(|error| Failure::new("ZA_THREADS", format!("the engine thread: {error}")))?;
        *engine = Some(sender);
    }
    engine.as_ref().expect("set above").send(job).map_err(|error| gone(error.to_string()))
}

/// Queues what nobody waits for.
pub fn behind(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    queue(Box::new(move |_| work()))
}

type Resolver<T> = Box<dyn FnOnce(Env) -> napi::Result<T>>;

/// The promise of a job that outlives its turn on the engine thread.
pub struct Promised<T: ToNapiValue + Send + 'static>(JsDeferred<T, Resolver<T>>);

impl<T: ToNapiValue + Send + 'static> Promised<T> {
    /// Runs `work` and settles the promise with its result; a panic rejects it.
    pub fn settle(self, work: impl FnOnce() -> Result<T, Failure>) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
            .unwrap_or_else(|payload| Err(Failure::panic(payload)));
        match outcome {
            Ok(value) => self.0.resolve(Box::new(move |_| Ok(value))),
            Err(failure) => self.0.reject(failure.into()),
        }
    }
}

/// Queues `work` on the engine; the promise settles with its result.
pub fn submit<'env, T>(
    env: &'env Env,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> napi::Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
{
    submit_detached(env, move |promised, pool| promised.settle(|| pool?.install(work)))
}

/// Queues `work` on the engine; it settles the promise itself, later and on another thread if it wants.
pub fn submit_detached<'env, T>(
    env: &'env Env,
    work: impl FnOnce(Promised<T>, Result<&ThreadPool, Failure>) + Send + 'static,
) -> napi::Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
{
    promise(env, |promised| queue(Box::new(move |pool| work(promised, pool.get()))))
}

/// A promise that `start` hands to whoever settles it.
pub fn promise<'env, T>(
    env: &'env Env,
    start: impl FnOnce(Promised<T>) -> Result<(), Failure>,
) -> napi::Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
{
    let (deferred, promise) = env.create_deferred::<T, Resolver<T>>()?;
    start(Promised(deferred))?;
    Ok(promise)
}

/// Sets the number of compute threads for all following work. Results are the same bits for the same count.
#[napi]
pub fn set_threads(threads: u32) -> napi::Result<()> {
    if threads == 0 || threads > 1024 {
        return Err(Failure::new("ZA_THREADS", format!("threads is {threads}. Remedy: take 1 to 1024")).into());
    }
    queue(Box::new(move |pool| {
        if pool.threads != threads as usize {
            *pool = Pool { threads: threads as usize, pool: None };
        }
    }))?;
    Ok(())
}

/// A flag that a long job polls: between tokens, sequences or micro-batches.
#[napi]
#[derive(Default)]
pub struct NativeAbort {
    pub(crate) flag: std::sync::Arc<AtomicBool>,
}

#[napi]
impl NativeAbort {
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the job to stop; it rejects with `ZA_ABORTED` or returns what it has, as documented there.
    #[napi]
    pub fn abort(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }
}

/// What this addon was built as: version, architecture, and the instruction set that kernels dispatch to.
#[napi(object)]
pub struct NativeInfo {
    pub version: String,
    pub arch: String,
    pub simd: String,
    pub threads: u32,
    /// Whether it has CUDA kernels.
    pub cuda: bool,
}

/// Describes the addon and the machine, for `doctor`.
#[napi]
pub fn native_info() -> NativeInfo {
    #[cfg(target_arch = "x86_64")]
    let simd = if std::is_x86_feature_detected!("avx512f") {
        "avx512"
    } else if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        "avx2"
    } else {
        "baseline"
    };
    #[cfg(not(target_arch = "x86_64"))]
    let simd = "baseline";
    NativeInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        arch: std::env::consts::ARCH.into(),
        simd: simd.into(),
        threads: std::thread::available_parallelism().map_or(1, usize::from) as u32,
        cuda: cfg!(feature = "cuda"),
    }
}
