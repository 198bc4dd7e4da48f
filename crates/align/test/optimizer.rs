//! The ways to hold weights and moments.

use std::ops::Range;
use std::sync::Arc;

use zephyr_kernels::adamw;

use super::{bits, documents, models, norm_of, packed, relative, update, weights};
use crate::checkpoint::{self, Disk, Snapshot, Trained, on_disk};
use crate::session::{Optimizer, OptimizerKind, Session, SessionOptions, decay_runs, state_bytes};

const KINDS: [OptimizerKind; 3] = [OptimizerKind::AdamW, OptimizerKind::AdamW8bit, OptimizerKind::AdamWBf16];

/// Weights after some steps of SFT, and the session.
fn trained(
    folder: &std::path::Path,
    kind: OptimizerKind,
    steps: usize,
    rate: f64,
) -> (zephyr_mistral::Weights, Session) {
    let mut model = weights(folder.join("model.safetensors"));
    let mut session = Session::new(&model, SessionOptions { optimizer: kind, ..SessionOptions::default() });
    let rows = documents(folder);
    for step in 0..steps {
        session.accumulate_sft(&model, &packed(&rows[step % 4..][..2]), 100.0).unwrap();
        session.apply(&mut model, &update(rate)).unwrap();
    }
    (model, session)
}

#[test]
fn every_kind_learns_the_same() {
    for folder in models() {
        let start = weights(folder.join("model.safetensors"));
        let moved = |kind| {
            let model = trained(&folder, kind, 6, 1e-3).0;
            model.data.iter().zip(&start.data).map(|(after, before)| after - before).collect::<Vec<f32>>()
        };
        let exact = moved(OptimizerKind::AdamW);
        assert!(norm_of(&exact) > 0.0);
        for kind in [OptimizerKind::AdamW8bit, OptimizerKind::AdamWBf16] {
            let error = relative(&moved(kind), &exact);
            assert!(error > 0.0 && error < 0.3, "{kind:?} is off by {error}");
        }
    }
}

/// Given the same gradients the two halves are the f32 weights bit for bit, also where one update is far below what a
/// bf16 can show.
#[test]
fn bf16_weights_and_their_rest_are_the_f32_weights() {
    let len = 3000;
    let runs: Vec<(Range<usize>, bool)> = vec![(0..1000, true), (1000..1010, false), (1010..len, true)];
    let start: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 33.0).collect();
    let (mut exact, mut rounded) = (start.clone(), start.clone());
    let (mut full, mut halves) = (Optimizer::new(OptimizerKind::AdamW), Optimizer::new(OptimizerKind::AdamWBf16));
    for step in 0..40 {
        let gradients: Vec<f32> = (0..len).map(|i| ((i * 53 + step * 71) % 97) as f32 / 97.0 - 0.4).collect();
        full.step(&mut exact, &gradients, &runs, &update(1e-6), 0.5);
        halves.step(&mut rounded, &gradients, &runs, &update(1e-6), 0.5);
        assert!(rounded.iter().all(|value| value.to_bits() & 0xffff == 0), "the forward pass sees bf16 numbers");
    }
    let sections = halves.sections();
    let rest = sections.iter().find(|section| section.name == "weight_rest").unwrap();
    let rests: Vec<i16> = rest.bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    adamw::join(&mut rounded, &rests);
    assert_eq!(bits(&rounded), bits(&exact));
    assert_ne!(bits(&exact), bits(&start));
}

#[test]
fn the_state_is_its_sections() {
    for folder in models() {
        for kind in KINDS {
            let (mut model, session) = trained(&folder, kind, 3, 1e-3);
            let runs = decay_runs(&model.layout.tensors);
            let state = session.optimizer();
            let mut copy = Optimizer::sized(kind, state.steps(), &runs);
            for (to, from) in copy.sections_mut().into_iter().zip(state.sections()) {
                assert_eq!((&to.name, to.dtype, to.bytes.len()), (&from.name, from.dtype, from.bytes.len()));
                assert_eq!(from.bytes.len() % (from.dtype.bitsize() / 8), 0);
                to.bytes.copy_from_slice(&from.bytes);
            }
            assert!(&copy == state);
            let names: std::collections::HashSet<String> =
                state.sections().into_iter().map(|section| section.name).collect();
            assert_eq!(names.len(), state.sections().len(), "names are different");
            assert!(state.bytes() <= state_bytes(kind, model.data.len()) + 8 * runs.len());
            // And it goes on the same way.
            let gradients = vec![0.01; model.data.len()];
            let (mut other, mut again) = (model.data.clone(), session.optimizer().clone());
            again.step(&mut model.data, &gradients, &runs, &update(1e-3), 1.0);
            copy.step(&mut other, &gradients, &runs, &update(1e-3), 1.0);
            assert_eq!(bits(&other), bits(&model.data));
        }
    }
}

#[test]
fn a_saved_run_goes_on_with_every_kind() {
    let Some(folder) = models().into_iter().next() else { return };
    let place = tempfile::tempdir().unwrap();
    for (index, kind) in KINDS.into_iter().enumerate() {
        let (model, session) = trained(&folder, kind, 3, 1e-3);
        let path = place.path().join(index.to_string());
        let snapshot = Snapshot::of(&session, Trained::Weights(Arc::new(model.clone())), 3, String::new());
        on_disk(path.clone(), 2).save(&snapshot.record, &snapshot.sections()).unwrap();
        let saved = checkpoint::newest(&Disk, &path).unwrap().newest.unwrap();
        let (mut again, mut resumed) = trained(&folder, kind, 1, 1e-3);
        checkpoint::restore(&mut resumed, &mut again, None, &saved, &Disk).unwrap();
        assert!(resumed.optimizer() == session.optimizer() && bits(&again.data) == bits(&model.data));
        // A state of another kind is not read as this one's.
        let (mut other, mut foreign) = trained(&folder, KINDS[(index + 1) % 3], 1, 1e-3);
        let error = checkpoint::restore(&mut foreign, &mut other, None, &saved, &Disk).unwrap_err();
        assert_eq!(error.code(), "ZA_TRAIN_STATE");
    }
}
