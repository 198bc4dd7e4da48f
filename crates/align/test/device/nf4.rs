//! QLoRA on a device: a frozen base that stays packed there.

use zephyr_mistral::{Adapter, LoraConfig};

use super::*;
use crate::batch::sides;

/// A run of DPO with the adapter off as the reference: the same losses, and the same adapter at the end.
#[test]
fn an_adapter_over_packed_nf4_weights_on_a_device_learns_what_it_learns_over_their_values() {
    let Some(folder) = models().into_iter().next() else { return };
    let Some(device) = device() else { return };
    let packed = weights(folder.join("model.safetensors")).converted(Storage::Nf4).unwrap();
    let pairs = &golden_pairs(&json(folder.join("dpo.json")))[..1];
    let rows = packed_pairs(pairs);
    let run = |base: &Weights, precision| {
        let mut session = on(device.clone(), precision, SessionOptions::default());
        let mut adapter = moved(base, 0.3);
        let mut losses = Vec::new();
        for _ in 0..2 {
            let (chosen, rejected) = sides(&session.sequence_logps(base, &rows).unwrap());
            let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
            let (model, config) = (Model::adapted(base, &adapter), LossConfig::default());
            let sums = session.accumulate_dpo(model, &rows, reference, &config, denominator(pairs)).unwrap();
            losses.push(sums.loss);
            session.apply(&mut adapter, &update(1e-2)).unwrap();
        }
        session.fetch(&mut adapter).unwrap();
        (losses, bits(&adapter.data), session.bytes())
    };
    let unpacked = packed.converted(Storage::F32).unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let (found, expected) = (run(&packed, precision), run(&unpacked, precision));
        assert!((&found.0, &found.1) == (&expected.0, &expected.1), "{precision:?}");
        assert!(expected.0[0] != expected.0[1] && found.2 < expected.2, "{precision:?}");
    }
}

/// By the plan alone: the projections in 4.127 bits, embeddings and head in 16, and what the largest product reads unpacked.
#[test]
fn qlora_of_mistral_7b_needs_ten_gigabytes_less_than_lora() {
    let [whole, packed] = [Storage::F32, Storage::Nf4].map(mistral_7b);
    let fields = json!({"target_modules": "all-linear", "r": 16}).as_object().unwrap().clone();
    let adapter = Adapter::new(LoraConfig::from_fields(fields, "test").unwrap(), &whole.config, 3).unwrap();
    let options = SessionOptions { head_chunk: 1024, ..SessionOptions::default() };
    let fitting = |model: &Weights, tokens: usize, card: usize| {
        let work = Work { tokens, predictions: tokens / 2, train: true };
        let (model, memory) = (Model::adapted(model, &adapter), Free::of_card(card, card));
        MemoryPlan::fitting(model, Precision::Bf16, &options, work, memory, Some(Recompute::Layer))
    };
    for (tokens, card) in [(8192, 16_000_000_000), (2048, 8_000_000_000)] {
        let lora = fitting(&whole, tokens, 24_000_000_000).unwrap();
        let qlora = fitting(&packed, tokens, card).unwrap();
        assert_eq!(fitting(&whole, tokens, card).unwrap_err().code(), "ZA_DEVICE_MEMORY");
        // 32 layers; of each value half a byte, a byte for 64 and four for 64 · 256.
        let projections: usize = 32 * 218_103_808;
        let kept = projections / 2 + projections / 64 + 4 * projections / (64 * 256);
        let saved = 2 * projections - kept - 2 * (2 * 14336 * 4096);
        let least = lora.weights - saved;
        assert!((least..least + (1 << 20)).contains(&qlora.weights), "{qlora} beside {lora}");
        assert_eq!(lora.total() - lora.weights, qlora.total() - qlora.weights);
        eprintln!("{tokens} tokens: LoRA {lora}\n{tokens} tokens: QLoRA {qlora}");
    }
}
