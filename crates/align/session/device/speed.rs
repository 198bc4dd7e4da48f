//! Times a card at the shape of Mistral-7B with random weights (bench/gpu). Generating: prompts, then tokens of one and of many
//! sequences. Training: SFT, and DPO with a reference computed before, of all weights and of an adapter, over packed sequences;
//! DPO of an adapter over NF4 weights.
//! usage: speed FILE.json [SECONDS]
//!
//! Without the feature `card`: a tiny shape on the emulation, so that the program is known to run; no figure means anything
//! then.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use zephyr_align::batch::sides;
use zephyr_align::losses::{Denominator, LossConfig};
use zephyr_align::session::{MemoryPlan, OptimizerKind, Precision, ReferenceLogps, Work};
use zephyr_align::{Packed, Sequence, Session, SessionOptions, Update, flops};
use zephyr_kernels::cuda::{Bf16, Device, DeviceError, Fetched, Free, Launch, Part};
use zephyr_kernels::gemm::cuda::{Product, peak};
use zephyr_mistral::device::Resident;
use zephyr_mistral::generate::{GenerateOptions, Generator, Request};
use zephyr_mistral::train::Recompute;
use zephyr_mistral::{Adapter, Config, LoraConfig, Model, Storage, Weights};

/// What is trained, and how long.
struct Shape {
    config: Value,
    /// Tokens of a step, in sequences of these lengths
    tokens: usize,
    lengths: &'static [usize],
    /// Rows of a square product
    square: usize,
    warm_up: usize,
    steps: usize,
    /// Tokens of a prompt that is continued, and of its answer
    prompt: usize,
    answer: usize,
}

/// What is trained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trained {
    Full,
    Lora,
    /// An adapter over weights that are kept as NF4
    Qlora,
}

impl Trained {
    fn name(self) -> &'static str {
        ["full", "lora", "qlora"][self as usize]
    }
}

/// What is set up once, and then trained at every length. A setting costs more time than a job.
#[derive(Clone, Copy)]
struct Setting {
    trained: Trained,
    /// `None`: what computes least again and fits
    recompute: Option<Recompute>,
}

/// The third is for the memory that all weights take at least; left out where the first has come to it already. The weights become
/// NF4 for the last.
const SETTINGS: [Setting; 4] = [
    Setting { trained: Trained::Full, recompute: None },
    Setting { trained: Trained::Lora, recompute: None },
    Setting { trained: Trained::Full, recompute: Some(Recompute::Layer) },
    Setting { trained: Trained::Qlora, recompute: None },
];

fn shape() -> Shape {
    if cfg!(feature = "card") {
        let config = json!({
            "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"
        });
        return Shape {
            config,
            tokens: 8192,
            lengths: &[1024, 2048],
            square: 8192,
            warm_up: 2,
            steps: 5,
            prompt: 512,
            answer: 64,
        };
    }
    let config = json!({
        "model_type": "mistral", "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu"
    });
    Shape { config, tokens: 128, lengths: &[32, 64], square: 64, warm_up: 1, steps: 1, prompt: 70, answer: 3 }
}

#[cfg(feature = "card")]
fn card() -> Arc<dyn Device> {
    let card = zephyr_devices::first_card().unwrap_or_else(|refusal| panic!("{refusal}"));
    zephyr_kernels::cuda::open(card.index).unwrap_or_else(|error| panic!("{error}"))
}

#[cfg(not(feature = "card"))]
fn card() -> Arc<dyn Device> {
    use zephyr_emulator::{Emulated, Watch};
    Emulated::new(Watch::Off, 0).expect("a C++ compiler")
}

/// Time on the device by class of kernel.
type Classes = BTreeMap<&'static str, Class>;

#[derive(Clone, Copy, Default)]
struct Class {
    launches: u32,
    seconds: f64,
    /// Of products
    operations: f64,
}

/// A device that, while it is told to, waits after everything that it is asked for and notes how long that took.
#[derive(Debug)]
struct Timed {
    inner: Arc<dyn Device>,
    on: AtomicBool,
    /// Four bytes to wait by
    probe: u64,
    /// What a wait for nothing takes, seconds
    idle: f64,
    classes: Mutex<Classes>,
}

impl std::fmt::Debug for Class {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} launches, {} s", self.launches, self.seconds)
    }
}

impl Timed {
    fn new(inner: Arc<dyn Device>) -> Result<Arc<Self>, DeviceError> {
        let part = Part { name: "probe".into(), offset: 0, bytes: 4, element: 4 };
        let probe = inner.allocate("The clock", 4, &[part])?;
        inner.clear(probe, 4)?;
        let mut timed = Self { inner, on: AtomicBool::new(false), probe, idle: 0.0, classes: Mutex::default() };
        let mut waits: Vec<f64> = (0..101).map(|_| timed.wait()).collect::<Result<_, _>>()?;
        waits.sort_by(f64::total_cmp);
        timed.idle = waits[50];
        Ok(Arc::new(timed))
    }

    /// Seconds until all that was asked for is done.
    fn wait(&self) -> Result<f64, DeviceError> {
        let start = Instant::now();
        self.inner.fetch(self.probe, 4)?.wait(&mut [0u8; 4])?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn note<R>(
        &self,
        class: &'static str,
        operations: f64,
        ask: impl FnOnce() -> Result<R, DeviceError>,
    ) -> Result<R, DeviceError> {
        if !self.on.load(Ordering::Relaxed) {
            return ask();
        }
        let start = Instant::now();
        let asked = ask()?;
        self.wait()?;
        let seconds = (start.elapsed().as_secs_f64() - self.idle).max(0.0);
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = classes.entry(class).or_default();
        entry.launches += 1;
        entry.seconds += seconds;
        entry.operations += operations;
        Ok(asked)
    }

    /// What `step` takes, class by class. Slower as a whole than without the waits.
    fn profile(&self, step: impl FnOnce()) -> Classes {
        self.on.store(true, Ordering::Relaxed);
        step();
        self.on.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.classes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The op of a kernel.
fn class(kernel: &'static str) -> &'static str {
    const OPS: [&str; 15] = [
        "attention_forward",
        "attention_cached",
        "attention_combine",
        "attention_backward",
        "rms_norm",
        "rope",
        "swiglu",
        "embedding",
        "dropout",
        "noise",
        "head",
        "norm",
        "adamw",
        "cast",
        "nf4",
    ];
    match OPS.into_iter().find(|op| kernel.starts_with(op)) {
        Some(op) => op,
        None if kernel.starts_with("attention") => "attention_backward",
        None => "rows moved",
    }
}

impl Device for Timed {
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
        self.note("from the host", 0.0, || self.inner.write(to, bytes))
    }

    fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, DeviceError> {
        self.note("to the host", 0.0, || self.inner.fetch(from, bytes))
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceError> {
        self.note("zeros", 0.0, || self.inner.clear(at, bytes))
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        self.note("copies", 0.0, || self.inner.copy(from, to, bytes))
    }

    fn run(&self, launch: &Launch) -> Result<(), DeviceError> {
        self.note(class(launch.kernel), 0.0, || self.inner.run(launch))
    }

    fn multiply(&self, product: &Product) -> Result<(), DeviceError> {
        let [m, n, k] = product.sizes();
        self.note("products", 2.0 * (m * n * k) as f64, || self.inner.multiply(product))
    }
}

/// Sequences of which the second half is an answer; for DPO chosen and rejected in turns.
fn batch(shape: &Shape, length: usize, vocabulary: u32) -> Packed {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        3 + (state >> 8) % (vocabulary - 3)
    };
    let ids: Vec<Vec<u32>> = (0..shape.tokens / length).map(|_| (0..length).map(|_| next()).collect()).collect();
    let supervised: Vec<bool> = (0..length).map(|at| at >= length / 2).collect();
    Packed::new(ids.iter().map(|ids| Sequence { ids, supervised: &supervised })).expect("sequences")
}

/// One kind of step over and over.
struct Job<'a> {
    name: &'static str,
    packed: &'a Packed,
    /// Log-probs of chosen and rejected answers under the reference; none for SFT
    reference: Option<(Vec<f64>, Vec<f64>)>,
}

impl Job<'_> {
    /// A whole step; its loss.
    fn step(&self, session: &mut Session, weights: &mut Weights, adapter: &mut Option<Adapter>) -> f64 {
        let predicted: f64 = self.packed.predicted.iter().map(|&count| f64::from(count)).sum();
        let loss = {
            let model = Model { weights, adapter: adapter.as_ref() };
            match &self.reference {
                None => session.accumulate_sft(model, self.packed, predicted).expect("a step").loss,
                Some((chosen, rejected)) => {
                    let reference = ReferenceLogps { chosen, rejected };
                    let denominator = Denominator { pairs: chosen.len() as f64, chosen_tokens: predicted / 2.0 };
                    let config = LossConfig::default();
                    session.accumulate_dpo(model, self.packed, reference, &config, denominator).expect("a step").loss
                }
            }
        };
        let update = Update {
            learning_rate: 5e-7,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: Some(1.0),
        };
        let applied = match adapter {
            Some(adapter) => session.apply(adapter, &update),
            None => session.apply(weights, &update),
        };
        let norm = applied.expect("a step").grad_norm;
        assert!(loss.is_finite() && norm > 0.0, "{}: loss {loss}, norm {norm}", self.name);
        loss
    }
}

/// Times a job; a row of the report.
fn measure(
    timed: &Timed,
    shape: &Shape,
    job: &Job,
    plan: &MemoryPlan,
    session: &mut Session,
    weights: &mut Weights,
    adapter: &mut Option<Adapter>,
) -> Value {
    let mut losses = Vec::new();
    let mut times = Vec::new();
    for _ in 0..shape.warm_up + shape.steps {
        let start = Instant::now();
        losses.push(job.step(session, weights, adapter));
        times.push(start.elapsed().as_secs_f64());
    }
    let mut times = times.split_off(shape.warm_up);
    times.sort_by(f64::total_cmp);
    let seconds = times[times.len() / 2];
    let work = flops::training(Model { weights, adapter: adapter.as_ref() }, job.packed);
    let classes = timed.profile(|| {
        job.step(session, weights, adapter);
    });
    let whole: f64 = classes.values().map(|class| class.seconds).sum();
    let classes: BTreeMap<&str, Value> = classes
        .iter()
        .map(|(name, class)| {
            let mut row = json!({
                "launches": class.launches,
                "ms": 1e3 * class.seconds,
                "share": class.seconds / whole,
            });
            if class.operations > 0.0 {
                row["tflops"] = json!(class.operations / class.seconds / 1e12);
            }
            (*name, row)
        })
        .collect();
    let tokens = job.packed.tokens() as f64;
    let sequences = job.packed.sequences();
    json!({
        "name": job.name,
        "sequences": sequences,
        "length": tokens as usize / sequences,
        "tokens": tokens,
        "seconds_per_step": seconds,
        "tokens_per_s": tokens / seconds,
        "pairs_per_s": job.reference.as_ref().map(|(chosen, _)| chosen.len() as f64 / seconds),
        "model_tflops": work / seconds / 1e12,
        "planned_memory_gib": session.bytes() as f64 / f64::powi(2.0, 30),
        "recompute": plan.recompute.name(),
        "plan": plan.to_string(),
        "first_loss": losses[0],
        "last_loss": losses[losses.len() - 1],
        "classes": classes,
    })
}

/// Continues so many prompts at once, twice, the second time on the clock. The prompts go through in one step, so that every
/// later one is a token of each sequence.
fn decoding(shape: &Shape, resident: &mut Resident, sequences: usize, vocabulary: u32) -> Value {
    let prompt = |sequence: usize| {
        (0..shape.prompt).map(move |at| 3 + (sequence * 7919 + at * 104_729) as u32 % (vocabulary - 3))
    };
    let options = GenerateOptions {
        max_tokens: shape.answer,
        temperature: 0.0,
        stop_token_ids: Some(vec![]),
        ..Default::default()
    };
    let requests: Vec<Request> =
        (0..sequences).map(|at| Request { prompt: prompt(at).collect(), options: options.clone() }).collect();
    let mut times = Vec::new();
    for _ in 0..2 {
        times.clear();
        let start = Instant::now();
        let mut generator = Generator::on(resident.network()).with_rows(sequences * shape.prompt);
        let answers = generator.generate_batch(&requests, |_, _, _| {
            times.push(start.elapsed().as_secs_f64());
            ControlFlow::Continue(())
        });
        answers.unwrap_or_else(|error| panic!("{error}"));
    }
    let (first, last) = (times[sequences - 1], times[times.len() - 1]);
    json!({
        "sequences": sequences,
        "prompt": shape.prompt,
        "prompt_tokens_per_s": (sequences * shape.prompt) as f64 / first,
        "ms_per_step": 1e3 * (last - first) / (shape.answer - 1) as f64,
        "tokens_per_s": (sequences * (shape.answer - 1)) as f64 / (last - first),
        "memory_gib": resident.bytes() as f64 / f64::powi(2.0, 30),
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let file = arguments.next().expect("usage: speed FILE.json [SECONDS]");
    let budget: f64 = arguments.next().map_or(120.0, |seconds| seconds.parse().expect("seconds"));
    let begin = Instant::now();
    let shape = shape();
    let timed = Timed::new(card()).unwrap_or_else(|error| panic!("{error}"));
    let device: Arc<dyn Device> = timed.clone();
    let fastest = peak::<Bf16>(&device, shape.square, 0.5).unwrap_or_else(|error| panic!("{error}"));
    let config = Config::from_json(&shape.config.to_string(), "speed").expect("a configuration");
    let mut weights = Weights::random(config, 1);
    let vocabulary = weights.config.vocab_size as u32;
    let made = begin.elapsed().as_secs_f64();

    let mut generating = Vec::new();
    let mut resident =
        Resident::new(device.clone(), (&weights).into(), || ()).unwrap_or_else(|error| panic!("{error}"));
    for sequences in [1, 32] {
        let row = decoding(&shape, &mut resident, sequences, vocabulary);
        println!("decoding {sequences}: {:.0} tok/s", row["tokens_per_s"].as_f64().unwrap_or(0.0));
        generating.push(row);
    }
    drop(resident);

    let (mut rows, mut left_out, mut least) = (Vec::new(), Vec::new(), None);
    let write = |rows: &[Value], left_out: &[Value]| {
        let report = json!({
            "device": timed.name(),
            "attention": std::env::var("ZEPHYR_ATTENTION").unwrap_or_else(|_| "for every card".into()),
            "emulated": !cfg!(feature = "card"),
            "gemm_peak_tflops": fastest / 1e12,
            "seconds_for_weights": made,
            "generating": generating,
            "training": rows,
            "left_out": left_out,
            "seconds": begin.elapsed().as_secs_f64(),
        });
        let text = serde_json::to_string_pretty(&report).expect("numbers and names");
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{file}: {error}"));
    };
    for Setting { trained, recompute } in SETTINGS {
        if begin.elapsed().as_secs_f64() > budget {
            left_out.push(json!({ "name": trained.name(), "reason": "no time left" }));
            write(&rows, &left_out);
            continue;
        }
        if trained == Trained::Qlora {
            weights = weights.converted(Storage::Nf4).unwrap_or_else(|error| panic!("{error}"));
        }
        let mut adapter = (trained != Trained::Full).then(|| {
            let fields = json!({ "target_modules": "all-linear", "r": 16, "lora_alpha": 16 });
            let Value::Object(fields) = fields else { unreachable!() };
            Adapter::new(LoraConfig::from_fields(fields, "speed").expect("LoRA"), &weights.config, 1).expect("LoRA")
        });
        let options = SessionOptions {
            head_chunk: 1024,
            max_length: *shape.lengths.last().expect("lengths"),
            // Bf16 weights with their rests and bf16 moments: ten bytes a parameter with the gradient.
            optimizer: if trained == Trained::Full { OptimizerKind::AdamWBf16 } else { OptimizerKind::AdamW },
            ..SessionOptions::default()
        };
        let work = Work { tokens: shape.tokens, predictions: shape.tokens / 2, train: true };
        let model = Model { weights: &weights, adapter: adapter.as_ref() };
        let before = device.memory().unwrap_or_else(|error| panic!("{error}"));
        let plan = match MemoryPlan::fitting(model, Precision::Bf16, &options, work, before, recompute) {
            Ok(plan) if recompute.is_some() && least == Some(plan.recompute) => continue,
            Ok(plan) => plan,
            Err(error) => {
                left_out.push(json!({ "name": trained.name(), "reason": error.to_string() }));
                write(&rows, &left_out);
                continue;
            }
        };
        least = least.or(Some(plan.recompute));
        let options = SessionOptions { recompute: plan.recompute, ..options };
        let mut session = Session::on(device.clone(), Precision::Bf16, options);
        session.reserve(model, work).unwrap_or_else(|error| panic!("{error}"));
        for (dpo, &length) in shape.lengths.iter().flat_map(|length| [(true, length), (false, length)]) {
            let name = match (dpo, trained, recompute) {
                (true, Trained::Full, None) => "dpo",
                (true, Trained::Full, Some(_)) => "dpo-layer",
                (true, Trained::Lora, _) => "dpo-lora",
                (true, Trained::Qlora, _) => "dpo-qlora",
                (false, Trained::Full, None) => "sft",
                (false, Trained::Lora, None) => "sft-lora",
                (false, ..) => continue,
            };
            if begin.elapsed().as_secs_f64() > budget {
                left_out.push(json!({ "name": format!("{name} {length}"), "reason": "no time left" }));
                continue;
            }
            let packed = batch(&shape, length, vocabulary);
            let model = Model { weights: &weights, adapter: adapter.as_ref() };
            let reference = dpo.then(|| sides(&session.sequence_logps(model, &packed).expect("scores")));
            let job = Job { name, packed: &packed, reference };
            let mut row = measure(&timed, &shape, &job, &plan, &mut session, &mut weights, &mut adapter);
            // What the card itself says is gone: kernels and workspaces of products too, which no plan knows.
            let now = device.memory().unwrap_or_else(|error| panic!("{error}"));
            row["peak_memory_gib"] = json!(before.free.saturating_sub(now.free) as f64 / f64::powi(2.0, 30));
            println!("{name} {length}: {:.0} tok/s", row["tokens_per_s"].as_f64().unwrap_or(0.0));
            rows.push(row);
            // After each, so that a limit of time costs only what is not done.
            write(&rows, &left_out);
        }
    }
    write(&rows, &left_out);
}
