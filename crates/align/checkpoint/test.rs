//! Crash points, failing operations and damaged bytes, all of them; the protocol on a disk in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::faulty::{Fault, FaultyDisk, Unsynced};
use super::*;

const FOLDER: &str = "/run/checkpoints";

fn record(step: u64) -> Record {
    Record { step, updates: step, tokens_seen: 10 * step, extra: format!(r#"{{"seed":{step}}}"#) }
}

/// Values that differ from step to step, in three types.
fn values(step: u64) -> (Vec<f32>, Vec<f32>, Vec<u8>) {
    let wave = |scale: f32| (0..40).map(|at| (at as f32 * scale + step as f32).sin()).collect();
    (wave(0.1), wave(0.7), (0..30).map(|at| (at * 7 + step) as u8).collect())
}

fn save(checkpoints: &mut Checkpoints, step: u64) -> Result<Saved> {
    let (parameters, moments, codes) = values(step);
    let sections = [
        Section { name: "codes".into(), dtype: Dtype::U8, bytes: Cow::Borrowed(&codes) },
        Section::floats("parameters", &parameters),
        Section::floats("first_moment", &moments),
    ];
    checkpoints.save(&record(step), &sections)
}

/// Small writes, so that there are many places to fail at.
fn checkpoints(disk: &FaultyDisk) -> Checkpoints {
    let mut checkpoints = Checkpoints::new(Arc::new(disk.clone()), PathBuf::from(FOLDER), 2);
    checkpoints.chunk = 64;
    checkpoints
}

/// A disk with the checkpoints of these steps.
fn disk(steps: &[u64]) -> FaultyDisk {
    let disk = FaultyDisk::new();
    disk.create_folder(Path::new("/run")).unwrap();
    let mut checkpoints = checkpoints(&disk);
    for &step in steps {
        save(&mut checkpoints, step).unwrap();
    }
    disk.copy()
}

/// Reads a verified checkpoint back and compares every value.
fn assert_is(disk: &FaultyDisk, verified: &Verified, step: u64) {
    assert_eq!(verified.record, record(step));
    let (parameters, moments, codes) = values(step);
    let (mut a, mut b, mut c) = (vec![0.0; 40], vec![0.0; 40], vec![0; 30]);
    let sections = vec![
        SectionMut::floats("parameters", &mut a),
        SectionMut::floats("first_moment", &mut b),
        SectionMut { name: "codes".into(), dtype: Dtype::U8, bytes: &mut c },
    ];
    verified.read(disk, sections).unwrap();
    assert_eq!((a, b, c), (parameters, moments, codes));
}

/// The newest checkpoint must be one of these steps, bit for bit.
fn assert_newest(disk: &FaultyDisk, steps: &[u64]) -> u64 {
    let found = newest(disk, Path::new(FOLDER)).unwrap();
    let verified = found.newest.unwrap_or_else(|| panic!("no checkpoint is left: {:?}", found.broken));
    assert!(steps.contains(&verified.record.step), "step {}", verified.record.step);
    assert_is(disk, &verified, verified.record.step);
    verified.record.step
}

fn names(disk: &FaultyDisk) -> Vec<String> {
    disk.names(Path::new(FOLDER)).unwrap()
}

#[test]
fn saves_verifies_reads_and_keeps_two() {
    let disk = disk(&[]);
    let mut checkpoints = checkpoints(&disk);
    assert!(checkpoints.newest().unwrap().newest.is_none());
    for step in [3, 6, 9, 12] {
        let saved = save(&mut checkpoints, step).unwrap();
        assert_eq!(saved.path, Path::new(FOLDER).join(format!("step-{step}")));
        assert_eq!(saved.removed.len(), usize::from(step > 6));
        assert!(saved.warnings.is_empty());
    }
    assert_eq!(names(&disk), ["step-12", "step-9"]);
    assert_eq!(assert_newest(&disk, &[12]), 12);
    // A file of the real safetensors crate's layout: others can read it.
    let bytes = disk.content(Path::new("/run/checkpoints/step-12/state.safetensors"));
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.tensor("codes").unwrap().data(), values(12).2);
    let error = save(&mut checkpoints, 12).unwrap_err();
    assert_eq!(error.code(), "ZA_TRAIN_STATE");
}

/// Sets of pending names that made it: all of them when they are few, else none, all, each alone and all but each.
fn kept_sets(pending: usize) -> Vec<u64> {
    let all = (1u64 << pending) - 1;
    if pending <= 6 {
        return (0..=all).collect();
    }
    let single = (0..pending).map(|bit| 1 << bit);
    [0, all].into_iter().chain(single.clone()).chain(single.map(|bit| all & !bit)).collect()
}

#[test]
fn crash_after_every_operation_of_a_save() {
    let (mut points, mut states, mut new) = (0, 0, 0);
    // The first checkpoint of a run, one that retires none, one that retires another, and one in place of a broken one.
    for (steps, damaged) in [(&[][..], None), (&[3], None), (&[3, 6], None), (&[3, 6, 9], Some(9))] {
        let disk = disk(steps);
        if let Some(step) = damaged {
            disk.damage(&Path::new(FOLDER).join(format!("step-{step}/record.json")), |bytes| bytes[9] ^= 1);
        }
        let disk = disk.copy();
        let mut writer = checkpoints(&disk);
        save(&mut writer, 9).unwrap();
        let before = steps.iter().copied().filter(|step| Some(*step) != damaged).max();
        for prefix in 0..=disk.changes() {
            points += 1;
            for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn, Unsynced::Zeros] {
                for kept in kept_sets(disk.pending_names(prefix)) {
                    states += 1;
                    let after = disk.crash(prefix, unsynced, kept);
                    let found = newest(&after, Path::new(FOLDER)).unwrap();
                    match (&found.newest, before) {
                        // Nothing was ever saved whole, and nothing is taken for it.
                        (None, None) => assert!(prefix < disk.changes(), "a finished save is there"),
                        (None, Some(_)) => panic!("crash after {prefix}, {unsynced:?}, {kept:b}: {:?}", found.broken),
                        (Some(verified), _) => {
                            let step = verified.record.step;
                            assert!(step == 9 || Some(step) == before);
                            assert_is(&after, verified, step);
                            new += usize::from(step == 9);
                        }
                    }
                    if prefix == disk.changes() {
                        assert_eq!(found.newest.unwrap().record.step, 9, "what save has returned is durable");
                    }
                    // The run goes on after the crash: what was left half-written does not disturb.
                    let mut next = checkpoints(&after);
                    next.tidy().unwrap();
                    assert!(names_or_none(&after).iter().all(|name| !name.starts_with('.')));
                    save(&mut next, 12).unwrap();
                    assert_newest(&after, &[12]);
                }
            }
        }
    }
    assert!(points > 80 && new > 0 && new < states);
    println!("crash points: {points}/{points} operations, {states}/{states} states after a crash, none lost");
}

fn names_or_none(disk: &FaultyDisk) -> Vec<String> {
    disk.names(Path::new(FOLDER)).unwrap_or_default()
}

#[test]
fn every_operation_fails_once() {
    let (mut tried, mut errors) = (0, 0);
    for steps in [&[3][..], &[3, 6]] {
        let calls = {
            let disk = disk(steps);
            save(&mut checkpoints(&disk), 9).unwrap();
            disk.calls()
        };
        let before = *steps.last().unwrap();
        for call in 0..calls {
            for fault in [Fault::NoSpace, Fault::Io, Fault::Interrupted] {
                tried += 1;
                let disk = disk(steps);
                disk.fail(call, fault);
                let mut writer = checkpoints(&disk);
                match save(&mut writer, 9) {
                    Ok(saved) => {
                        assert_eq!(assert_newest(&disk, &[9]), 9);
                        assert!(fault != Fault::Interrupted || saved.warnings.is_empty());
                    }
                    Err(error) => {
                        errors += 1;
                        assert_ne!(fault, Fault::Interrupted, "EINTR at call {call} is retried: {error}");
                        assert!(["ZA_DISK_FULL", "ZA_IO", "ZA_TRAIN_STATE"].contains(&error.code()), "{error}");
                        assert!(
                            error.to_string().contains("Remedy: ") && error.to_string().contains(FOLDER),
                            "{error}"
                        );
                        assert_newest(&disk, &[before, 9]);
                    }
                }
                // The one before is whole, whatever happened, and the next interval's save works.
                let previous = verify(&disk, &Path::new(FOLDER).join(format!("step-{before}"))).unwrap();
                assert_is(&disk, &previous, before);
                save(&mut writer, 12).unwrap();
                assert_newest(&disk, &[12]);
                assert!(names(&disk).iter().all(|name| !name.ends_with(".writing")));
            }
        }
    }
    assert!(errors > tried / 3, "{errors} of {tried}");
    println!("failing operations: {tried}/{tried} typed or survived ({errors} typed errors), nothing lost");
}

#[test]
fn a_disk_that_lies_is_found_out_before_an_old_checkpoint_goes() {
    let calls = {
        let disk = disk(&[3, 6]);
        save(&mut checkpoints(&disk), 9).unwrap();
        disk.calls()
    };
    let mut lies = 0;
    for call in 0..calls {
        let disk = disk(&[3, 6]);
        disk.fail(call, Fault::Flipped);
        match save(&mut checkpoints(&disk), 9) {
            // The call was no write.
            Ok(_) => assert_newest(&disk, &[9]),
            Err(error) => {
                lies += 1;
                assert_eq!(error.code(), "ZA_TRAIN_STATE");
                assert!(error.to_string().contains("does not read back"), "{error}");
                assert_eq!(names(&disk), ["step-3", "step-6", "step-9"]);
                assert_newest(&disk, &[6])
            }
        };
    }
    assert!(lies > 5, "{lies} writes of {calls} calls");
}

#[test]
fn every_damaged_byte_is_seen() {
    let good = disk(&[3, 6]);
    let newest_path = Path::new(FOLDER).join("step-6");
    let files = ["state.safetensors", "record.json", "manifest.json"];
    let mut tried = 0;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    let mut check = |file: &str, what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let disk = good.copy();
        disk.damage(&newest_path.join(file), change);
        let found = newest(&disk, Path::new(FOLDER)).unwrap();
        assert_eq!(found.broken.len(), 1, "{file}: {what}");
        assert_eq!(found.broken[0].path, newest_path);
        let reason = &found.broken[0].reason;
        assert!(files.iter().any(|name| reason.contains(name)), "the file is named: {reason}");
        assert_is(&disk, &found.newest.expect("the one before"), 3);
        assert_eq!(names(&disk), ["step-3", "step-6"], "the broken one is kept");
        tried += 1;
    };
    for file in files {
        let size = good.content(&newest_path.join(file)).len();
        for at in 0..size {
            let bit = 1u8 << below(8);
            check(file, &format!("bit {bit} of byte {at}"), &|bytes| bytes[at] ^= bit);
            let other = 1 + below(255) as u8;
            check(file, &format!("byte {at}"), &|bytes| bytes[at] = bytes[at].wrapping_add(other));
        }
        for length in 0..size {
            check(file, &format!("cut to {length}"), &|bytes| bytes.truncate(length));
        }
        check(file, "one byte more", &|bytes| bytes.push(b'\n'));
    }
    assert!(tried >= 200);
    println!("damaged bytes and truncations: {tried}/{tried} seen");
}

#[test]
fn only_broken_checkpoints_are_an_error_not_a_fresh_start() {
    let disk = disk(&[3, 6]);
    for step in [3, 6] {
        disk.damage(&Path::new(FOLDER).join(format!("step-{step}/manifest.json")), |bytes| bytes.truncate(5));
    }
    let error = newest(&disk, Path::new(FOLDER)).unwrap().usable(Path::new(FOLDER)).unwrap_err();
    assert_eq!(error.code(), "ZA_CHECKPOINT_BROKEN");
    let text = error.to_string();
    assert!(text.contains("step-3") && text.contains("step-6") && text.contains("Remedy: "), "{text}");
    // A run that is made to start anew keeps them beside its own.
    let mut writer = checkpoints(&disk);
    for step in [3, 6, 9] {
        save(&mut writer, step).unwrap();
    }
    assert_eq!(names(&disk), ["step-3.broken-1", "step-6", "step-6.broken-1", "step-9"]);
}

#[test]
fn broken_checkpoints_do_not_count_as_kept() {
    let disk = disk(&[3, 6]);
    disk.damage(&Path::new(FOLDER).join("step-6/record.json"), |bytes| bytes[3] ^= 4);
    let mut writer = checkpoints(&disk);
    save(&mut writer, 9).unwrap();
    assert_eq!(names(&disk), ["step-3", "step-6", "step-9"], "two sound ones, and the broken one");
    save(&mut writer, 12).unwrap();
    assert_eq!(names(&disk), ["step-12", "step-6", "step-9"]);
}

#[test]
fn what_a_killed_process_had_no_time_to_remove_goes_when_the_run_goes_on() {
    let disk = disk(&[3, 6]);
    let mut writer = Checkpoints::new(Arc::new(disk.clone()), PathBuf::from(FOLDER), 9);
    for step in [9, 12] {
        save(&mut writer, step).unwrap();
    }
    disk.damage(&Path::new(FOLDER).join("step-9/record.json"), |bytes| bytes[3] ^= 4);
    let mut next = checkpoints(&disk);
    let found = next.newest().unwrap();
    assert_eq!(next.trim(&found).unwrap(), [Path::new(FOLDER).join("step-3")]);
    assert_eq!(names(&disk), ["step-12", "step-6", "step-9"], "two sound ones, and the broken one");
    assert!(next.trim(&found).unwrap().is_empty());
}

#[test]
fn a_checkpoint_under_another_name_and_foreign_sections_are_refused() {
    let disk = disk(&[3]);
    disk.rename(&Path::new(FOLDER).join("step-3"), &Path::new(FOLDER).join("step-30")).unwrap();
    let reason = verify(&disk, &Path::new(FOLDER).join("step-30")).unwrap_err();
    assert!(reason.contains("step 3"), "{reason}");
    disk.rename(&Path::new(FOLDER).join("step-30"), &Path::new(FOLDER).join("step-3")).unwrap();
    let verified = verify(&disk, &Path::new(FOLDER).join("step-3")).unwrap();
    let (mut long, mut fitting) = (vec![1.0; 41], vec![1.0; 40]);
    let error = verified.read(&disk, vec![SectionMut::floats("parameters", &mut long)]).unwrap_err();
    assert!(error.to_string().contains("160 bytes, this run has F32 in 164 bytes"), "{error}");
    let error = verified.read(&disk, vec![SectionMut::floats("parameters", &mut fitting)]).unwrap_err();
    assert!(error.to_string().contains("codes, which this run does not have"), "{error}");
    let error = verified.read(&disk, vec![SectionMut::floats("adapter", &mut fitting)]).unwrap_err();
    assert!(error.to_string().contains("no adapter"), "{error}");
    assert_eq!(fitting, vec![1.0; 40], "nothing is overwritten");
}

#[test]
fn space_is_asked_for_before_it_is_needed() {
    let disk = disk(&[]);
    let check = |present, more| check_space(&disk, Path::new(FOLDER), 100, room_for(2, present, 99), more);
    check(0, 0).unwrap();
    disk.set_free(299);
    let error = check(0, 0).unwrap_err();
    assert_eq!(error.code(), "ZA_DISK_SPACE");
    let text = error.to_string();
    assert!(text.contains("300 bytes") && text.contains("299 are free"), "{text}");
    check(1, 99).unwrap();
    assert_eq!(check(1, 100).unwrap_err().code(), "ZA_DISK_SPACE");
    // However many there are, one more is written before one goes.
    check(7, 199).unwrap();
    assert!(check(7, 200).is_err());
    // A run that saves once needs room for one.
    assert_eq!((room_for(2, 0, 1), room_for(2, 0, 0), room_for(2, 1, 9)), (1, 0, 2));
    let real = tempfile::tempdir().unwrap();
    check_space(&Disk, real.path(), 1, 3, 0).unwrap();
    if cfg!(unix) {
        assert!(check_space(&Disk, real.path(), u64::MAX / 8, 3, 0).is_err());
    }
}

#[test]
fn the_real_disk_and_the_lock() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run/checkpoints");
    let mut checkpoints = on_disk(folder.clone(), 2);
    for step in [1, 2, 3] {
        save(&mut checkpoints, step).unwrap();
    }
    assert_eq!(Disk.names(&folder).unwrap(), ["step-2", "step-3"]);
    assert_eq!(newest(&Disk, &folder).unwrap().newest.unwrap().record, record(3));
    std::fs::create_dir(folder.join(".step-4.writing")).unwrap();
    std::fs::write(folder.join(".step-4.writing/state.safetensors"), "half").unwrap();
    std::fs::create_dir(folder.join(".mine")).unwrap();
    checkpoints.tidy().unwrap();
    assert_eq!(Disk.names(&folder).unwrap(), [".mine", "step-2", "step-3"]);

    let lock = RunLock::acquire(place.path(), "process 7 on earth").unwrap();
    let error = RunLock::acquire(place.path(), "process 8").unwrap_err();
    assert_eq!(error.code(), "ZA_FOLDER_LOCKED");
    assert!(error.to_string().contains("process 7 on earth"), "{error}");
    drop(lock);
    let _again = RunLock::acquire(place.path(), "process 9").unwrap();
}

#[test]
fn one_write_at_a_time() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (writer, running, done) = (Writer::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..20 {
        let (running, done) = (running.clone(), done.clone());
        let work = move || {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
            std::thread::sleep(std::time::Duration::from_millis(1));
            running.fetch_sub(1, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
        };
        writer.start(work);
    }
    writer.wait();
    assert_eq!(done.load(Ordering::SeqCst), 20);
    writer.start(|| panic!("of the write"));
    writer.wait();
}
