//! Generating and scoring on the emulation against the CPU.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candle_core::quantized::GgmlDType;
use zephyr_emulator::{Emulated, Watch};
use zephyr_kernels::cuda::Bf16;

use super::{Cached, Decoder, Resident, Room};
use crate::config::Config;
use crate::error::Result;
use crate::generate::{Cache, CacheType, FinishReason, GenerateOptions, Generation, Generator, Network, Request, Step};
use crate::layout::Weights;
use crate::lora::{Adapter, LoraConfig};
use crate::model::Model;
use crate::storage::Storage;
use crate::weights::gguf::{Gguf, from_gguf};
use crate::weights::load;
use crate::weights::test::{gguf_in, shared, small_config, small_model};

fn go_on(_: u32, _: f32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Nobody else has memory to give.
pub(super) fn nobody() {}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens, temperature: 0.0, stop_token_ids: Some(vec![]), ..Default::default() }
}

pub(super) fn all(generator: &mut Generator, requests: &[Request]) -> Vec<Generation> {
    generator.generate_batch(requests, |_, _, _| ControlFlow::Continue(())).unwrap()
}

/// Ids equal, log-probabilities within `bound`.
fn same(found: &[Generation], expected: &[Generation], bound: f32) {
    assert_eq!(found.len(), expected.len());
    for (request, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!((&found.ids, found.finish), (&expected.ids, expected.finish), "request {request}");
        close(&found.logps, &expected.logps, bound, &format!("request {request}"));
    }
}

fn close(found: &[f32], expected: &[f32], bound: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= bound, "{what}: off by {worst}");
}

/// Prompts of many lengths, greedy and sampled, more of them than run together.
pub(super) fn requests(vocabulary: u32, count: u32) -> Vec<Request> {
    let prompt = |i: u32| (0..=i * 5 % 13).map(|j| 3 + (i * 7 + j * 5) % (vocabulary - 3)).collect();
    let request = |i: u32| Request {
        prompt: prompt(i),
        options: GenerateOptions {
            max_tokens: (i * 3 % 12) as usize,
            temperature: if i.is_multiple_of(3) { 0.0 } else { 0.9 },
            seed: u64::from(i),
            top_logprobs: 2,
            ..Default::default()
        },
    };
    (0..count).map(request).collect()
}

/// Under the watch: no access out of bounds or of what nobody has written, and no race, in prompts and steps.
#[test]
fn a_batch_says_what_it_says_on_the_cpu_under_the_watch() {
    let Some(device) = Emulated::new(Watch::On, 1) else { return };
    let weights = small_model();
    let requests = requests(40, 6);
    let expected = all(&mut Generator::new(&weights).with_max_active(3), &requests);
    let mut resident = Resident::new(device, (&weights).into(), nobody).unwrap();
    // Head dimension 8: in f32.
    same(&all(&mut Generator::on(resident.network()).with_max_active(3), &requests), &expected, 1e-4);
}

#[test]
fn the_golden_models_say_what_they_say_on_the_cpu() {
    let Some(golden) = shared("ZEPHYR_GOLDEN", "golden") else { return };
    for name in ["window", "headdim"] {
        let weights = load(&golden.join(name)).unwrap().weights;
        let vocabulary = weights.config.vocab_size as u32;
        let Some(device) = Emulated::new(Watch::Off, 0) else { return };
        let mut requests = requests(vocabulary, 9);
        requests.push(Request { prompt: (0..100).map(|i| i * 13 % vocabulary).collect(), options: greedy(12) });
        let mut on_cpu = Generator::new(&weights);
        let expected = all(&mut on_cpu, &requests);
        let mut resident = Resident::exact(device.clone(), (&weights).into(), nobody).unwrap();
        let mut generator = Generator::on(resident.network()).with_rows(37);
        same(&all(&mut generator, &requests), &expected, 1e-4);
        let text: Vec<u32> = (0..150).map(|i| (i * i + 3 * i) % vocabulary).collect();
        close(&generator.score(&text).unwrap(), &on_cpu.score(&text).unwrap(), 1e-4, name);
        close(&generator.logits(&text[..9]).unwrap(), &on_cpu.logits(&text[..9]).unwrap(), 1e-3, name);
        assert_eq!(generator.score(&[3]).unwrap(), [0.0f32; 0]);
        drop(generator);
        // Rounded activations move log-probabilities; the weights are the same rounded ones on both.
        let rounded = weights.converted(Storage::Bf16).unwrap();
        let expected = Generator::new(&rounded).score(&text).unwrap();
        let decoder = Decoder::<Bf16>::new(device, (&weights).into(), 512).unwrap();
        let mut room = Room::new(&decoder, nobody);
        let found = Generator::on(Box::new(Cached { decoder: &decoder, room: &mut room })).score(&text).unwrap();
        close(&found, &expected, 0.06, &format!("{name} in bf16"));
    }
}

/// Prompts and answers far longer than a page and than a stretch of keys; the window of 6 ends in every page.
#[test]
fn long_texts_go_in_pieces_over_many_pages() {
    for window in [Some(6), None] {
        let Some(device) = Emulated::new(Watch::Off, 0) else { return };
        let config = Config { max_position_embeddings: 2000, sliding_window: window, ..small_config() };
        let weights = Weights::random(config, 5);
        let prompt: Vec<u32> = (0..700u32).map(|i| i * 13 % 40).collect();
        let lengths = [700, 63, 64, 1, 300];
        let request = |&length: &usize| Request { prompt: prompt[..length].to_vec(), options: greedy(70) };
        let requests: Vec<Request> = lengths.iter().map(request).collect();
        let mut on_cpu = Generator::new(&weights);
        let mut resident = Resident::new(device, (&weights).into(), nobody).unwrap();
        let mut generator = Generator::on(resident.network()).with_rows(128);
        same(&all(&mut generator, &requests), &all(&mut on_cpu, &requests), 1e-4);
        close(&generator.score(&prompt).unwrap(), &on_cpu.score(&prompt).unwrap(), 1e-4, "score");
    }
}

pub(super) fn adapter(config: &Config) -> Adapter {
    let fields = serde_json::json!({"target_modules": "all-linear", "r": 3, "lora_alpha": 5, "lora_dropout": 0.5});
    let serde_json::Value::Object(fields) = fields else { panic!() };
    let mut adapter = Adapter::new(LoraConfig::from_fields(fields, "test").unwrap(), config, 5).unwrap();
    for pair in adapter.layout.pairs.clone() {
        for (at, value) in adapter.data[pair.b].iter_mut().enumerate() {
            *value = ((at * 7919 % 23) as f32 - 11.0) / 60.0;
        }
    }
    adapter
}

#[test]
fn adapters_and_frozen_weights_say_the_same() {
    let whole = small_model();
    let adapter = adapter(&whole.config);
    for storage in [Storage::F32, Storage::Bf16, Storage::Nf4] {
        let Some(device) = Emulated::new(Watch::Off, 0) else { return };
        let weights = whole.converted(storage).unwrap();
        let model = Model::adapted(&weights, &adapter);
        let requests = requests(40, 5);
        let expected = all(&mut Generator::new(model), &requests);
        assert!(expected != all(&mut Generator::new(&weights), &requests), "the adapter makes a difference");
        let mut resident = Resident::new(device, model, nobody).unwrap();
        same(&all(&mut Generator::on(resident.network()), &requests), &expected, 1e-4);
        // Other values of the same shape.
        let other = Adapter { data: adapter.data.iter().map(|value| -value).collect(), ..adapter.clone() };
        let model = Model::adapted(&weights, &other);
        resident.write(model).unwrap();
        same(
            &all(&mut Generator::on(resident.network()), &requests),
            &all(&mut Generator::new(model), &requests),
            1e-4,
        );
    }
}

/// Blocks of a GGUF file are unpacked.
#[test]
fn weights_kept_as_in_a_file_say_what_they_say_unpacked() {
    let Some(device) = Emulated::new(Watch::Off, 0) else { return };
    let types = |name: &str| if name.contains("norm") { GgmlDType::F32 } else { GgmlDType::Q8_0 };
    let file = Gguf::read(gguf_in(&small_model(), &[], types), Path::new("kept.gguf")).unwrap();
    let kept = from_gguf(&file, Storage::Gguf).unwrap().weights;
    let unpacked = kept.converted(Storage::F32).unwrap();
    let mut resident = Resident::new(device, (&kept).into(), nobody).unwrap();
    let requests = requests(40, 4);
    same(
        &all(&mut Generator::on(resident.network()), &requests),
        &all(&mut Generator::new(&unpacked), &requests),
        1e-4,
    );
}

/// Counts the tokens that go through a network.
struct Counting<'a>(Box<dyn Network + 'a>, Arc<AtomicUsize>);

impl Network for Counting<'_> {
    fn config(&self) -> &Config {
        self.0.config()
    }

    fn cache(&self, kind: Option<CacheType>, exact: bool) -> Result<Cache> {
        self.0.cache(kind, exact)
    }

    fn step(&mut self, caches: &mut [Cache], step: &Step, out: &mut Vec<f32>) -> Result<()> {
        self.1.fetch_add(step.pieces.iter().map(|piece| piece.len()).sum(), Ordering::Relaxed);
        self.0.step(caches, step, out)
    }

    fn takes_threads(&self) -> bool {
        self.0.takes_threads()
    }
}

#[test]
fn a_kept_text_is_gone_on_with() {
    let Some(device) = Emulated::new(Watch::Off, 0) else { return };
    let weights = Weights::random(Config { max_position_embeddings: 500, ..small_config() }, 5);
    let mut resident = Resident::new(device, (&weights).into(), nobody).unwrap();
    let mut prompt: Vec<u32> = (0..100u32).map(|i| i * 13 % 40).collect();
    let mut kept = None;
    for (turn, new) in [(0, 100), (1, 3), (2, 3)] {
        let tokens = Arc::<AtomicUsize>::default();
        let network = Box::new(Counting(resident.network(), tokens.clone()));
        let mut generator = Generator::on(network).keeping(kept.take());
        let answer = generator.generate(&prompt, &greedy(5), go_on).unwrap();
        kept = generator.into_kept();
        // The last token of an answer has not been through the network; the others, and what was kept, have.
        assert_eq!(tokens.load(Ordering::Relaxed), new + 4, "turn {turn}");
        let expected = Generator::new(&weights).generate(&prompt, &greedy(5), go_on).unwrap();
        same(&[answer], std::slice::from_ref(&expected), 1e-4);
        prompt.extend(expected.ids);
        prompt.extend([7, turn]);
    }
    // Another text that begins as the last one: its end is forgotten.
    prompt.truncate(70);
    let mut generator = Generator::on(resident.network()).keeping(kept);
    let answer = generator.generate(&prompt, &greedy(5), go_on).unwrap();
    same(&[answer], &[Generator::new(&weights).generate(&prompt, &greedy(5), go_on).unwrap()], 1e-4);
}

#[test]
fn an_answer_ends_between_two_steps() {
    let Some(device) = Emulated::new(Watch::Off, 0) else { return };
    let weights = small_model();
    let mut resident = Resident::new(device, (&weights).into(), nobody).unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let mut generator = Generator::on(resident.network()).with_abort(flag.clone());
    let free = generator.generate(&[1, 4, 9], &greedy(1000), go_on).unwrap();
    assert_eq!((free.ids.len(), free.finish), (62, FinishReason::Context));
    let aborted = generator.generate(&[1, 4, 9], &greedy(10), |_, _| {
        flag.store(true, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    let aborted = aborted.unwrap();
    assert_eq!((aborted.ids.as_slice(), aborted.finish), (&free.ids[..1], FinishReason::Aborted));
    assert_eq!(generator.score(&[1, 4]).unwrap_err().code(), "ZA_ABORTED");
}

#[test]
fn memory_is_used_again_and_what_does_not_fit_is_told() {
    let weights = Weights::random(Config { max_position_embeddings: 8000, ..small_config() }, 5);
    let Some(device) = Emulated::with_memory(Watch::Off, 0, 2 << 20) else { return };
    let mut resident = Resident::new(device.clone(), (&weights).into(), nobody).unwrap();
    assert_eq!(resident.bytes(), device.used());
    let prompt = |length: u32| -> Vec<u32> { (0..length).map(|i| i * 13 % 40).collect() };
    let request = |length| Request { prompt: prompt(length), options: greedy(3) };
    let several = [request(200), request(90), request(130)];
    all(&mut Generator::on(resident.network()).with_rows(64), &several);
    let (held, used) = (resident.bytes(), device.used());
    assert_eq!(held, used);
    all(&mut Generator::on(resident.network()).with_rows(64), &several);
    assert_eq!(device.used(), used, "pages of sequences that have ended are taken again");

    let error = Generator::on(resident.network()).with_rows(64).generate(&prompt(7000), &greedy(1), go_on).unwrap_err();
    assert_eq!(error.code(), "ZA_OUT_OF_MEMORY");
    assert!(
        error.to_string().contains("tokens in 1 sequences need") && error.to_string().contains("Remedy: "),
        "{error}"
    );
    all(&mut Generator::on(resident.network()).with_rows(64), &several);
    drop(resident);
    assert_eq!(device.used(), 0);
}

#[test]
fn a_kind_of_cache_that_a_device_has_not_is_refused_before_work() {
    let Some(device) = Emulated::new(Watch::Off, 0) else { return };
    let weights = small_model();
    let mut resident = Resident::new(device, (&weights).into(), nobody).unwrap();
    let mut generator = Generator::on(resident.network()).with_cache(CacheType::Q8);
    let error = generator.generate(&[1], &greedy(1), |_, _| panic!("no token may come")).unwrap_err();
    assert_eq!(error.code(), "ZA_GENERATE_OPTION");
    assert!(error.to_string().contains("kvCache") && error.to_string().contains("\"q8\" on a device"), "{error}");
    assert_eq!(generator.score(&[1, 2]).unwrap_err().code(), "ZA_GENERATE_OPTION");
    drop(generator);
    // It computes in f32, so that these it has.
    let mut generator = Generator::on(resident.network()).with_cache(CacheType::F32);
    generator.generate(&[1], &greedy(1), go_on).unwrap();
}
