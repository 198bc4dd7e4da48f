use super::*;
use crate::layout::Weights;
use crate::weights::test::{small_config, small_model};

fn go_on(_: u32, _: f32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens, temperature: 0.0, stop_token_ids: Some(vec![]), ..Default::default() }
}

#[test]
fn greedy_agrees_with_the_logits_of_the_whole_text() {
    let model = small_model();
    let mut generator = Generator::new(&model);
    let prompt = [1, 5, 9, 30, 7, 7, 12, 3];
    let answer = generator.generate(&prompt, &greedy(20), go_on).unwrap();
    assert_eq!((answer.ids.len(), answer.finish), (20, FinishReason::Length));
    let whole = [&prompt[..], &answer.ids].concat();
    let logits = generator.logits(&whole).unwrap();
    let scores = generator.score(&whole).unwrap();
    for (i, (id, logp)) in answer.ids.iter().zip(&answer.logps).enumerate() {
        let row = &logits[(prompt.len() + i - 1) * 40..][..40];
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!((row[*id as usize] - best).abs() < 1e-4);
        assert!((logp - scores[prompt.len() + i - 1]).abs() < 1e-4);
    }
}

#[test]
fn a_batch_says_what_its_members_say_alone() {
    let model = small_model();
    let requests: Vec<Request> = (0..23u32)
        .map(|i| Request {
            prompt: (0..=i % 9).map(|j| 3 + (i * 7 + j * 5) % 37).collect(),
            options: GenerateOptions {
                max_tokens: (i % 12) as usize,
                temperature: if i % 3 == 0 { 0.0 } else { 0.9 },
                seed: u64::from(i),
                ..Default::default()
            },
        })
        .collect();
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(Generator::new(&model).generate(&request.prompt, &request.options, go_on).unwrap());
    }
    let mut streamed = vec![Vec::new(); requests.len()];
    let mut generator = Generator::new(&model).with_max_active(5);
    let mut batch = || {
        generator
            .generate_batch(&requests, |index, token, _| {
                streamed[index].push(token);
                ControlFlow::Continue(())
            })
            .unwrap()
    };
    let together = batch();
    // Reused buffers must not show.
    assert_eq!(together, batch());
    for (i, (together, alone)) in together.iter().zip(&alone).enumerate() {
        assert_eq!((&together.ids, together.finish), (&alone.ids, alone.finish), "request {i}");
        for (a, b) in together.logps.iter().zip(&alone.logps) {
            assert!((a - b).abs() < 1e-4);
        }
        assert_eq!(streamed[i], [together.ids.clone(), together.ids.clone()].concat());
    }
}

#[test]
fn long_prompts_go_in_pieces() {
    let mut config = small_config();
    config.max_position_embeddings = 2000;
    let model = Weights::random(config, 5);
    let prompt: Vec<u32> = (0..1200u32).map(|i| i * 13 % 40).collect();
    let requests = vec![
        Request { prompt: prompt.clone(), options: greedy(4) },
        Request { prompt: prompt[..700].to_vec(), options: greedy(4) },
        Request { prompt: vec![1], options: greedy(4) },
    ];
    let mut generator = Generator::new(&model);
    let answers = generator.generate_batch(&requests, |_, _, _| ControlFlow::Continue(())).unwrap();
    for (answer, request) in answers.iter().zip(&requests) {
        let alone = generator.generate(&request.prompt, &request.options, go_on).unwrap();
        assert_eq!(answer.ids, alone.ids);
    }
    let scores = generator.score(&prompt).unwrap();
    assert_eq!(scores.len(), prompt.len() - 1);
    // The window of 6 over two layers: text further back than that cannot matter.
    let tail = generator.score(&prompt[600..]).unwrap();
    for (a, b) in scores[620..].iter().zip(&tail[20..]) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
}

#[test]
fn every_way_to_end() {
    let model = small_model();
    let mut generator = Generator::new(&model);
    let prompt = [1, 4, 9];
    let free = generator.generate(&prompt, &greedy(10), go_on).unwrap();
    let stop = free.ids[4];
    let first = free.ids.iter().position(|id| *id == stop).unwrap();
    let options = GenerateOptions { stop_token_ids: Some(vec![stop]), ..greedy(10) };
    let stopped = generator.generate(&prompt, &options, go_on).unwrap();
    assert_eq!((stopped.ids.as_slice(), stopped.finish), (&free.ids[..first], FinishReason::StopToken(stop)));

    let none = generator.generate(&prompt, &greedy(0), go_on).unwrap();
    assert_eq!((none.ids.len(), none.finish), (0, FinishReason::Length));

    let mut seen = 0;
    let broken = generator.generate(&prompt, &greedy(10), |_, _| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let broken = broken.unwrap();
    assert_eq!((broken.ids.as_slice(), broken.finish), (&free.ids[..3], FinishReason::Callback));

    // 64 positions: the prompt's 3 and 61 more; the last token needs none of its own.
    let full = generator.generate(&prompt, &greedy(1000), go_on).unwrap();
    assert_eq!((full.ids.len(), full.finish), (62, FinishReason::Context));

    let requests = vec![Request { prompt: prompt.to_vec(), options: greedy(10) }; 3];
    let mut count = 0;
    let halted = generator.generate_batch(&requests, |_, _, _| {
        count += 1;
        if count == 5 { ControlFlow::Break(Halt::Batch) } else { ControlFlow::Continue(()) }
    });
    let halted = halted.unwrap();
    assert_eq!(halted.iter().map(|answer| answer.ids.len()).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(halted.iter().all(|answer| answer.finish == FinishReason::Aborted));

    let flag = Arc::new(AtomicBool::new(false));
    let mut generator = generator.with_abort(flag.clone());
    let aborted = generator.generate(&prompt, &greedy(10), |_, _| {
        flag.store(true, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    let aborted = aborted.unwrap();
    assert_eq!((aborted.ids.as_slice(), aborted.finish), (&free.ids[..1], FinishReason::Aborted));
    assert_eq!(generator.score(&prompt).unwrap_err().code(), "ZA_ABORTED");
}

#[test]
fn wrong_requests_are_refused_before_work() {
    let model = small_model();
    let mut generator = Generator::new(&model);
    let mut code = |prompt: &[u32], change: fn(&mut GenerateOptions)| {
        let mut options = greedy(3);
        change(&mut options);
        let error = generator.generate(prompt, &options, |_, _| panic!("no token may come")).unwrap_err();
        (error.code(), error.to_string())
    };
    assert_eq!(code(&[], |_| {}).0, "ZA_EMPTY_PROMPT");
    let (found, message) = code(&[1, 40], |_| {});
    assert_eq!(found, "ZA_TOKEN_RANGE");
    assert!(message.contains("40") && message.contains("position 1"), "{message}");
    let (found, message) = code(&[1; 65], |_| {});
    assert_eq!(found, "ZA_CONTEXT_LENGTH");
    assert!(message.contains("65") && message.contains("64"), "{message}");
    for (change, field) in [
        ((|o| o.temperature = -1.0) as fn(&mut GenerateOptions), "temperature"),
        (|o| o.temperature = f32::NAN, "temperature"),
        (|o| o.top_p = 0.0, "top_p"),
        (|o| o.min_p = 1.5, "min_p"),
        (|o| o.repetition_penalty = 0.0, "repetition_penalty"),
    ] {
        let (found, message) = code(&[1], change);
        assert_eq!(found, "ZA_GENERATE_OPTION");
        assert!(message.contains(field), "{message}");
    }
    assert_eq!(generator.score(&[]).unwrap_err().code(), "ZA_EMPTY_PROMPT");
    assert_eq!(generator.score(&[99]).unwrap_err().code(), "ZA_TOKEN_RANGE");
    assert_eq!(generator.score(&[3]).unwrap(), [0.0f32; 0]);
}

#[test]
fn weights_that_are_not_finite_are_told() {
    let mut model = small_model();
    let norm = model.layout.final_norm.clone();
    model.data[norm].fill(f32::NAN);
    let error = Generator::new(&model).generate(&[1, 2], &greedy(3), go_on).unwrap_err();
    assert_eq!(error.code(), "ZA_NOT_FINITE");
}

#[test]
fn a_cache_takes_the_memory_of_its_type() {
    use crate::weights::allocation::peak;
    use zephyr_kernels::attention;
    let row = [0.5; 2 * 64];
    let rows = |kind| {
        let mut cache = attention::Cache::new(kind, 2, 64);
        (0..1024).for_each(|_| cache.push(&row));
        // A copy has no room to grow.
        peak(|| drop(std::hint::black_box(cache.clone()))) as f64
    };
    let whole = rows(CacheType::F32);
    assert!((rows(CacheType::F16) / whole - 0.5).abs() < 0.01);
    // A byte for each of four, and a step of four bytes for 32 of them.
    assert!((rows(CacheType::Q8) / whole - 9.0 / 32.0).abs() < 0.01);

    // In use: keys and values of many layers, beside what a step itself needs.
    let config = Config { layers: 8, max_position_embeddings: 4097, sliding_window: None, ..small_config() };
    let model = Weights::random(config, 4);
    let prompt: Vec<u32> = (0..4096).map(|place| 3 + place % 37).collect();
    let used = |kind| {
        peak(|| {
            Generator::new(&model).with_cache(kind).generate(&prompt, &greedy(1), go_on).unwrap();
        }) as f64
    };
    let whole = used(CacheType::F32);
    let (half, eighth) = (used(CacheType::F16) / whole, used(CacheType::Q8) / whole);
    assert!(half < 0.75 && eighth < 0.8 * half, "f16 takes {half:.2} of f32, q8 {eighth:.2}");
}
