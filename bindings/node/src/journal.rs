//! The journal of paid calls. Each has a thread of its own: its work is waiting for the disk, which must hold up neither
//! the engine nor libuv's pool. What is queued while the disk works goes into the next transaction together.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use napi::Env;
use napi::bindgen_prelude::{Object, ToNapiValue};
use napi_derive::napi;
use zephyr_journal::{Batch, Group, Intent, Journal, NewBatch, Outcome, Rejected, Run, Settled, Unpriced};

use crate::engine::{Promised, promise};
use crate::failure::Failure;

/// Work of one transaction at most.
const TOGETHER: usize = 256;

/// Settles a promise once it is known whether the transaction is on the disk.
type Settle = Box<dyn FnOnce(Result<(), Failure>) + Send>;

enum Job {
    Work(Box<dyn FnOnce(&Journal) -> Settle + Send>),
    Close(Promised<()>),
}

/// A journal of calls, open for writing or for reading.
#[napi]
pub struct NativeJournal {
    jobs: Option<Sender<Job>>,
    orphans: f64,
    writer: Option<String>,
}

/// A call that is about to be sent.
#[napi(object)]
pub struct NativeIntent {
    /// SHA-256 of `request`, in hexadecimal.
    pub key: String,
    /// Canonical JSON of everything that decides the answer.
    pub request: String,
    pub model: String,
    pub purpose: String,
    /// Dollars; undefined without a price.
    pub worst_cost: Option<f64>,
    pub worst_tokens: f64,
}

/// How a call ended.
#[napi(object)]
pub struct NativeSettled {
    pub call: f64,
    /// Whether there is an answer.
    pub done: bool,
    /// undefined: unknown.
    pub billed: Option<bool>,
    pub status: Option<u32>,
    pub provider_id: Option<String>,
    pub prompt_tokens: Option<f64>,
    pub completion_tokens: Option<f64>,
    pub cost: Option<f64>,
    pub note: Option<String>,
    pub response: Option<String>,
}

/// An answer that was paid for earlier.
#[napi(object)]
pub struct NativeAnswer {
    pub call: f64,
    pub response: String,
    pub cost: Option<f64>,
}

/// An answer that could not be used.
#[napi(object)]
pub struct NativeRejected {
    pub call: f64,
    pub key: String,
    pub model: String,
    pub purpose: String,
    pub reason: String,
    pub request: String,
    pub response: String,
}

/// Calls that were handed over together.
#[napi(object)]
pub struct NativeBatch {
    pub id: f64,
    pub name: String,
    pub model: String,
    pub endpoint: String,
    pub input_file: Option<String>,
    pub provider_id: Option<String>,
    /// Milliseconds since 1970.
    pub created: f64,
}

/// A new batch and its calls, in the order in which they were given.
#[napi(object)]
pub struct NativeBegunBatch {
    pub id: f64,
    pub calls: Vec<f64>,
}

/// A call that waits in a batch.
#[napi(object)]
pub struct NativeWaiting {
    pub call: f64,
    pub key: String,
}

/// Tokens that had no price.
#[napi(object)]
pub struct NativeUnpriced {
    pub model: String,
    pub prompt_tokens: f64,
    pub completion_tokens: f64,
    pub possible_tokens: f64,
}

/// What all runs have used together; calls whose fate is unknown count at their worst.
#[napi(object)]
pub struct NativeTotals {
    pub calls: f64,
    pub cost: f64,
    pub possible_cost: f64,
    pub tokens: f64,
    pub possible_tokens: f64,
    pub unpriced: Vec<NativeUnpriced>,
}

/// A line of the ledger.
#[napi(object)]
pub struct NativeGroup {
    pub purpose: String,
    pub model: String,
    pub intent: f64,
    pub done: f64,
    pub failed: f64,
    pub invalid: f64,
    pub prompt_tokens: f64,
    pub completion_tokens: f64,
    pub cost: f64,
    pub possibly_billed: f64,
    pub possible_cost: f64,
    pub unpriced: f64,
}

/// A process that wrote.
#[napi(object)]
pub struct NativeRun {
    pub holder: String,
    pub started: f64,
    /// undefined: killed, or still at work.
    pub ended: Option<f64>,
    pub calls: f64,
    pub unanswered: f64,
}

/// All that a person wants to know of a journal.
#[napi(object)]
pub struct NativeSummary {
    pub totals: NativeTotals,
    pub groups: Vec<NativeGroup>,
    pub runs: Vec<NativeRun>,
    pub open_batches: f64,
    pub batched: f64,
    pub requests: f64,
    pub answered: f64,
}

#[napi]
impl NativeJournal {
    /// Opens or makes a journal for writing. `holder` says who has it, for whoever comes second.
    #[napi(ts_return_type = "Promise<NativeJournal>")]
    pub fn open(env: &Env, path: String, holder: String) -> napi::Result<Object<'_>> {
        Self::start(env, move || Ok(Journal::open(&PathBuf::from(path), &holder)?))
    }

    /// Opens a journal for reading; another process may write meanwhile.
    #[napi(ts_return_type = "Promise<NativeJournal>")]
    pub fn read(env: &Env, path: String) -> napi::Result<Object<'_>> {
        Self::start(env, move || Ok(Journal::read(&PathBuf::from(path))?))
    }

    /// Calls of a killed run that this opening found without an answer: possibly billed.
    #[napi(getter)]
    pub fn orphans(&self) -> f64 {
        self.orphans
    }

    /// The process that was writing when this reader opened.
    #[napi(getter)]
    pub fn writer(&self) -> Option<String> {
        self.writer.clone()
    }

    /// The newest answer to a request that nobody has rejected.
    #[napi(ts_return_type = "Promise<NativeAnswer | null>")]
    pub fn find<'env>(&self, env: &'env Env, key: String) -> napi::Result<Object<'env>> {
        self.work(env, move |journal| {
            let found = journal.find(&key)?;
            Ok(found.map(|found| NativeAnswer { call: found.call as f64, response: found.response, cost: found.cost }))
        })
    }

    /// Rejected answers to a request, the newest first.
    #[napi(ts_return_type = "Promise<Array<NativeRejected>>")]
    pub fn rejected<'env>(&self, env: &'env Env, key: String) -> napi::Result<Object<'env>> {
        self.work(env, move |journal| Ok(journal.rejected(&key)?.into_iter().map(rejected).collect::<Vec<_>>()))
    }

    /// Rejected answers in the order of their calls, after a call.
    #[napi(ts_return_type = "Promise<Array<NativeRejected>>")]
    pub fn invalid<'env>(&self, env: &'env Env, after: f64, limit: u32) -> napi::Result<Object<'env>> {
        self.work(env, move |journal| {
            Ok(journal.invalid(after as i64, limit)?.into_iter().map(rejected).collect::<Vec<_>>())
        })
    }

    /// Writes down calls that are about to be sent, all or none; resolves to their ids when they are on the disk.
    #[napi(ts_return_type = "Promise<Array<number>>")]
    pub fn intend<'env>(&self, env: &'env Env, intents: Vec<NativeIntent>) -> napi::Result<Object<'env>> {
        let intents: Vec<Intent> = intents.into_iter().map(intent).collect();
        self.work(env, move |journal| Ok(numbers(journal.intend(&intents)?)))
    }

    /// Writes down how calls ended, all or none; resolves when it is on the disk.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn settle<'env>(&self, env: &'env Env, calls: Vec<NativeSettled>) -> napi::Result<Object<'env>> {
        let calls: Vec<Settled> = calls.into_iter().map(settled).collect();
        self.work(env, move |journal| Ok(journal.settle(&calls)?))
    }

    /// Says that an answer is of no use: it is kept, but the request is asked again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn reject<'env>(&self, env: &'env Env, call: f64, reason: String) -> napi::Result<Object<'env>> {
        self.work(env, move |journal| Ok(journal.reject(call as i64, &reason)?))
    }

    /// Takes a rejected answer back into use.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn reinstate<'env>(&self, env: &'env Env, call: f64) -> napi::Result<Object<'env>> {
        self.work(env, move |journal| Ok(journal.reinstate(call as i64)?))
    }

    /// Writes down a batch with its calls, before it is handed over.
    #[napi(ts_return_type = "Promise<NativeBegunBatch>")]
    pub fn intend_batch<'env>(
        &self,
        env: &'env Env,
        name: String,
        model: String,
        endpoint: String,
        intents: Vec<NativeIntent>,
    ) -> napi::Result<Object<'env>> {
        let intents: Vec<Intent> = intents.into_iter().map(intent).collect();
        self.work(env, move |journal| {
            let (id, calls) = journal.intend_batch(&NewBatch { name, model, endpoint }, &intents)?;
            Ok(NativeBegunBatch { id: id as f64, calls: numbers(calls) })
        })
    }

    /// Notes what the provider called the file and the batch, as they become known.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn name_batch<'env>(
        &self,
        env: &'env Env,
        batch: f64,
        input_file: Option<String>,
        provider_id: Option<String>,
    ) -> napi::Result<Object<'env>> {
        self.work(env, move |journal| {
            Ok(journal.name_batch(batch as i64, input_file.as_deref(), provider_id.as_deref())?)
        })
    }

    /// Ends a batch whose calls are all settled.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close_batch<'env>(&self, env: &'env Env, batch: f64, note: String) -> napi::Result<Object<'env>> {
        self.work(env, move |journal| Ok(journal.close_batch(batch as i64, &note)?))
    }

    /// Batches whose answers have not been taken yet.
    #[napi(ts_return_type = "Promise<Array<NativeBatch>>")]
    pub fn open_batches<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.work(env, |journal| Ok(journal.open_batches()?.into_iter().map(batch).collect::<Vec<_>>()))
    }

    /// The calls of a batch that have no answer yet.
    #[napi(ts_return_type = "Promise<Array<NativeWaiting>>")]
    pub fn waiting_in<'env>(&self, env: &'env Env, batch: f64) -> napi::Result<Object<'env>> {
        self.work(env, move |journal| {
            let waiting = journal.waiting_in(batch as i64)?.into_iter();
            Ok(waiting.map(|(call, key)| NativeWaiting { call: call as f64, key }).collect::<Vec<_>>())
        })
    }

    /// What all runs have used together.
    #[napi(ts_return_type = "Promise<NativeTotals>")]
    pub fn totals<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.work(env, |journal| Ok(totals(journal.totals()?)))
    }

    /// Calls by state, spend by purpose and model, runs.
    #[napi(ts_return_type = "Promise<NativeSummary>")]
    pub fn summary<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.work(env, |journal| {
            let summary = journal.summary()?;
            Ok(NativeSummary {
                totals: totals(summary.totals),
                groups: summary.groups.into_iter().map(group).collect(),
                runs: summary.runs.into_iter().map(run).collect(),
                open_batches: summary.open_batches as f64,
                batched: summary.batched as f64,
                requests: summary.requests as f64,
                answered: summary.answered as f64,
            })
        })
    }

    /// Ends the run in good order. All that was asked for before is done first.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&mut self, env: &'env Env) -> napi::Result<Object<'env>> {
        let jobs = self.jobs.take();
        promise(env, move |promised| match jobs {
            Some(jobs) => send(&jobs, Job::Close(promised)),
            None => {
                promised.settle(|| Ok(()));
                Ok(())
            }
        })
    }
}

impl NativeJournal {
    fn start(
        env: &Env,
        opening: impl FnOnce() -> Result<Journal, Failure> + Send + 'static,
    ) -> napi::Result<Object<'_>> {
        promise::<NativeJournal>(env, move |promised| {
            let (sender, receiver) = channel();
            let serve = move || {
                let mut opened = None;
                promised.settle(|| {
                    let journal = opening()?;
                    let (orphans, writer) = (journal.orphans() as f64, journal.writer());
                    opened = Some(journal);
                    Ok(NativeJournal { jobs: Some(sender), orphans, writer })
                });
                if let Some(journal) = opened {
                    serve(journal, &receiver);
                }
            };
            let spawned = std::thread::Builder::new().name("zephyr-journal".into()).spawn(serve);
            spawned.map(drop).map_err(|error| Failure::new("ZA_THREADS", format!("the journal's thread: {error}")))
        })
    }

    fn work<'env, T: ToNapiValue + Send + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&Journal) -> Result<T, Failure> + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        promise::<T>(env, |promised| {
            let job = move |journal: &Journal| -> Settle {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(journal)))
                    .unwrap_or_else(|payload| Err(Failure::panic(payload)));
                Box::new(move |committed| promised.settle(|| committed.and(done)))
            };
            let closed = || Failure::new("ZA_INTERNAL", "the journal is closed. Remedy: open it again");
            send(self.jobs.as_ref().ok_or_else(closed)?, Job::Work(Box::new(job)))
        })
    }
}

fn send(jobs: &Sender<Job>, job: Job) -> Result<(), Failure> {
    jobs.send(job).map_err(|_| Failure::new("ZA_INTERNAL", "the journal's thread is gone. Remedy: open it again"))
}

/// The thread's life: what waits is done in one transaction, and its promises settle when that is on the disk.
fn serve(journal: Journal, jobs: &Receiver<Job>) {
    let mut closing = None;
    while closing.is_none() {
        let Ok(first) = jobs.recv() else { return };
        let waiting = std::iter::once(first).chain(jobs.try_iter()).take(TOGETHER);
        let mut settles = Vec::new();
        let committed = journal.together(|journal| {
            for job in waiting {
                match job {
                    Job::Work(work) => settles.push(work(journal)),
                    Job::Close(promised) => {
                        closing = Some(promised);
                        break;
                    }
                }
            }
        });
        for settle in settles {
            settle(committed.as_ref().copied().map_err(Failure::of_journal));
        }
    }
    if let Some(promised) = closing {
        promised.settle(|| Ok(journal.close()?));
    }
}

fn numbers(ids: Vec<i64>) -> Vec<f64> {
    ids.into_iter().map(|id| id as f64).collect()
}

fn intent(given: NativeIntent) -> Intent {
    Intent {
        key: given.key,
        request: given.request,
        model: given.model,
        purpose: given.purpose,
        worst_cost: given.worst_cost,
        worst_tokens: given.worst_tokens as u64,
        batch: None,
    }
}

fn settled(given: NativeSettled) -> Settled {
    Settled {
        call: given.call as i64,
        outcome: if given.done { Outcome::Done } else { Outcome::Failed },
        billed: given.billed,
        status: given.status,
        provider_id: given.provider_id,
        prompt_tokens: given.prompt_tokens.map(|tokens| tokens as u64),
        completion_tokens: given.completion_tokens.map(|tokens| tokens as u64),
        cost: given.cost,
        note: given.note,
        response: given.response,
    }
}

fn rejected(found: Rejected) -> NativeRejected {
    NativeRejected {
        call: found.call as f64,
        key: found.key,
        model: found.model,
        purpose: found.purpose,
        reason: found.reason,
        request: found.request,
        response: found.response,
    }
}

fn batch(found: Batch) -> NativeBatch {
    NativeBatch {
        id: found.id as f64,
        name: found.name,
        model: found.model,
        endpoint: found.endpoint,
        input_file: found.input_file,
        provider_id: found.provider_id,
        created: found.created as f64,
    }
}

fn totals(found: zephyr_journal::Totals) -> NativeTotals {
    let unpriced = |each: Unpriced| NativeUnpriced {
        model: each.model,
        prompt_tokens: each.prompt_tokens as f64,
        completion_tokens: each.completion_tokens as f64,
        possible_tokens: each.possible_tokens as f64,
    };
    NativeTotals {
        calls: found.calls as f64,
        cost: found.cost,
        possible_cost: found.possible_cost,
        tokens: found.tokens as f64,
        possible_tokens: found.possible_tokens as f64,
        unpriced: found.unpriced.into_iter().map(unpriced).collect(),
    }
}

fn group(found: Group) -> NativeGroup {
    NativeGroup {
        purpose: found.purpose,
        model: found.model,
        intent: found.intent as f64,
        done: found.done as f64,
        failed: found.failed as f64,
        invalid: found.invalid as f64,
        prompt_tokens: found.prompt_tokens as f64,
        completion_tokens: found.completion_tokens as f64,
        cost: found.cost,
        possibly_billed: found.possibly_billed as f64,
        possible_cost: found.possible_cost,
        unpriced: found.unpriced as f64,
    }
}

fn run(found: Run) -> NativeRun {
    NativeRun {
        holder: found.holder,
        started: found.started as f64,
        ended: found.ended.map(|ended| ended as f64),
        calls: found.calls as f64,
        unanswered: found.unanswered as f64,
    }
}
