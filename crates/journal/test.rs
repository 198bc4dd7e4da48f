use std::fs;
use std::path::Path;

use tempfile::tempdir;

use crate::{Error, Intent, Journal, NewBatch, Outcome, Settled};

fn open(path: &Path) -> Journal {
    Journal::open(path, "process 1 on here").unwrap()
}

fn intent(key: &str) -> Intent {
    Intent {
        key: key.to_owned(),
        request: format!("{{\"asks\":\"{key}\"}}"),
        model: "teacher".to_owned(),
        purpose: "rate".to_owned(),
        worst_cost: Some(0.5),
        worst_tokens: 100,
        batch: None,
    }
}

fn done(call: i64, response: &str) -> Settled {
    Settled {
        call,
        outcome: Outcome::Done,
        billed: Some(true),
        status: Some(200),
        provider_id: Some("req-1".to_owned()),
        prompt_tokens: Some(10),
        completion_tokens: Some(5),
        cost: Some(0.125),
        note: None,
        response: Some(response.to_owned()),
    }
}

fn failed(call: i64, billed: Option<bool>) -> Settled {
    Settled {
        outcome: Outcome::Failed,
        billed,
        status: None,
        provider_id: None,
        prompt_tokens: None,
        completion_tokens: None,
        cost: None,
        note: Some("the connection was lost".to_owned()),
        response: None,
        ..done(call, "")
    }
}

#[test]
fn an_answer_is_found_by_its_request_and_totals_carry_over() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("calls.sqlite");
    let journal = open(&path);
    assert_eq!(journal.find("a").unwrap(), None);
    let calls = journal.intend(&[intent("a"), intent("b")]).unwrap();
    assert_eq!(journal.find("a").unwrap(), None);
    journal.settle(&[done(calls[0], "{\"answer\":1}"), failed(calls[1], Some(false))]).unwrap();
    journal.close().unwrap();

    let journal = open(&path);
    assert_eq!(journal.orphans(), 0);
    assert_eq!(journal.find("a").unwrap().unwrap().response, "{\"answer\":1}");
    assert_eq!(journal.find("b").unwrap(), None);
    let again = journal.intend(&[intent("b")]).unwrap();
    journal.settle(&[done(again[0], "{\"answer\":2}")]).unwrap();
    let totals = journal.totals().unwrap();
    assert_eq!((totals.calls, totals.cost, totals.tokens), (2, 0.25, 30));
    assert_eq!((totals.possible_cost, totals.possible_tokens), (0.0, 0));
    let summary = journal.summary().unwrap();
    assert_eq!((summary.requests, summary.answered, summary.groups.len()), (2, 2, 1));
    assert_eq!((summary.groups[0].done, summary.groups[0].failed), (2, 1));
}

#[test]
fn what_a_killed_process_had_sent_counts_at_its_worst() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("calls.sqlite");
    let journal = open(&path);
    let calls = journal.intend(&[intent("a"), intent("b"), intent("c")]).unwrap();
    journal.settle(&[done(calls[0], "{}"), failed(calls[1], None)]).unwrap();
    // Killed: no close.
    drop(journal);

    let journal = open(&path);
    assert_eq!(journal.orphans(), 1);
    let totals = journal.totals().unwrap();
    assert_eq!((totals.calls, totals.cost, totals.possible_cost, totals.possible_tokens), (3, 0.125, 1.0, 200));
    let summary = journal.summary().unwrap();
    assert_eq!(summary.runs.len(), 2);
    assert_eq!((summary.runs[0].unanswered, summary.runs[0].ended), (1, None));
    assert_eq!(summary.groups[0].possibly_billed, 2);
    journal.close().unwrap();
    // Reported once, by the opening that found it; the sums keep it.
    let journal = open(&path);
    assert_eq!((journal.orphans(), journal.totals().unwrap().calls), (0, 3));
}

#[test]
fn a_rejected_answer_is_kept_and_asked_again() {
    let folder = tempdir().unwrap();
    let journal = open(&folder.path().join("calls.sqlite"));
    let first = journal.intend(&[intent("a")]).unwrap()[0];
    journal.settle(&[done(first, "nonsense")]).unwrap();
    journal.reject(first, "no rating").unwrap();
    assert_eq!(journal.find("a").unwrap(), None);
    let second = journal.intend(&[intent("a")]).unwrap()[0];
    journal.settle(&[done(second, "[[7]]")]).unwrap();
    assert_eq!(journal.find("a").unwrap().unwrap().call, second);
    let kept = journal.invalid(0, 10).unwrap();
    assert_eq!((kept.len(), &*kept[0].reason, &*kept[0].response), (1, "no rating", "nonsense"));
    assert_eq!(kept[0].request, "{\"asks\":\"a\"}");
    journal.reject(second, "out of range").unwrap();
    let newest_first: Vec<i64> = journal.rejected("a").unwrap().iter().map(|each| each.call).collect();
    assert_eq!(newest_first, [second, first]);
    journal.reinstate(first).unwrap();
    assert_eq!(journal.find("a").unwrap().unwrap().response, "nonsense");
    assert_eq!(journal.totals().unwrap().cost, 0.25);
    assert!(matches!(journal.reject(99, "no"), Err(Error::Fault { .. })));
}

#[test]
fn one_writer_at_a_time_and_readers_beside_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("calls.sqlite");
    let journal = open(&path);
    let refused = Journal::open(&path, "process 2 on here").unwrap_err();
    assert_eq!(refused.code(), "ZA_JOURNAL_LOCKED");
    assert!(refused.to_string().contains("process 1 on here"), "{refused}");
    let call = journal.intend(&[intent("a")]).unwrap()[0];
    let reader = Journal::read(&path).unwrap();
    assert_eq!(reader.writer().as_deref(), Some("process 1 on here"));
    assert_eq!(reader.summary().unwrap().groups[0].intent, 1);
    journal.settle(&[done(call, "{}")]).unwrap();
    assert_eq!(reader.summary().unwrap().groups[0].done, 1);
    journal.close().unwrap();
    assert_eq!(reader.writer(), None);
    open(&path);
}

#[test]
fn what_is_done_together_is_undone_together() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("calls.sqlite");
    let journal = open(&path);
    let call = journal.intend(&[intent("a")]).unwrap()[0];
    let outcome = journal
        .together(|journal| {
            // One that cannot be settled leaves the others of the transaction alone.
            (journal.settle(&[done(call, "{}"), done(99, "{}")]).is_err(), journal.intend(&[intent("b")]).is_ok())
        })
        .unwrap();
    assert_eq!(outcome, (true, true));
    assert_eq!(journal.find("a").unwrap(), None);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        journal.together(|journal| {
            journal.settle(&[done(call, "{}")]).unwrap();
            panic!("in the middle");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(journal.find("a").unwrap(), None);
    journal.settle(&[done(call, "{}")]).unwrap();
    assert!(matches!(journal.settle(&[done(call, "{}")]), Err(Error::Fault { .. })));
}

#[test]
fn batches_survive_the_process() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("calls.sqlite");
    let journal = open(&path);
    let new = NewBatch { name: "z-1".to_owned(), model: "teacher".to_owned(), endpoint: "https://here/v1".to_owned() };
    let (batch, calls) = journal.intend_batch(&new, &[intent("a"), intent("b")]).unwrap();
    journal.name_batch(batch, Some("file-1"), None).unwrap();
    journal.name_batch(batch, None, Some("batch-1")).unwrap();
    drop(journal);

    let journal = open(&path);
    assert_eq!(journal.orphans(), 0);
    let open_batches = journal.open_batches().unwrap();
    assert_eq!(open_batches.len(), 1);
    assert_eq!(open_batches[0].provider_id.as_deref(), Some("batch-1"));
    assert_eq!(open_batches[0].input_file.as_deref(), Some("file-1"));
    assert_eq!(journal.waiting_in(batch).unwrap(), [(calls[0], "a".to_owned()), (calls[1], "b".to_owned())]);
    journal.settle(&[done(calls[0], "{}"), failed(calls[1], Some(false))]).unwrap();
    journal.close_batch(batch, "completed").unwrap();
    assert_eq!(journal.open_batches().unwrap(), []);
    assert_eq!(journal.waiting_in(batch).unwrap(), []);
}

#[test]
fn foreign_and_damaged_files_are_refused_and_left_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("text");
    fs::write(&path, "a file of somebody else, long enough to be one").unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(Journal::open(&path, "me").unwrap_err().code(), "ZA_JOURNAL_FOREIGN");
    assert_eq!(fs::read(&path).unwrap(), before);

    let path = folder.path().join("other.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE cookies (value TEXT)").unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(Journal::open(&path, "me").unwrap_err().code(), "ZA_JOURNAL_FOREIGN");
    assert_eq!(fs::read(&path).unwrap(), before);

    let path = folder.path().join("newer.sqlite");
    open(&path).close().unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    assert_eq!(Journal::open(&path, "me").unwrap_err().code(), "ZA_JOURNAL_VERSION");

    assert_eq!(Journal::read(&folder.path().join("missing")).unwrap_err().code(), "ZA_IO");
    assert_eq!(Journal::open(&folder.path().join("no/folder/here"), "me").unwrap_err().code(), "ZA_IO");
}

#[test]
fn a_file_that_lost_bytes_is_damaged_wherever_they_were() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("calls.sqlite");
    let journal = open(&path);
    for index in 0..200 {
        let call = journal.intend(&[intent(&format!("key {index}"))]).unwrap()[0];
        journal.settle(&[done(call, &"long ".repeat(200))]).unwrap();
    }
    journal.close().unwrap();
    let sound = fs::read(&path).unwrap();
    assert!(sound.len() > 50_000);
    // An empty file is a new one, as SQLite has it.
    for share in [1, 3, 8] {
        fs::write(&path, &sound[..sound.len() * share / 10]).unwrap();
        let refused = Journal::open(&path, "me").expect_err("cut");
        assert_eq!(refused.code(), "ZA_JOURNAL_DAMAGED", "{refused}");
    }
    // A page of the middle overwritten.
    let mut torn = sound.clone();
    let page = 4096 * (sound.len() / 4096 / 2);
    torn[page..page + 4096].fill(0xa5);
    fs::write(&path, &torn).unwrap();
    assert_eq!(Journal::open(&path, "me").unwrap_err().code(), "ZA_JOURNAL_DAMAGED");
    fs::write(&path, &sound).unwrap();
    assert_eq!(open(&path).totals().unwrap().calls, 200);
}

#[test]
fn tokens_of_models_without_a_price_are_kept_apart() {
    let folder = tempdir().unwrap();
    let journal = open(&folder.path().join("calls.sqlite"));
    let free = Intent { worst_cost: None, ..intent("a") };
    let calls = journal.intend(&[free.clone(), Intent { key: "b".to_owned(), ..free }]).unwrap();
    journal.settle(&[Settled { cost: None, ..done(calls[0], "{}") }]).unwrap();
    let totals = journal.totals().unwrap();
    assert_eq!((totals.cost, totals.unpriced.len()), (0.0, 1));
    let unpriced = &totals.unpriced[0];
    assert_eq!((unpriced.prompt_tokens, unpriced.completion_tokens, unpriced.possible_tokens), (10, 5, 100));
}
