//! Saving and resuming at a step boundary.

use std::path::Path;
use std::sync::Arc;

use zephyr_mistral::Weights;

use super::{bits, documents, golden, models, packed, session, update, weights};
use crate::checkpoint::{self, Disk, Snapshot, Trained, Verified, on_disk};
use crate::session::Session;

/// Steps `from..to` of a small run; each step sees other rows.
fn train(session: &mut Session, model: &mut Weights, rows: &[super::Row], steps: std::ops::Range<usize>) {
    for step in steps {
        for part in [2 * step % 8, (2 * step + 1) % 8] {
            session.accumulate_sft(&*model, &packed(&rows[part..part + 1]), 60.0).unwrap();
        }
        session.apply(&mut *model, &update(1e-3 / (step + 1) as f64)).unwrap();
    }
}

fn save(session: &Session, model: &Weights, folder: &Path, extra: &str) -> Verified {
    let snapshot = Snapshot::of(session, Trained::Weights(Arc::new(model.clone())), session.step(), extra.to_owned());
    on_disk(folder.to_path_buf(), 2).save(&snapshot.record, &snapshot.sections()).unwrap();
    checkpoint::newest(&Disk, folder).unwrap().newest.unwrap()
}

fn everything(session: &Session, model: &Weights) -> (Vec<u32>, Vec<u32>, Vec<u32>, u64, u64) {
    let (first, second) = session.moments();
    (bits(&model.data), bits(first), bits(second), session.step(), session.tokens_seen())
}

#[test]
fn a_resumed_run_is_the_same_run_bit_for_bit() {
    for folder in models() {
        let start = weights(folder.join("model.safetensors"));
        let rows = documents(&folder);
        let place = tempfile::tempdir().unwrap();
        let (mut model, mut whole) = (start.clone(), session(&start));
        train(&mut whole, &mut model, &rows, 0..3);
        let saved = save(&whole, &model, place.path(), r#"{"seed":7}"#);
        assert_eq!(saved.record.extra, r#"{"seed":7}"#);
        train(&mut whole, &mut model, &rows, 3..6);

        let (mut resumed_model, mut resumed) = (start.clone(), session(&start));
        // What the session did before is overwritten, also half a step.
        resumed.accumulate_sft(&resumed_model, &packed(&rows[..1]), 9.0).unwrap();
        checkpoint::restore(&mut resumed, &mut resumed_model, None, &saved, &Disk).unwrap();
        assert_eq!(resumed.step(), 3);
        train(&mut resumed, &mut resumed_model, &rows, 3..6);
        assert_eq!(everything(&resumed, &resumed_model), everything(&whole, &model));
    }
}

#[test]
fn a_state_before_the_first_step_is_a_state() {
    let Some(folder) = models().into_iter().next() else { return };
    let start = weights(folder.join("model.safetensors"));
    let place = tempfile::tempdir().unwrap();
    let saved = save(&session(&start), &start, place.path(), "");
    let (mut model, mut trained) = (start.clone(), session(&start));
    train(&mut trained, &mut model, &documents(&folder), 0..1);
    checkpoint::restore(&mut trained, &mut model, None, &saved, &Disk).unwrap();
    assert_eq!(everything(&trained, &model), everything(&session(&start), &start));
    train(&mut trained, &mut model, &documents(&folder), 0..1);
}

#[test]
fn a_snapshot_is_of_its_moment_and_costs_no_copy_until_the_session_goes_on() {
    let Some(folder) = models().into_iter().next() else { return };
    let rows = documents(&folder);
    let mut model = weights(folder.join("model.safetensors"));
    let mut trained = session(&model);
    train(&mut trained, &mut model, &rows, 0..2);
    let shared = Arc::new(model.clone());
    let snapshot = Snapshot::of(&trained, Trained::Weights(shared.clone()), 2, String::new());
    let before = trained.moments().0.as_ptr();
    trained.accumulate_sft(&model, &packed(&rows[..1]), 9.0).unwrap();
    assert_eq!(trained.moments().0.as_ptr(), before, "forward and backward leave the moments where they are");
    assert!(trained.tokens_seen() > snapshot.record.tokens_seen);
    let between = Snapshot::of(&trained, Trained::Weights(shared.clone()), 2, String::new());
    assert_eq!(between.record, snapshot.record, "what is not finished is not saved");
    drop(between);
    let (first, _) = trained.moments();
    let expected = bits(first);
    trained.apply(&mut model, &update(1e-3)).unwrap();
    let place = tempfile::tempdir().unwrap();
    on_disk(place.path().to_path_buf(), 2).save(&snapshot.record, &snapshot.sections()).unwrap();
    drop(snapshot);
    let saved = checkpoint::newest(&Disk, place.path()).unwrap().newest.unwrap();
    let mut restored = session(&model);
    checkpoint::restore(&mut restored, &mut model, None, &saved, &Disk).unwrap();
    assert_eq!(bits(restored.moments().0), expected);
    assert_eq!(bits(&model.data), bits(&shared.data));
    assert_eq!(restored.step(), 2);
    // Let go of: the next step works in place.
    let before = restored.moments().0.as_ptr();
    restored.apply(&mut model, &update(1e-3)).unwrap();
    assert_eq!(restored.moments().0.as_ptr(), before);
}

#[test]
fn a_checkpoint_of_another_model_is_refused_whole() {
    let (Some(folder), Some(other)) = (golden("window"), golden("headdim")) else { return };
    let place = tempfile::tempdir().unwrap();
    let mut model = weights(folder.join("model.safetensors"));
    let mut trained = session(&model);
    train(&mut trained, &mut model, &documents(&folder), 0..2);
    let saved = save(&trained, &model, place.path(), "");

    let start = weights(other.join("model.safetensors"));
    let (mut foreign, mut session) = (start.clone(), session(&start));
    let error = checkpoint::restore(&mut session, &mut foreign, None, &saved, &Disk).unwrap_err();
    assert_eq!(error.code(), "ZA_TRAIN_STATE");
    assert!(error.to_string().contains(&(4 * start.data.len()).to_string()), "{error}");
    assert_eq!(bits(&foreign.data), bits(&start.data));
    assert_eq!(session.step(), 0);
}
