//! Times every kernel on a card at the sizes of Mistral-7B with 8192 tokens (bench/gpu): milliseconds, bytes that must move,
//! and for attention operations a second. usage: clock FILE.json

use std::fmt::Write as _;
use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaContext, CudaStream, result};
use zephyr_devices::first_card;
use zephyr_kernels::adamw::cuda::{Codes, Moments, Weights};
use zephyr_kernels::attention::Shape;
use zephyr_kernels::attention::cuda::{ForwardTile, Plan};
use zephyr_kernels::cuda::launch::Launcher;
use zephyr_kernels::cuda::{Bf16, Launch, Pointer, Stored};
use zephyr_kernels::dropout::{self, Mask};
use zephyr_kernels::head::cuda::Stats;
use zephyr_kernels::{adamw, cast, embedding, head, nf4, norm, rms_norm, rope, swiglu};

const TOKENS: usize = 8192;
const HIDDEN: usize = 4096;
const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
const INTERMEDIATE: usize = 14_336;
const VOCABULARY: usize = 32_000;
/// Rows of the head in a chunk.
const CHUNK: usize = 1024;
/// Parameters of a layer.
const LAYER: usize = 218_112_000;

/// Timed runs, after a few that warm the card.
const RUNS: usize = 20;
const WARM_UP: usize = 5;

struct Clock {
    stream: Arc<CudaStream>,
    launcher: Launcher,
    allocated: Vec<u64>,
}

impl Clock {
    fn on_first_card() -> (Self, String) {
        let card = first_card().unwrap_or_else(|refusal| panic!("{refusal}"));
        let stream = CudaContext::new(card.index).expect("the card can be opened").default_stream();
        let launcher = Launcher::new(stream.clone()).unwrap_or_else(|error| panic!("{error}"));
        (Self { stream, launcher, allocated: Vec::new() }, card.name)
    }

    /// Memory of small values that are no zeros: products of zeros take less power and go faster.
    fn filled<T: Stored>(&mut self, len: usize) -> Pointer<T> {
        let pattern: Vec<u8> = match T::LETTER {
            // ±0.01 in f32; the upper halves of it in bf16.
            'f' => (0..1 << 16).flat_map(|index| (0.01f32 * sign(index)).to_ne_bytes()).collect(),
            'b' => (0..1 << 16)
                .flat_map(|index| ((0.01f32 * sign(index)).to_bits() >> 16).to_ne_bytes()[..2].to_vec())
                .collect(),
            _ => vec![0; 1 << 16],
        };
        let bytes = len * size_of::<T>();
        // SAFETY: freed by `free`; each copy ends where the memory does.
        let address = unsafe {
            let address = result::malloc_sync(bytes.max(1)).expect("memory on the card");
            for start in (0..bytes).step_by(pattern.len()) {
                let part = &pattern[..pattern.len().min(bytes - start)];
                result::memcpy_htod_sync(address + start as u64, part).expect("the card's memory can be written");
            }
            address
        };
        self.allocated.push(address);
        Pointer::new(address)
    }

    fn upload<T: Stored>(&mut self, values: &[T]) -> Pointer<T> {
        let pointer = self.filled(values.len());
        // SAFETY: just allocated, as long as the values.
        unsafe { result::memcpy_htod_sync(pointer.address, values) }.expect("the card's memory can be written");
        pointer
    }

    /// Gives all memory back, so that the next kernel has it.
    fn free(&mut self) {
        self.stream.synchronize().expect("the card");
        for address in self.allocated.drain(..) {
            // SAFETY: allocated here, and nothing runs.
            unsafe { result::free_sync(address) }.expect("the card");
        }
    }

    /// The median of the launches' time, one behind the other.
    fn milliseconds(&mut self, launches: &[Launch]) -> f64 {
        let mut times: Vec<f32> = (0..WARM_UP + RUNS)
            .map(|_| {
                let start = self.stream.record_event(Some(CU_EVENT_DEFAULT)).expect("an event");
                for launch in launches {
                    // SAFETY: the pointers are of `filled` and `upload`, of the sizes that the launch was made for.
                    unsafe { self.launcher.run(launch) }.unwrap_or_else(|error| panic!("{error}"));
                }
                let end = self.stream.record_event(Some(CU_EVENT_DEFAULT)).expect("an event");
                start.elapsed_ms(&end).unwrap_or_else(|error| panic!("{}: {error:?}", launches[0].kernel))
            })
            .skip(WARM_UP)
            .collect();
        times.sort_by(f32::total_cmp);
        f64::from(times[RUNS / 2])
    }
}

fn sign(index: u32) -> f32 {
    if index.wrapping_mul(2_654_435_761) & 1 << 20 == 0 { 1.0 } else { -1.0 }
}

/// A line of the table: `bytes` is what has to be read and written at least.
struct Row {
    name: &'static str,
    shape: String,
    ms: f64,
    bytes: usize,
}

fn memory_bound(clock: &mut Clock) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut time = |clock: &mut Clock, name, shape: String, bytes, launches: &[Launch]| {
        rows.push(Row { name, shape, ms: clock.milliseconds(launches), bytes });
        clock.free();
    };
    let hidden = TOKENS * HIDDEN;

    let (x, weight) = (clock.filled::<Bf16>(hidden), clock.filled::<Bf16>(HIDDEN));
    let (delta, out, rstd) = (clock.filled::<Bf16>(hidden), clock.filled::<Bf16>(hidden), clock.filled(TOKENS));
    let launch = rms_norm::cuda::forward_add(x, delta, weight, 1e-5, out, rstd, TOKENS, HIDDEN);
    time(clock, "rms_norm forward, residual added", format!("{TOKENS}×{HIDDEN}"), 4 * 2 * hidden, &[launch]);

    let (d_out, x, weight) = (clock.filled::<Bf16>(hidden), clock.filled(hidden), clock.filled::<Bf16>(HIDDEN));
    let (rstd, d_x) = (clock.filled(TOKENS), clock.filled::<Bf16>(hidden));
    let scratch = clock.filled(rms_norm::cuda::backward_scratch(TOKENS, HIDDEN));
    let d_weight = clock.filled::<Bf16>(HIDDEN);
    let launches = [
        rms_norm::cuda::backward(d_out, x, weight, rstd, d_x, Some(scratch), TOKENS, HIDDEN),
        rms_norm::cuda::weight_gradient(scratch, d_weight, TOKENS, HIDDEN),
    ];
    time(clock, "rms_norm backward", format!("{TOKENS}×{HIDDEN}"), 4 * 2 * hidden, &launches);

    let width = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
    let qkv = clock.filled::<Bf16>(TOKENS * width);
    let positions = clock.filled::<u32>(TOKENS);
    let (cos, sin) = (clock.filled(TOKENS * HEAD_DIM / 2), clock.filled(TOKENS * HEAD_DIM / 2));
    let heads = HEADS + KV_HEADS;
    let launch = rope::cuda::apply(qkv, width, heads, HEAD_DIM, positions, cos, sin, rope::Direction::Forward, TOKENS);
    let bytes = 2 * 2 * TOKENS * heads * HEAD_DIM;
    time(clock, "rope, queries and keys", format!("{TOKENS}×{heads}×{HEAD_DIM}"), bytes, &[launch]);

    let inner = TOKENS * INTERMEDIATE;
    let (gate_up, out) = (clock.filled::<Bf16>(2 * inner), clock.filled(inner));
    let launch = swiglu::cuda::forward(gate_up, out, TOKENS, INTERMEDIATE);
    time(clock, "swiglu forward", format!("{TOKENS}×{INTERMEDIATE}"), 3 * 2 * inner, &[launch]);
    let (d_out, gate_up) = (clock.filled::<Bf16>(inner), clock.filled(2 * inner));
    let launch = swiglu::cuda::backward(d_out, gate_up, TOKENS, INTERMEDIATE);
    time(clock, "swiglu backward", format!("{TOKENS}×{INTERMEDIATE}"), 5 * 2 * inner, &[launch]);

    let launch = dropout::cuda::apply(Mask::new(1, 0.05), d_out, gate_up, TOKENS, INTERMEDIATE);
    time(clock, "dropout", format!("{TOKENS}×{INTERMEDIATE}"), 2 * 2 * inner, &[launch]);

    let (table, out) = (clock.filled::<Bf16>(VOCABULARY * HIDDEN), clock.filled(hidden));
    let ids: Vec<u32> = (0..TOKENS as u32).map(|index| index.wrapping_mul(2_654_435_761) % VOCABULARY as u32).collect();
    let ids = clock.upload(&ids);
    let launch = embedding::cuda::forward(table, HIDDEN, ids, out, TOKENS);
    time(clock, "embedding", format!("{TOKENS}×{HIDDEN}"), 2 * 2 * hidden, &[launch]);

    let logits = clock.filled::<Bf16>(CHUNK * VOCABULARY);
    let targets = clock.filled(CHUNK);
    let stats = Stats {
        logp: clock.filled(CHUNK),
        lse: clock.filled(CHUNK),
        entropy: clock.filled(CHUNK),
        log_collision: clock.filled(CHUNK),
        logit_mean: clock.filled(CHUNK),
        correct: clock.filled(CHUNK),
    };
    let launch = head::cuda::statistics(logits, targets, &stats, CHUNK, VOCABULARY);
    time(clock, "head statistics", format!("{CHUNK}×{VOCABULARY}"), 2 * CHUNK * VOCABULARY, &[launch]);
    let (logits, targets) = (clock.filled::<Bf16>(CHUNK * VOCABULARY), clock.filled(CHUNK));
    let (lse, coefficient) = (clock.filled(CHUNK), clock.filled(CHUNK));
    let launch = head::cuda::gradient(logits, targets, lse, coefficient, logits, CHUNK, VOCABULARY);
    time(clock, "head gradient, in place", format!("{CHUNK}×{VOCABULARY}"), 2 * 2 * CHUNK * VOCABULARY, &[launch]);

    let gradients = clock.filled::<Bf16>(LAYER);
    let shares = clock.filled(norm::cuda::share_count(LAYER));
    let (grad_scale, length) = (clock.filled(1), clock.filled(1));
    let launches = [
        norm::cuda::shares(gradients, LAYER, shares),
        norm::cuda::clip(shares, norm::cuda::share_count(LAYER), 1.0, Some(1.0), grad_scale, length),
    ];
    time(clock, "norm of a layer's gradients", LAYER.to_string(), 2 * LAYER, &launches);

    let config =
        adamw::Config { lr: 5e-7, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 1, grad_scale: 1.0 };
    for (name, bytes) in [
        ("adamw, f32 weights and moments", 28),
        ("adamw, split weights, bf16 moments", 18),
        ("adamw, split weights, 8-bit moments", 14),
    ] {
        let scale = clock.upload(&[1.0f32]);
        let weights = if bytes == 28 {
            Weights::Full { params: clock.filled(LAYER), copy: Some(clock.filled(LAYER)) }
        } else {
            Weights::Split { weights: clock.filled(LAYER), rests: clock.filled(LAYER) }
        };
        let blocks = LAYER.div_ceil(adamw::BLOCK);
        let moments = match bytes {
            28 => Moments::Full { m: clock.filled(LAYER), v: clock.filled(LAYER) },
            18 => Moments::Bf16 { m: clock.filled(LAYER), v: clock.filled(LAYER), seed: 1 },
            _ => {
                let mut codes = || Codes { codes: clock.filled(LAYER), scales: clock.filled(blocks) };
                let (m, v) = (codes(), codes());
                Moments::Coded { m, v, tables: clock.upload(&adamw::cuda::tables()) }
            }
        };
        let gradients = clock.filled::<Bf16>(LAYER);
        let launch = adamw::cuda::step(weights, gradients, moments, LAYER, scale, &config);
        time(clock, name, LAYER.to_string(), bytes * LAYER, &[launch]);
    }

    let values = HIDDEN * INTERMEDIATE;
    let parts = nf4::cuda::Parts {
        packed: clock.filled(values / 2),
        absmax: clock.filled(values / 64),
        nested_absmax: clock.filled(values / 64 / 256),
        offset: 0.01,
        tables: clock.upload(&nf4::cuda::tables()),
    };
    let out = clock.filled::<Bf16>(values);
    let launch = nf4::cuda::dequantise(&parts, 0, values, out);
    time(clock, "nf4 to bf16", format!("{HIDDEN}×{INTERMEDIATE}"), values / 2 + 2 * values, &[launch]);
    let (from, to) = (clock.filled(LAYER), clock.filled(LAYER));
    time(clock, "f32 to bf16", LAYER.to_string(), 6 * LAYER, &[cast::cuda::to_bf16(from, to, LAYER)]);
    rows
}

/// Attention of `TOKENS` tokens in causal segments: milliseconds and TFLOP/s of the two passes, by the kernels for every card
/// and, on a Hopper, by its own.
fn attention(clock: &mut Clock, length: usize) -> [Option<[f64; 4]>; 2] {
    let segments: Vec<u32> = (0..=TOKENS / length).map(|index| (index * length) as u32).collect();
    let scale = 1.0 / (HEAD_DIM as f32).sqrt();
    let hopper = clock.stream.context().compute_capability().expect("the card's generation") == (9, 0);
    let shape = Shape {
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        window: None,
        scale,
        segments: &segments,
        prefixes: &[],
    };
    let width = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
    let (qkv, out) = (clock.filled::<Bf16>(TOKENS * width), clock.filled(TOKENS * HEADS * HEAD_DIM));
    let lse = clock.filled(TOKENS * HEADS);
    let (d_out, row_sums) = (clock.filled(TOKENS * HEADS * HEAD_DIM), clock.filled(TOKENS * HEADS));
    let d_qkv = clock.filled(TOKENS * width);
    // Two products forward; backward five, as flash attention counts (ours makes seven, which is its own affair).
    let pairs = (TOKENS / length) * length * (length + 1) / 2;
    let work = 4.0 * (HEADS * HEAD_DIM * pairs) as f64;
    let mut time = |plans: &[Plan]| {
        let passes = plans.iter().map(|plan| {
            let words = clock.upload(&plan.words);
            let forward = clock.milliseconds(&[plan.forward(words, qkv, out, lse)]);
            (forward, clock.milliseconds(&plan.backward(words, d_out, qkv, out, lse, row_sums, d_qkv)))
        });
        // Whichever tile is faster on this card.
        let faster = |a: (f64, f64), b: (f64, f64)| (a.0.min(b.0), a.1.min(b.1));
        let (forward, backward) = passes.reduce(faster).expect("a plan");
        [forward, backward, work / forward / 1e9, 2.5 * work / backward / 1e9]
    };
    let every = time(&[ForwardTile::Rows64, ForwardTile::Rows128].map(|tile| Plan::new(&shape, tile)));
    let own = hopper.then(|| time(&[Plan::for_hopper(&shape)]));
    clock.free();
    [Some(every), own]
}

fn main() {
    let file = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')).expect("usage: clock FILE.json");
    let (mut clock, device) = Clock::on_first_card();
    let mut text = format!("{{\n \"device\": {device:?},\n \"kernels\": [\n");
    let rows = memory_bound(&mut clock);
    for (index, Row { name, shape, ms, bytes }) in rows.iter().enumerate() {
        let (speed, comma) = (*bytes as f64 / ms / 1e6, if index + 1 < rows.len() { "," } else { "" });
        let line =
            format!("  {{\"name\": {name:?}, \"shape\": {shape:?}, \"ms\": {ms:.5}, \"gb_per_s\": {speed:.1}}}{comma}");
        writeln!(text, "{line}").expect("a String takes everything");
    }
    text.push_str(" ],\n \"attention\": [\n");
    let mut rows = 0;
    for length in [1024, 2048, 4096] {
        let kernels = ["", "for Hopper"].into_iter().zip(attention(&mut clock, length));
        for (kernels, figures) in kernels {
            let Some([forward, backward, forward_speed, backward_speed]) = figures else { continue };
            let comma = if rows > 0 { ",\n" } else { "" };
            let line = format!(
                "{comma}  {{\"kernels\": {kernels:?}, \"length\": {length}, \"forward_ms\": {forward:.5}, \
                 \"backward_ms\": {backward:.5}, \"forward_tflops\": {forward_speed:.1}, \
                 \"backward_tflops\": {backward_speed:.1}}}"
            );
            write!(text, "{line}").expect("a String takes everything");
            rows += 1;
        }
    }
    text.push_str("\n ]\n}\n");
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("{file}: {error}"));
}
