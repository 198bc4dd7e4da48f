//! NF4 weights that stay packed on the emulation, against the same values unpacked there.

use std::sync::Arc;

use zephyr_emulator::{Emulated, Watch};
use zephyr_kernels::cuda::{Bf16, Device, Element};

use super::cached_test::{adapter, all, nobody, requests};
use super::test::{POLICIES, on_device};
use super::{Cached, Decoder, Room};
use crate::config::Config;
use crate::generate::{Generation, Generator};
use crate::layout::Weights;
use crate::linear::Projection;
use crate::model::Model;
use crate::storage::Storage;
use crate::train::test::{Packed, documents, predictions};

/// The same values as NF4 and as f32. Projections end inside a block of 64 (with `head_dim` 4 also q, k and v) and inside
/// the second 256 blocks (gate, up and down).
fn both(head_dim: usize, seed: u64) -> [Weights; 2] {
    let json = serde_json::json!({
        "model_type": "mistral", "vocab_size": 40, "hidden_size": 40, "intermediate_size": 421, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": head_dim, "sliding_window": 6, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "max_position_embeddings": 64, "initializer_range": 0.2
    });
    let config = Config::from_json(&json.to_string(), "test").unwrap();
    let packed = Weights::random(config, seed).converted(Storage::Nf4).unwrap();
    let unpacked = packed.converted(Storage::F32).unwrap();
    [packed, unpacked]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn the_sizes_are_odd() {
    let [packed, _] = both(4, 3);
    let odd = |projection: Projection, block: usize| {
        let [rows, columns] = projection.shape(&packed.config);
        rows * columns % block != 0 && rows * columns > block
    };
    assert!([Projection::Q, Projection::K, Projection::V, Projection::Up].iter().all(|&each| odd(each, 64)));
    assert!([Projection::Gate, Projection::Up, Projection::Down].iter().all(|&each| odd(each, 64 * 256)));
}

#[test]
fn a_step_over_packed_weights_has_the_bits_of_one_over_their_values() {
    fn check<T: Element>(head_dim: usize, watch: Watch) -> Option<()> {
        let [packed, unpacked] = both(head_dim, 3);
        let adapter = adapter(&packed.config);
        let documents = documents();
        let (batch, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
        for recompute in POLICIES {
            let run = |weights: &Weights| {
                let device = Emulated::new(watch, 1)?;
                let model = Model::adapted(weights, &adapter);
                Some(on_device::<T>(device, model, &batch, (&rows, &targets), -0.3, recompute))
            };
            let (found, expected) = (run(&packed)?, run(&unpacked)?);
            assert_eq!(bits(&found.logps), bits(&expected.logps), "{recompute:?}");
            assert!(bits(&found.gradients) == bits(&expected.gradients), "{recompute:?}: gradients differ");
            assert!(expected.gradients.iter().any(|&value| value != 0.0));
        }
        Some(())
    }
    check::<f32>(4, Watch::On);
    check::<Bf16>(16, Watch::On);
}

/// Answers and scores of a model on a device.
fn said<T: Element>(decoder: &Decoder<T>) -> (Vec<Generation>, Vec<u32>) {
    let mut room = Room::new(decoder, nobody);
    let mut generator = Generator::on(Box::new(Cached { decoder, room: &mut room }));
    let text: Vec<u32> = (0..60).map(|at| at * at % 40).collect();
    (all(&mut generator, &requests(40, 5)), bits(&generator.score(&text).unwrap()))
}

#[test]
fn packed_weights_say_what_their_values_say_to_the_bit() {
    fn check<T: Element>(head_dim: usize) -> Option<()> {
        let device: Arc<dyn Device> = Emulated::new(Watch::Off, 0)?;
        let [[packed, unpacked], [other, other_unpacked]] = [both(head_dim, 3), both(head_dim, 4)];
        let adapter = adapter(&packed.config);
        let on = |weights| Decoder::<T>::new(device.clone(), Model::adapted(weights, &adapter), 64).unwrap();
        let mut decoder = on(&packed);
        let first = said(&decoder);
        assert!(first == said(&on(&unpacked)));
        // Other values, and as they were.
        decoder.write(Model::adapted(&other, &adapter)).unwrap();
        let second = said(&decoder);
        assert!(second == said(&on(&other_unpacked)) && second != first);
        decoder.write(Model::adapted(&packed, &adapter)).unwrap();
        assert!(said(&decoder) == first);
        Some(())
    }
    check::<f32>(4);
    check::<Bf16>(16);
}

/// By the definition of NF4: half a byte a value, one a block of 64, four for 256 blocks; and one group's values.
#[test]
fn packed_weights_take_the_bytes_of_their_parts() {
    fn check<T: Element>(head_dim: usize) -> Option<()> {
        let device = Emulated::new(Watch::Off, 0)?;
        let [packed, unpacked] = both(head_dim, 3);
        let decoder = Decoder::<T>::new(device.clone(), (&packed).into(), 64).unwrap();
        let plan = Decoder::<T>::plan((&packed).into(), 64);
        assert_eq!((decoder.bytes(), device.used()), (plan, plan));

        let config = &packed.config;
        let lengths = Projection::ALL.map(|projection| projection.shape(config).iter().product::<usize>());
        let projections = config.layers * lengths.iter().sum::<usize>();
        let largest = lengths[Projection::Gate as usize] + lengths[Projection::Up as usize];
        // Parts begin at multiples of 256 bytes, as many apart.
        let part = |bytes: usize| bytes.next_multiple_of(256) + 256;
        let values = |count: usize| part(count * size_of::<T>());
        let in_four_bits =
            |len: &usize| part(len.div_ceil(2)) + part(len.div_ceil(64)) + part(4 * len.div_ceil(64 * 256));
        let parts = config.layers * lengths.iter().map(in_four_bits).sum::<usize>();
        let all = packed.layout.len;
        let expected = Decoder::<T>::plan((&unpacked).into(), 64) - values(all) - values(0)
            + values(all - projections)
            + parts
            + part(4 * (16 + 256))
            + values(largest);
        assert_eq!(plan, expected);
        Some(())
    }
    check::<f32>(4);
    check::<Bf16>(16);
}
