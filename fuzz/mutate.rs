//! The fuzz targets on stable Rust: inputs of the corpus are mutated at random for some time, without the coverage that
//! cargo-fuzz is led by.
//!
//! usage: mutate TARGET [--seconds 60] [--seed 0] [--corpus FOLDER] [--artifacts FOLDER]
//!        mutate TARGET --input FILE
//!
//! A panic, more memory than a multiple of the input, or more than ten seconds ends it with status 1; the input then lies in
//! the artifacts. So does that of a process that died.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[allow(dead_code)]
#[path = "../crates/mistral/weights/allocation.rs"]
mod allocation;
#[allow(dead_code)]
mod targets;

/// An input that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(10);
/// Inputs that were accepted are mutated further, up to so many.
const MOST_INPUTS: usize = 4096;
const LARGEST: usize = 1 << 16;

/// What memory an input of that size may take: lists become JSON, weights f32, and a tokenizer has tables of a fixed size.
fn allowed(size: usize) -> usize {
    (64 << 20) + 256 * size
}

/// Words that formats are made of.
const WORDS: [&str; 64] = [
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "\"\"",
    "0",
    "1",
    "-1",
    "-0.0",
    "1e308",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e-400",
    "{\"a\":1}",
    "[[[[[[[[",
    "\\u0000",
    "\\ud800",
    "__metadata__",
    "\"dtype\":\"F32\"",
    "\"shape\":[0]",
    "\"data_offsets\":[0,0]",
    "BF16",
    "F4",
    "I64",
    "general.alignment",
    "general.architecture",
    "llama.block_count",
    "tokenizer.ggml.tokens",
    "split.count",
    "\"type\":\"BPE\"",
    "\"type\":\"Unigram\"",
    "\"type\":\"WordPiece\"",
    "\"type\":\"Split\"",
    "\"Regex\":\"(a+)+$\"",
    "\"type\":\"Sequence\"",
    "\"type\":\"Metaspace\"",
    "\"byte_fallback\":true",
    "\"merges\":[[\"a\",\"b\"]]",
    "\"added_tokens\":[{\"id\":0,\"content\":\"a\"}]",
    "\"type\":\"TemplateProcessing\"",
    "\"type\":\"Precompiled\"",
    "{% for i in range(100000) %}",
    "{% endfor %}",
    "{{ messages }}",
    "{% if true %}",
    "{% endif %}",
    "{% macro m() %}",
    "{{ m() }}",
    "{% set x = namespace(a=1) %}",
    "{{ 'a' * 1000000 }}",
    "| tojson",
    "|join('x')",
    "raise_exception('x')",
    "{% include 'x' %}",
    "{{ x.__class__ }}",
    "{%- generation -%}",
    "num_hidden_layers",
    "head_dim",
    "rope_scaling",
    "sliding_window",
    "vocab_size",
];

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    /// A place; headers stand in front, and matter most.
    fn place(&mut self, length: usize) -> usize {
        let reach = [length, length, 4096, 256][self.below(4)].min(length);
        self.below(reach)
    }
}

fn mutated(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = inputs[random.below(inputs.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.place(bytes.len() + 1).min(bytes.len());
        let scale = 1 + random.below(8);
        let span = (1 + random.below(1 << scale)).min(bytes.len() - at);
        match random.below(10) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => {
                // A number, in the widths of binary formats.
                let edges = [0, 1, 2, 7, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 62, u64::MAX];
                let value = edges[random.below(edges.len())].wrapping_add(random.below(3) as u64).to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..at + span)),
            5 => {
                let part = bytes[at..at + span].to_vec();
                bytes.splice(at..at, part);
            }
            6 => {
                // A part of another input.
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1).min(512);
                bytes.splice(at..(at + span).min(bytes.len()), other[from..to].iter().copied());
            }
            7 => {
                let word = WORDS[random.below(WORDS.len())].as_bytes();
                bytes.splice(at..at, word.iter().copied());
            }
            8 => replace_value(&mut bytes, at, random),
            _ => {
                let end = (at + span).min(bytes.len());
                bytes[at..end].reverse();
            }
        }
        bytes.truncate(LARGEST);
    }
    bytes
}

/// Puts a word in the place of the next number or text of JSON.
fn replace_value(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let is_start = |byte: &u8| byte.is_ascii_digit() || *byte == b'"';
    let Some(start) = bytes[at..].iter().position(is_start).map(|found| at + found) else { return };
    let rest = &bytes[start + 1..];
    let length = if bytes[start] == b'"' {
        rest.iter().position(|byte| *byte == b'"').map_or(0, |found| found + 1)
    } else {
        rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(0)
    };
    let word = WORDS[random.below(WORDS.len())].as_bytes();
    bytes.splice(start..start + 1 + length, word.iter().copied());
}

/// When the input under way was begun, in milliseconds after the start; 0: none is.
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn watch(start: Instant, input: PathBuf) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(250));
            let begun = BEGUN.load(Ordering::Relaxed);
            let now = start.elapsed().as_millis() as u64;
            if begun != 0 && now.saturating_sub(begun) > LONGEST.as_millis() as u64 {
                eprintln!("an input takes longer than {} s: {}", LONGEST.as_secs(), input.display());
                exit(1);
            }
        }
    });
}

/// Runs one input; what went wrong with it.
fn fault(target: fn(&[u8]) -> bool, bytes: &[u8], accepted: &mut bool) -> Option<String> {
    let mut outcome = Ok(false);
    let used = allocation::peak(|| outcome = catch_unwind(AssertUnwindSafe(|| target(bytes))));
    match outcome {
        Err(_) => Some("a panic".to_string()),
        Ok(_) if used > allowed(bytes.len()) => Some(format!("{used} bytes for an input of {}", bytes.len())),
        Ok(found) => {
            *accepted = found;
            None
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).cloned()
    };
    let name = arguments.first().cloned().unwrap_or_default();
    let Some((_, target)) = targets::ALL.iter().find(|(own, _)| *own == name) else {
        let names: Vec<&str> = targets::ALL.iter().map(|(own, _)| *own).collect();
        eprintln!("usage: mutate {} [--seconds 60] [--seed 0] [--input FILE]", names.join("|"));
        exit(2);
    };
    let mut accepted = false;
    if let Some(input) = flag("--input") {
        let bytes = std::fs::read(&input).unwrap_or_else(|error| panic!("{input}: {error}"));
        let found = fault(*target, &bytes, &mut accepted);
        println!("{input}: {}", found.as_deref().unwrap_or(if accepted { "accepted" } else { "refused" }));
        exit(i32::from(found.is_some()));
    }
    let folder =
        |flag: Option<String>, own: &str| flag.map_or_else(|| Path::new("fuzz").join(own), PathBuf::from).join(&name);
    let (corpus, artifacts) = (folder(flag("--corpus"), "corpus"), folder(flag("--artifacts"), "artifacts"));
    let seconds: u64 = flag("--seconds").and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut random = Random(flag("--seed").and_then(|text| text.parse().ok()).unwrap_or(0));
    let mut files: Vec<PathBuf> = std::fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("an entry of the folder").path())
        .collect();
    files.sort();
    let mut inputs: Vec<Vec<u8>> =
        files.iter().map(|path| std::fs::read(path).expect("a file of the corpus")).collect();
    std::fs::create_dir_all(&artifacts).expect("the folder of the artifacts");
    // On disk before it is run, so that it is there if the process dies of it.
    let running = artifacts.join("running");
    std::panic::set_hook(Box::new(|_| {}));

    let start = Instant::now();
    watch(start, running.clone());
    let (mut runs, mut taken) = (0u64, 0u64);
    let seeds = inputs.clone();
    while start.elapsed() < Duration::from_secs(seconds) {
        let bytes = seeds.get(runs as usize).cloned().unwrap_or_else(|| mutated(&inputs, &mut random));
        std::fs::write(&running, &bytes).expect("the input under way");
        BEGUN.store(start.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        if let Some(fault) = fault(*target, &bytes, &mut accepted) {
            let kept = artifacts.join(format!("crash-{runs}-{}", random.next()));
            std::fs::rename(&running, &kept).expect("the input that failed");
            println!("{name}: {fault} after {runs} runs: {}", kept.display());
            exit(1);
        }
        BEGUN.store(0, Ordering::Relaxed);
        runs += 1;
        if accepted {
            taken += 1;
            if runs as usize > seeds.len() {
                if inputs.len() < MOST_INPUTS {
                    inputs.push(bytes);
                } else {
                    let place = seeds.len() + random.below(MOST_INPUTS - seeds.len());
                    inputs[place] = bytes;
                }
            }
        }
    }
    let _ = std::fs::remove_file(&running);
    println!("{name}: {runs} inputs in {seconds} s, {taken} of them accepted, no fault");
}
