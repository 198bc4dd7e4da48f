//! Generating with the weights of a session on a device.

use zephyr_mistral::generate::{GenerateOptions, Request};

use super::*;

fn two_prompts() -> [Request; 2] {
    [(3..40).collect(), vec![5]].map(|prompt| Request {
        prompt,
        options: GenerateOptions { max_tokens: 8, temperature: 0.0, ..GenerateOptions::default() },
    })
}

/// With the weights that are there: the host's are those of before.
#[test]
fn what_is_trained_on_a_device_answers_there_as_on_the_host() {
    for folder in models() {
        let Some(device) = device() else { return };
        let start = weights(folder.join("model.safetensors"));
        let rows = packed(&documents(&folder));
        let requests = two_prompts();
        let run = |mut session: Session| {
            let mut model = start.clone();
            let mut answers = vec![session.generate(&model, &requests, Arc::default()).unwrap()];
            for _ in 0..2 {
                session.accumulate_sft(&model, &rows, 100.0).unwrap();
                session.apply(&mut model, &update(1e-2)).unwrap();
                answers.push(session.generate(&model, &requests, Arc::default()).unwrap());
            }
            answers
        };
        let expected = run(Session::new(&start, SessionOptions::default()));
        let found = run(in_f32(device));
        assert!(expected[0] != expected[2]);
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert_eq!(found.ids, expected.ids);
            let off = found.logps.iter().zip(&expected.logps).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-3, "log-probs are off by {off}");
        }
    }
}

/// Where there is no room for an answer, the training goes on.
#[test]
fn an_answer_gives_back_what_it_took_of_a_device() {
    for folder in models() {
        let Some(device) = emulated() else { return };
        let start = weights(folder.join("model.safetensors"));
        let rows = packed(&documents(&folder));
        let requests = two_prompts();
        let mut session = in_f32(device.clone());
        session.accumulate_sft(&start, &rows, 100.0).unwrap();
        let used = device.used();
        session.generate(&start, &requests, Arc::default()).unwrap();
        assert_eq!(device.used(), used);
        drop(session);
        assert_eq!(device.used(), 0);
        let Some(device) = Emulated::with_memory(Watch::Off, 0, used + 1000) else { return };
        let mut session = in_f32(device);
        session.accumulate_sft(&start, &rows, 100.0).unwrap();
        let error = session.generate(&start, &requests, Arc::default()).unwrap_err();
        assert_eq!(error.code(), "ZA_OUT_OF_MEMORY");
        session.apply(&mut start.clone(), &update(1e-3)).unwrap();
    }
}
