//! The whole decoder against PyTorch's logits and gradients, against finite differences, and against itself under
//! every recompute policy and every way to pack.

use std::path::PathBuf;

use zephyr_kernels::head::{self, Head, Stats};

use super::{Activations, Batch, Recompute, backward, forward, rope_table};
use crate::config::Config;
use crate::layout::Weights;
use crate::model::Model;
use crate::weights;

/// The golden folder, or a loud skip.
fn golden() -> Option<PathBuf> {
    let folder = std::env::var_os("ZEPHYR_GOLDEN")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no golden folder at {} (set ZEPHYR_GOLDEN)", folder.display());
    None
}

pub(crate) struct Packed {
    pub ids: Vec<u32>,
    pub positions: Vec<u32>,
    pub segments: Vec<u32>,
    pub prefixes: Vec<u32>,
}

impl Packed {
    pub fn new(documents: &[Vec<u32>]) -> Self {
        let mut packed = Self { ids: Vec::new(), positions: Vec::new(), segments: vec![0], prefixes: Vec::new() };
        for document in documents {
            packed.ids.extend(document);
            packed.positions.extend(0..document.len() as u32);
            packed.segments.push(packed.ids.len() as u32);
        }
        packed
    }

    pub fn batch(&self) -> Batch<'_> {
        let Self { ids, positions, segments, prefixes } = self;
        Batch { ids, positions, segments, prefixes }
    }
}

/// Forward and backward of the cross-entropy of `rows` → `targets`, each with `coefficient = dL/dlogp`.
pub(crate) fn gradient<'a>(
    model: impl Into<Model<'a>>,
    packed: &Packed,
    rows: &[usize],
    targets: &[u32],
    coefficient: f32,
    recompute: Recompute,
) -> (Vec<f32>, Vec<f32>) {
    let model = model.into();
    let weights = model.weights;
    let width = weights.config.hidden_size;
    let rope = rope_table(&weights.config, 64);
    let mut activations = Activations::new(recompute);
    activations.dropout = Some(11);
    forward(model, &rope, &packed.batch(), &mut activations, true).unwrap();
    let hidden: Vec<f32> = rows.iter().flat_map(|&row| activations.hidden[row * width..][..width].to_vec()).collect();
    let head = Head { weight: weights.head(), vocabulary: weights.config.vocab_size, width, chunk: 7 };
    let mut gradients = vec![0.0; model.trainable()];
    let (mut stats, mut scratch, mut d_hidden) = (Stats::default(), Vec::new(), vec![0.0; hidden.len()]);
    head::forward_backward(
        &head,
        &hidden,
        targets,
        &vec![coefficient; targets.len()],
        &mut d_hidden,
        model.adapter.is_none().then(|| &mut gradients[weights.layout.lm_head.clone()]),
        &mut stats,
        &mut scratch,
    );
    activations.d_hidden.fill(0.0);
    for (row, values) in rows.iter().zip(d_hidden.chunks_exact(width)) {
        let sum = &mut activations.d_hidden[row * width..][..width];
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    backward(model, &rope, &packed.batch(), &mut activations, &mut gradients).unwrap();
    (stats.logp, gradients)
}

pub(crate) fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let scale: f64 = expected.iter().map(|b| f64::from(*b).powi(2)).sum();
    (difference / scale.max(1e-30)).sqrt()
}

struct Reference {
    bytes: Vec<u8>,
}

impl Reference {
    fn floats(&self, name: &str) -> Vec<f32> {
        let file = safetensors::SafeTensors::deserialize(&self.bytes).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }

    fn integers(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        let file = safetensors::SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        let values = view.data().chunks_exact(8).map(|eight| i64::from_le_bytes(eight.try_into().unwrap()));
        (view.shape().to_vec(), values.collect())
    }
}

#[test]
fn golden_logits_logps_and_every_gradient_equal_pytorch() {
    let Some(golden) = golden() else { return };
    for name in ["window", "headdim"] {
        let weights = weights::load(&golden.join(name)).unwrap().weights;
        let reference = Reference { bytes: std::fs::read(golden.join(name).join("forward.safetensors")).unwrap() };
        let (shape, ids) = reference.integers("input_ids");
        let (_, attended) = reference.integers("attention_mask");
        let (_, completion) = reference.integers("completion_mask");
        let (rows_in_batch, columns) = (shape[0], shape[1]);
        let mut documents = Vec::new();
        let (mut rows, mut targets, mut expected_logps) = (Vec::new(), Vec::new(), Vec::new());
        let (logps, logits) = (reference.floats("per_token_logps"), reference.floats("logits"));
        let mut expected_logits = Vec::new();
        let vocabulary = weights.config.vocab_size;
        let mut start = 0;
        for row in 0..rows_in_batch {
            let at = |column: usize| row * columns + column;
            let length = (0..columns).filter(|&column| attended[at(column)] == 1).count();
            documents.push((0..length).map(|column| ids[at(column)] as u32).collect::<Vec<u32>>());
            for column in 1..length {
                if completion[at(column)] == 1 {
                    rows.push(start + column - 1);
                    targets.push(ids[at(column)] as u32);
                    expected_logps.push(logps[row * (columns - 1) + column - 1]);
                }
            }
            expected_logits.extend_from_slice(&logits[at(0) * vocabulary..at(length) * vocabulary]);
            start += length;
        }
        let packed = Packed::new(&documents);

        let rope = rope_table(&weights.config, 64);
        let mut activations = Activations::default();
        forward(&weights, &rope, &packed.batch(), &mut activations, false).unwrap();
        let mut found = vec![0.0; packed.ids.len() * vocabulary];
        let head = Head { weight: weights.head(), vocabulary, width: weights.config.hidden_size, chunk: 16 };
        head::logits(&head, &activations.hidden, &mut found);
        assert!(relative(&found, &expected_logits) < 1e-5, "{name}: logits");

        let coefficient = -1.0 / targets.len() as f32;
        let (found, gradients) = gradient(&weights, &packed, &rows, &targets, coefficient, Recompute::None);
        assert!(relative(&found, &expected_logps) < 1e-5, "{name}: log-probs");
        let loss = -found.iter().sum::<f32>() / found.len() as f32;
        assert!((loss - reference.floats("loss")[0]).abs() < 1e-5, "{name}: loss {loss}");
        for tensor in &weights.layout.tensors {
            let expected = reference.floats(&format!("grad.{}", tensor.name));
            let error = relative(&gradients[tensor.range.clone()], &expected);
            assert!(error < 1e-4, "{name}: gradient of {} is off by {error:e}", tensor.name);
        }
    }
}

pub(crate) fn small(tied: bool, window: Option<usize>) -> Weights {
    let window = window.map_or("null".to_owned(), |width| width.to_string());
    let json = format!(
        r#"{{"model_type":"mistral","vocab_size":37,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"sliding_window":{window},"rms_norm_eps":1e-5,
        "hidden_act":"silu","max_position_embeddings":64,"rope_theta":10000.0,"tie_word_embeddings":{tied},
        "initializer_range":0.3,"bos_token_id":1,"eos_token_id":2}}"#
    );
    Weights::random(Config::from_json(&json, "test").unwrap(), 3)
}

pub(crate) fn documents() -> Vec<Vec<u32>> {
    let ids = |seed: u32, length: u32| (0..length).map(|i| (seed + i * i * 7 + i * 3) % 37).collect();
    vec![ids(1, 11), ids(5, 1), ids(9, 20), ids(2, 3)]
}

/// Every token after a document's first, as (row, target).
pub(crate) fn predictions(documents: &[Vec<u32>]) -> (Vec<usize>, Vec<u32>) {
    let (mut rows, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
    for document in documents {
        for column in 1..document.len() {
            rows.push(start + column - 1);
            targets.push(document[column]);
        }
        start += document.len();
    }
    (rows, targets)
}

#[test]
pub(crate) fn gradients_equal_finite_differences() {
    for (tied, window) in [(true, None), (false, Some(4))] {
        let mut weights = small(tied, window);
        let documents = documents();
        let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
        let (_, gradients) = gradient(&weights, &packed, &rows, &targets, -1.0, Recompute::default());
        let loss = |weights: &Weights| {
            let (logps, _) = gradient(weights, &packed, &rows, &targets, -1.0, Recompute::default());
            -logps.iter().map(|&value| f64::from(value)).sum::<f64>()
        };
        // Along the gradient of each tensor: the slope must be its squared norm.
        for tensor in weights.layout.tensors.clone() {
            let direction: Vec<f32> = gradients[tensor.range.clone()].to_vec();
            let norm = direction.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            let original = weights.data[tensor.range.clone()].to_vec();
            let step = 4e-3;
            let shifted = |sign: f64, weights: &mut Weights| {
                for (offset, value) in weights.data[tensor.range.clone()].iter_mut().enumerate() {
                    *value = (f64::from(original[offset]) + sign * step * f64::from(direction[offset]) / norm) as f32;
                }
                loss(weights)
            };
            let slope = (shifted(1.0, &mut weights) - shifted(-1.0, &mut weights)) / (2.0 * step);
            weights.data[tensor.range.clone()].copy_from_slice(&original);
            assert!((slope / norm - 1.0).abs() < 5e-3, "{}: slope {slope}, norm {norm}", tensor.name);
        }
    }
}

#[test]
fn every_recompute_policy_gives_the_same_bits() {
    let weights = small(false, Some(5));
    let documents = documents();
    let (packed, (rows, targets)) = (Packed::new(&documents), predictions(&documents));
    let run = |policy| gradient(&weights, &packed, &rows, &targets, -0.5, policy);
    let reference = run(Recompute::None);
    for policy in [Recompute::NormsAndSwiglu, Recompute::Layer] {
        let (logps, gradients) = run(policy);
        assert!(logps.iter().zip(&reference.0).all(|(a, b)| a.to_bits() == b.to_bits()), "{policy:?}");
        assert!(gradients.iter().zip(&reference.1).all(|(a, b)| a.to_bits() == b.to_bits()), "{policy:?}");
    }
}

#[test]
fn packed_equals_one_by_one() {
    let weights = small(true, Some(6));
    let documents = documents();
    let (rows, targets) = predictions(&documents);
    let (logps, gradients) = gradient(&weights, &Packed::new(&documents), &rows, &targets, -1.0, Recompute::default());
    let (mut single_logps, mut single_gradients) = (Vec::new(), vec![0.0; gradients.len()]);
    for document in &documents {
        if document.len() < 2 {
            continue;
        }
        let one = std::slice::from_ref(document);
        let (rows, targets) = predictions(one);
        let (logps, gradients) = gradient(&weights, &Packed::new(one), &rows, &targets, -1.0, Recompute::default());
        single_logps.extend(logps);
        single_gradients.iter_mut().zip(gradients).for_each(|(sum, value)| *sum += value);
    }
    assert!(relative(&logps, &single_logps) < 1e-5);
    assert!(relative(&gradients, &single_gradients) < 1e-5);
}

/// Pairs of `(prompt, chosen, rejected)` once as separate documents, chosen 0, rejected 0, …, and once over one copy of
/// each prompt; the predictions of all answers in the same order, as rows of each.
pub(crate) fn pairs(lengths: &[(u32, u32, u32)]) -> [(Packed, Vec<usize>, Vec<u32>); 2] {
    let ids = |seed: u32, length: u32| (0..length).map(move |i| (seed * 5 + i * i * 7 + i * 3) % 37);
    let mut documents = Vec::new();
    let mut shared = Packed { ids: vec![], positions: vec![], segments: vec![0], prefixes: vec![] };
    let (mut rows, mut shared_rows, mut targets, mut start) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (index, &(prompt, chosen, rejected)) in lengths.iter().enumerate() {
        let seed = 3 * index as u32;
        let stem = shared.ids.len();
        for (side, length) in [chosen, rejected].into_iter().enumerate() {
            let document: Vec<u32> = ids(seed, prompt).chain(ids(seed + 1 + side as u32, length)).collect();
            let first = if side == 0 { 0 } else { prompt };
            let own = shared.ids.len();
            shared.ids.extend(&document[first as usize..]);
            shared.positions.extend(first..prompt + length);
            shared.segments.push(shared.ids.len() as u32);
            shared.prefixes.push(first);
            for at in prompt.max(1) as usize..document.len() {
                rows.push(start + at - 1);
                targets.push(document[at]);
                let before = at - 1;
                let first = first as usize;
                shared_rows.push(if before < first { stem + before } else { own + before - first });
            }
            start += document.len();
            documents.push(document);
        }
    }
    [(Packed::new(&documents), rows, targets.clone()), (shared, shared_rows, targets)]
}

#[test]
fn pairs_over_one_prompt_equal_separate_sequences() {
    for (tied, window) in [(true, None), (false, Some(4)), (true, Some(12)), (false, Some(40))] {
        let weights = small(tied, window);
        let [(apart, apart_rows, targets), (shared, shared_rows, _)] =
            pairs(&[(11, 7, 20), (1, 1, 2), (0, 5, 3), (30, 3, 9), (6, 25, 1)]);
        assert_eq!(apart.ids.len() - shared.ids.len(), 11 + 1 + 30 + 6);
        for policy in [Recompute::None, Recompute::NormsAndSwiglu, Recompute::Layer] {
            let what = format!("window {window:?}, {policy:?}");
            let (logps, gradients) = gradient(&weights, &apart, &apart_rows, &targets, -0.1, policy);
            let (found, shared_gradients) = gradient(&weights, &shared, &shared_rows, &targets, -0.1, policy);
            assert!(relative(&found, &logps) < 1e-5, "{what}: log-probs");
            for tensor in &weights.layout.tensors {
                let error = relative(&shared_gradients[tensor.range.clone()], &gradients[tensor.range.clone()]);
                assert!(error < 1e-5, "{what}: the gradient of {} is off by {error:e}", tensor.name);
            }
        }
        let rope = rope_table(&weights.config, 64);
        let logits = |packed: &Packed, rows: &[usize]| {
            let mut activations = Activations::default();
            forward(&weights, &rope, &packed.batch(), &mut activations, false).unwrap();
            let (width, vocabulary) = (weights.config.hidden_size, weights.config.vocab_size);
            let weight = weights.head();
            let hidden: Vec<f32> =
                rows.iter().flat_map(|&row| &activations.hidden[row * width..][..width]).copied().collect();
            let mut logits = vec![0.0; rows.len() * vocabulary];
            head::logits(&Head { weight, vocabulary, width, chunk: 16 }, &hidden, &mut logits);
            logits
        };
        let error = relative(&logits(&shared, &shared_rows), &logits(&apart, &apart_rows));
        assert!(error < 1e-5, "window {window:?}: logits are off by {error:e}");
    }
}

#[test]
fn a_workspace_is_reused_by_batches_of_any_size() {
    let weights = small(true, None);
    let rope = rope_table(&weights.config, 64);
    let mut reused = Activations::default();
    for documents in [documents(), vec![documents()[0].clone()], documents()] {
        let packed = Packed::new(&documents);
        let mut fresh = Activations::default();
        forward(&weights, &rope, &packed.batch(), &mut reused, true).unwrap();
        forward(&weights, &rope, &packed.batch(), &mut fresh, false).unwrap();
        assert_eq!(reused.hidden, fresh.hidden);
    }
}

#[test]
fn bad_batches_are_refused() {
    let weights = small(true, None);
    let rope = rope_table(&weights.config, 8);
    let mut activations = Activations::default();
    let mut run = |ids: &[u32], positions: &[u32], segments: &[u32], prefixes: &[u32]| {
        let batch = Batch { ids, positions, segments, prefixes };
        forward(&weights, &rope, &batch, &mut activations, false).unwrap_err().code()
    };
    assert_eq!(run(&[1, 37], &[0, 1], &[0, 2], &[]), "ZA_TOKEN_RANGE");
    assert_eq!(run(&[1, 2], &[0, 8], &[0, 2], &[]), "ZA_CONTEXT_LENGTH");
    assert_eq!(run(&[1, 2], &[0, 1], &[0, 1], &[]), "ZA_BATCH");
    assert_eq!(run(&[1, 2], &[0], &[0, 2], &[]), "ZA_BATCH");
    assert_eq!(run(&[1, 2, 3], &[0, 1, 2], &[0, 2, 3], &[0, 3]), "ZA_BATCH");
    assert_eq!(run(&[1, 2, 3], &[0, 1, 2], &[0, 2, 3], &[0]), "ZA_BATCH");
}
