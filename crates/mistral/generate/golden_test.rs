//! Against transformers' numbers, and the models of the shared cases.

use super::decoder::Decoder;
use super::*;
use crate::layout::Weights;
use crate::storage::Storage;
use crate::weights::test::shared;
use crate::weights::{load, load_as, read_safetensors};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn go_on(_: u32, _: f32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn integers(path: &Path, name: &str) -> Vec<i64> {
    let file = read_safetensors(path).unwrap();
    file.bytes(name).unwrap().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
}

/// Whole, and one token at a time.
#[test]
fn tiny_models_give_the_golden_logits() {
    let Some(golden) = shared("ZEPHYR_GOLDEN", "golden") else { return };
    for name in ["window", "headdim"] {
        let folder = golden.join(name);
        let model = load(&folder).unwrap().weights;
        let vocabulary = model.config.vocab_size;
        let forward = folder.join("forward.safetensors");
        let file = read_safetensors(&forward).unwrap();
        let columns = file.find("input_ids").unwrap().shape[1];
        let logits = file.floats("logits").unwrap();
        let logps = file.floats("per_token_logps").unwrap();
        let ids = integers(&forward, "input_ids");
        let mask = integers(&forward, "attention_mask");
        let mut generator = Generator::new(&model);
        for row in 0..ids.len() / columns {
            let length = mask[row * columns..][..columns].iter().filter(|kept| **kept == 1).count();
            let ids: Vec<u32> = ids[row * columns..][..length].iter().map(|id| *id as u32).collect();
            let wanted = &logits[row * columns * vocabulary..][..length * vocabulary];
            close(&generator.logits(&ids).unwrap(), wanted, 1e-4, &format!("{name}, row {row}, whole"));
            close(&token_by_token(&model, &ids), wanted, 1e-4, &format!("{name}, row {row}, by token"));
            let wanted = &logps[row * (columns - 1)..][..length - 1];
            // Only tokens of the completion have their log-probability in the file; the others stand at 0.
            let scores = generator.score(&ids).unwrap();
            let mut compared = 0;
            for (score, wanted) in scores.iter().zip(wanted).filter(|(_, wanted)| **wanted != 0.0) {
                assert!((score - wanted).abs() < 1e-4, "{name}, row {row}: {score} for {wanted}");
                compared += 1;
            }
            assert!(compared > 0);
        }
    }
}

fn token_by_token(model: &Weights, ids: &[u32]) -> Vec<f32> {
    let mut decoder = Decoder::new(model.into());
    let mut caches = [decoder.cache(None, false).unwrap()];
    let mut out = Vec::new();
    for id in ids {
        let step = Step { pieces: &[&[*id]], rows: &[0], targets: None, exact: false };
        decoder.step(&mut caches, &step, &mut out).unwrap();
    }
    out
}

fn close(found: &[f32], wanted: &[f32], bound: f32, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let worst = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= bound, "{what}: off by {worst}");
}

/// The model's ids are the bytes, three special tokens before them, in the order of the values.
#[test]
fn case_09_answers() {
    let Some(cases) = shared("ZEPHYR_CASES", "cases") else { return };
    let case = cases.join("09-null-and-array-content");
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(case.join("expected.json")).unwrap()).unwrap();
    let model = load(&case.join("model")).unwrap().weights;
    let prompt = expected["prompts"]["string"]["prompt"].as_str().unwrap();
    // "</s>" in the template is the token 2.
    let mut ids = Vec::new();
    for (i, text) in prompt.split("</s>").enumerate() {
        ids.extend((i > 0).then_some(2));
        ids.extend(text.bytes().map(|byte| 3 + u32::from(byte)));
    }
    assert_eq!(ids.len() as u64, expected["prompts"]["string"]["prompt_tokens"].as_u64().unwrap());
    let options = GenerateOptions { temperature: 0.0, ..Default::default() };
    let answer = Generator::new(&model).generate(&ids, &options, go_on).unwrap();
    let bytes: Vec<u8> = answer.ids.iter().map(|id| (id - 3) as u8).collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected["reply_whole"].as_str().unwrap());
    assert_eq!(answer.finish, FinishReason::StopToken(2));
}

fn smollm2_file() -> Option<PathBuf> {
    let data = std::env::var_os("ZEPHYR_TEST_DATA")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/zephyr-align-test")))?;
    Some(data.join("smollm2-135m-instruct.q4_1.gguf"))
}

fn smollm2() -> Option<(Weights, Vec<Value>)> {
    let golden = shared("ZEPHYR_GOLDEN", "golden")?.join("smollm2/smollm2.json");
    let path = smollm2_file()?;
    if !path.exists() || !golden.exists() {
        eprintln!("SKIPPED: {} or {} does not exist.", path.display(), golden.display());
        return None;
    }
    let mut golden: Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let Value::Array(cases) = golden["cases"].take() else { panic!("no cases in the golden file") };
    Some((load(&path).unwrap().weights, cases))
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn smollm2_says_what_it_says_in_transformers() {
    let Some((model, cases)) = smollm2() else { return };
    let mut generator = Generator::new(&model);
    let options = GenerateOptions { max_tokens: 24, temperature: 0.0, ..Default::default() };
    let prompts: Vec<Vec<u32>> = cases.iter().map(|case| ids(&case["input_ids"])).collect();
    let requests: Vec<Request> =
        prompts.iter().map(|prompt| Request { prompt: prompt.clone(), options: options.clone() }).collect();
    let together = generator.generate_batch(&requests, |_, _, _| ControlFlow::Continue(())).unwrap();
    for ((case, prompt), together) in cases.iter().zip(&prompts).zip(together) {
        let mut answer = generator.generate(prompt, &options, go_on).unwrap();
        assert_eq!(answer.ids, together.ids);
        if let FinishReason::StopToken(token) = answer.finish {
            answer.ids.push(token);
        }
        assert_eq!(answer.ids, ids(&case["greedy"]), "{}", case["greedy_text"]);

        let continuation = ids(&case["continuation_ids"]);
        let scores = generator.score(&[&prompt[..], &continuation].concat()).unwrap();
        let wanted: Vec<f32> = serde_json::from_value(case["continuation_logps"].clone()).unwrap();
        for (score, wanted) in scores[prompt.len() - 1..].iter().zip(&wanted) {
            assert!((score - wanted).abs() <= 2e-3, "{score} for {wanted}");
        }
        let logits = generator.logits(prompt).unwrap();
        let last = &logits[logits.len() - model.config.vocab_size..];
        let top: Vec<(u32, f32)> = serde_json::from_value(case["top8"].clone()).unwrap();
        for (token, wanted) in top {
            assert!(
                (last[token as usize] - wanted).abs() <= 2e-3,
                "token {token}: {} for {wanted}",
                last[token as usize]
            );
        }
    }
}

/// Weights as they are in the file say what the f32 path says: a token may differ where the f32 path itself is undecided.
#[test]
fn smollm2_as_in_its_file_says_the_same() {
    let Some((model, cases)) = smollm2() else { return };
    let kept = load_as(&smollm2_file().unwrap(), Storage::Gguf).unwrap().weights;
    let options = GenerateOptions { max_tokens: 24, temperature: 0.0, ..Default::default() };
    // Bounds of the log-probabilities. Unless a cache is set, given text is scored with f32 alone: only sums are left.
    for (cache, bound) in [(None, 3e-4), (Some(CacheType::F16), 0.03), (Some(CacheType::Q8), 1.0)] {
        let mut generator = Generator::new(&kept);
        if let Some(cache) = cache {
            generator = generator.with_cache(cache);
        }
        let (mut logit_error, mut logp_error) = (0f32, 0f32);
        for case in &cases {
            let prompt = ids(&case["input_ids"]);
            let mut f32_path = Generator::new(&model);
            let expected = f32_path.generate(&prompt, &options, go_on).unwrap();
            let found = generator.generate(&prompt, &options, go_on).unwrap();
            if let Some(place) = (0..expected.ids.len()).find(|place| found.ids.get(*place) != expected.ids.get(*place))
            {
                let logits = f32_path.logits(&[&prompt[..], &expected.ids[..place]].concat()).unwrap();
                let mut last = logits[logits.len() - model.config.vocab_size..].to_vec();
                last.sort_by(f32::total_cmp);
                let margin = last[last.len() - 1] - last[last.len() - 2];
                eprintln!("{cache:?}: token {place} differs where the margin is {margin}");
                // Eight bits of a cache are coarser than what is decided here.
                assert!(
                    margin < 0.05 || cache == Some(CacheType::Q8),
                    "{cache:?}, {}: token {place} differs at a margin of {margin}",
                    case["greedy_text"]
                );
            }
            let whole = [&prompt[..], &expected.ids].concat();
            let worst = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            logit_error = logit_error.max(worst(&generator.logits(&whole).unwrap(), &f32_path.logits(&whole).unwrap()));
            logp_error = logp_error.max(worst(&generator.score(&whole).unwrap(), &f32_path.score(&whole).unwrap()));
        }
        eprintln!("{cache:?}: logits within {logit_error}, log-probabilities within {logp_error} of the f32 path's");
        assert!(logp_error < bound, "{cache:?}: log-probabilities off by {logp_error}");
    }
}
