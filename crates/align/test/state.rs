//! Saving and resuming at a step boundary.

use std::fs;
use std::path::Path;

use zephyr_mistral::Weights;

use super::{bits, documents, golden, models, packed, session, update, weights};
use crate::session::Session;
use crate::state;

/// Steps `from..to` of a small run; each step sees other rows.
fn train(session: &mut Session, model: &mut Weights, rows: &[super::Row], steps: std::ops::Range<usize>) {
    for step in steps {
        for part in [2 * step % 8, (2 * step + 1) % 8] {
            session.accumulate_sft(&*model, &packed(&rows[part..part + 1]), 60.0).unwrap();
        }
        session.apply(&mut *model, &update(1e-3 / (step + 1) as f64)).unwrap();
    }
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
        let path = place.path().join("step.3");

        let (mut model, mut whole) = (start.clone(), session(&start));
        train(&mut whole, &mut model, &rows, 0..3);
        state::save(&whole, &model.data, &path, r#"{"seed":7}"#).unwrap();
        train(&mut whole, &mut model, &rows, 3..6);

        let (mut resumed_model, mut resumed) = (start.clone(), session(&start));
        // What the session did before is overwritten, also half a step.
        resumed.accumulate_sft(&resumed_model, &packed(&rows[..1]), 9.0).unwrap();
        assert_eq!(state::restore(&mut resumed, &mut resumed_model.data, &path).unwrap(), r#"{"seed":7}"#);
        assert_eq!(resumed.step(), 3);
        train(&mut resumed, &mut resumed_model, &rows, 3..6);
        assert_eq!(everything(&resumed, &resumed_model), everything(&whole, &model));
        let names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["step.3"], "nothing else is left");
    }
}

#[test]
fn a_state_before_the_first_step_is_a_state() {
    let Some(folder) = models().into_iter().next() else { return };
    let start = weights(folder.join("model.safetensors"));
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("start");
    state::save(&session(&start), &start.data, &path, "").unwrap();
    let (mut model, mut trained) = (start.clone(), session(&start));
    train(&mut trained, &mut model, &documents(&folder), 0..1);
    assert_eq!(state::restore(&mut trained, &mut model.data, &path).unwrap(), "");
    assert_eq!(everything(&trained, &model), everything(&session(&start), &start));
    train(&mut trained, &mut model, &documents(&folder), 0..1);
}

#[test]
fn an_existing_folder_is_refused_and_kept() {
    let Some(folder) = models().into_iter().next() else { return };
    let start = weights(folder.join("model.safetensors"));
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("taken");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("mine"), "text").unwrap();
    let error = state::save(&session(&start), &start.data, &path, "").unwrap_err();
    assert_eq!(error.code(), "ZA_TRAIN_STATE");
    assert!(error.to_string().contains("taken") && error.to_string().contains("Remedy: "), "{error}");
    assert_eq!(fs::read_to_string(path.join("mine")).unwrap(), "text");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

/// Damages a copy of a good state; the code of the error that comes.
fn refused(good: &Path, damage: impl FnOnce(&Path), model: &Weights, rows: &[super::Row]) -> String {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("damaged");
    fs::create_dir(&path).unwrap();
    for entry in fs::read_dir(good).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
    }
    damage(&path);
    let (mut model, mut session) = (model.clone(), session(model));
    train(&mut session, &mut model, rows, 0..1);
    let before = everything(&session, &model);
    let error = state::restore(&mut session, &mut model.data, &path).unwrap_err();
    assert!(everything(&session, &model) == before, "{error}: nothing is restored by half");
    let text = error.to_string();
    assert!(text.contains("damaged") && text.contains("Remedy: "), "{text}");
    error.code().to_owned()
}

#[test]
fn damaged_and_foreign_states_are_refused_whole() {
    let Some(folder) = models().into_iter().next() else { return };
    let start = weights(folder.join("model.safetensors"));
    let rows = documents(&folder);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("good");
    let (mut model, mut trained) = (start.clone(), session(&start));
    train(&mut trained, &mut model, &rows, 0..2);
    state::save(&trained, &model.data, &path, "").unwrap();

    let edit = |name: &'static str, value: serde_json::Value| {
        move |path: &Path| {
            let mut record = super::json(path.join("state.json"));
            record[name] = value;
            fs::write(path.join("state.json"), record.to_string()).unwrap();
        }
    };
    let tensors = |path: &Path, change: fn(Vec<u8>) -> Vec<u8>| {
        let file = path.join("state.safetensors");
        fs::write(&file, change(fs::read(&file).unwrap())).unwrap();
    };
    let code = |damage: &dyn Fn(&Path)| refused(&path, damage, &start, &rows);
    assert_eq!(code(&|path| fs::remove_file(path.join("state.json")).unwrap()), "ZA_TRAIN_STATE");
    assert_eq!(code(&|path| fs::write(path.join("state.json"), "{\"version\":").unwrap()), "ZA_TRAIN_STATE");
    assert_eq!(code(&|path| edit("version", "0.0.1".into())(path)), "ZA_TRAIN_STATE");
    assert_eq!(code(&|path| edit("parameters", 12.into())(path)), "ZA_TRAIN_STATE");
    assert_eq!(code(&|path| edit("surprise", 1.into())(path)), "ZA_TRAIN_STATE");
    // Moments that do not belong to the step.
    assert_eq!(code(&|path| edit("step", 0.into())(path)), "ZA_TRAIN_STATE");
    assert_eq!(code(&|path| fs::remove_file(path.join("state.safetensors")).unwrap()), "ZA_MODEL_NOT_FOUND");
    assert_eq!(code(&|path| tensors(path, |bytes| bytes[..bytes.len() / 2].to_vec())), "ZA_MODEL_FORMAT");
    assert_eq!(code(&|path| tensors(path, |_| Vec::new())), "ZA_MODEL_FORMAT");
    // A state of step 0 whose weights are gone.
    let empty = |path: &Path| {
        let tensors = ["weights", "first_moment", "second_moment"].map(|name| (name, state::Flat::new(&[])));
        safetensors::serialize_to_file(tensors, None, &path.join("state.safetensors")).unwrap();
        edit("step", 0.into())(path);
    };
    assert_eq!(code(&empty), "ZA_TRAIN_STATE");

    let Some(other) = golden("headdim") else { return };
    let other = weights(other.join("model.safetensors"));
    let (mut foreign, mut session) = (other.clone(), session(&other));
    let error = state::restore(&mut session, &mut foreign.data, &path).unwrap_err();
    assert_eq!(error.code(), "ZA_TRAIN_STATE");
    assert!(error.to_string().contains(&other.data.len().to_string()), "{error}");
    assert_eq!(bits(&foreign.data), bits(&other.data));
    assert_eq!(session.step(), 0);
}
