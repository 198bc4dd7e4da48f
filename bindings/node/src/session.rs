//! Training: packed batches in, sums out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::Env;
use napi::bindgen_prelude::{Float64Array, Object, Uint8Array, Uint32Array};
use napi_derive::napi;
use serde::Deserialize;
use zephyr_align::checkpoint::{self, Disk, Snapshot, Writer};
use zephyr_align::losses::{Denominator, Objective, PolicyLoss};
use zephyr_align::metrics::StepFacts;
use zephyr_align::session::{
    EmbeddingNoise, OptimizerKind, PairObjective, Precision, ReferenceLogps, Sums, Unpaired, Work,
};
use zephyr_align::{Session, SessionOptions, Update};
use zephyr_mistral::train::Recompute;

use crate::batch::NativeBatch;
use crate::checkpoint::{NativeCheckpoints, NativeSaved};
use crate::engine::{NativeAbort, behind, submit, submit_detached};
use crate::failure::{Failure, guard};
use crate::generation::{NativeDecoding, generated, requests};
use crate::model::{NativeModel, SharedParts};
use crate::seat::{Place, Seat};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    /// The card to compute on; left out for the CPU.
    card: Option<usize>,
    /// Of weights and activations on a card: bfloat16 or float32.
    precision: String,
    /// none, norms-and-swiglu or layer; auto: on a card what fits, elsewhere norms-and-swiglu.
    recompute: String,
    head_chunk: usize,
    max_length: usize,
    reference_is_start: bool,
    optimizer: String,
    neftune_noise_alpha: Option<f32>,
    /// Of dropout and noise.
    seed: u64,
}

/// One training session on one model (its adapter, if it has one, else its weights): gradients, moments, workspace.
#[napi]
pub struct NativeSession {
    /// Parameters that are trained
    trainable: usize,
    seat: Arc<Mutex<Seat>>,
    loss: Option<Arc<Objective>>,
    optimizer: OptimizerKind,
    writer: Writer,
}

/// AdamW and clipping for one step.
#[napi(object)]
pub struct NativeUpdate {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    /// Left out: no clipping.
    pub max_grad_norm: Option<f64>,
}

#[napi]
impl NativeSession {
    /// `options`: JSON of `card`, `precision`, `recompute`, `headChunk`, `maxLength`, `referenceIsStart`, `optimizer`,
    /// `neftuneNoiseAlpha`, `seed`; `loss`: JSON of `method` (dpo, orpo, cpo, kto) with its constants, left out for SFT.
    ///
    /// `abort` ends the batch that is being computed, on the CPU before its next layer, and refuses every later one: `ZA_ABORTED`.
    /// What was accumulated for a step is forgotten; finished steps stay and can be saved.
    #[napi(constructor)]
    pub fn new(
        model: &NativeModel,
        options: String,
        loss: Option<String>,
        abort: Option<&NativeAbort>,
    ) -> napi::Result<Self> {
        guard(|| {
            let options: Options = serde_json::from_str(&options)?;
            let invalid = |field: &str, value: &str, remedy: &str| {
                Failure::new("ZA_CONFIG_INVALID", format!("{field} is {value:?}. Remedy: take {remedy}"))
            };
            let recompute = match options.recompute.as_str() {
                "auto" => None,
                name => Some(
                    Recompute::parse(name)
                        .ok_or_else(|| invalid("recompute", name, "auto, none, norms-and-swiglu or layer"))?,
                ),
            };
            let precision = Precision::parse(&options.precision)
                .ok_or_else(|| invalid("precision", &options.precision, "bfloat16 or float32"))?;
            let optimizer = OptimizerKind::parse(&options.optimizer)
                .ok_or_else(|| invalid("optimizer", &options.optimizer, "adamw, adamw-8bit or adamw-bf16"))?;
            let loss = loss.map(|json| Objective::parse(&json)).transpose()?.map(Arc::new);
            let settings = SessionOptions {
                recompute: recompute.unwrap_or_else(|| Recompute::over(model.current().weights.storage())),
                head_chunk: options.head_chunk,
                max_length: options.max_length,
                reference_is_start: options.reference_is_start,
                optimizer,
                embedding_noise: options.neftune_noise_alpha.map(|alpha| EmbeddingNoise { alpha }),
                seed: options.seed,
                stop: abort.map(|abort| abort.flag.clone()).unwrap_or_default(),
            };
            let place = options.card.map(|card| Place { card, precision });
            let trainable = model.current().model().trainable();
            let seat = Arc::new(Mutex::new(Seat::new(model.parts.clone(), settings, place, recompute)));
            Ok(Self { trainable, seat, loss, optimizer, writer: Writer::default() })
        })
    }

    /// On a card: plans the memory of a training whose largest micro-batch has so many tokens and predicts so many, chooses
    /// what is computed again unless it was told, and allocates all of it. Resolves to the plan (JSON), on the CPU to null.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn reserve<'env>(&self, env: &'env Env, tokens: u32, predictions: u32) -> napi::Result<Object<'env>> {
        let seat = self.seat.clone();
        let work = Work { tokens: tokens as usize, predictions: predictions as usize, train: true };
        submit(env, move || lock(&seat).reserve(work))
    }

    /// Brings what a card has trained to the model, which otherwise has it when a checkpoint is saved and at the end.
    #[napi(ts_return_type = "Promise<undefined>")]
    pub fn fetch<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let (seat, writer) = (self.seat.clone(), self.writer.clone());
        submit(env, move || {
            let mut seat = lock(&seat);
            if seat.is_ahead() {
                // What it is writing would have to be copied.
                writer.wait();
            }
            seat.fetch()
        })
    }

    /// Adds a micro-batch of SFT to the step (`train`) or to the evaluation; resolves to its part of the loss.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn accumulate_sft<'env>(
        &self,
        env: &'env Env,
        batch: &NativeBatch,
        tokens_in_step: f64,
        train: bool,
    ) -> napi::Result<Object<'env>> {
        let packed = batch.packed.clone();
        self.job(env, move |session, parts| {
            let parts = parts.read().unwrap_or_else(PoisonError::into_inner);
            let sums = if train {
                session.accumulate_sft(parts.model(), &packed, tokens_in_step)?
            } else {
                session.evaluate_sft(parts.model(), &packed, tokens_in_step)?
            };
            Ok(sums.loss)
        })
    }

    /// Adds a micro-batch of DPO to the step (`train`) or to the evaluation; resolves to its part of the loss.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn accumulate_dpo<'env>(
        &self,
        env: &'env Env,
        batch: &NativeBatch,
        ref_chosen: Float64Array,
        ref_rejected: Float64Array,
        pairs_in_step: f64,
        chosen_tokens_in_step: f64,
        train: bool,
    ) -> napi::Result<Object<'env>> {
        let packed = batch.packed.clone();
        let (chosen, rejected) = (ref_chosen.to_vec(), ref_rejected.to_vec());
        let loss = self.loss.clone();
        self.job(env, move |session, parts| {
            let Some(Objective::Dpo(loss)) = loss.as_deref() else { return Err(no_loss("dpo")) };
            let parts = parts.read().unwrap_or_else(PoisonError::into_inner);
            let reference = ReferenceLogps { chosen: &chosen, rejected: &rejected };
            let denominator = Denominator { pairs: pairs_in_step, chosen_tokens: chosen_tokens_in_step };
            let sums = if train {
                session.accumulate_dpo(parts.model(), &packed, reference, loss, denominator)?
            } else {
                session.evaluate_dpo(parts.model(), &packed, reference, loss, denominator)?
            };
            Ok(sums.loss)
        })
    }

    /// Adds a micro-batch of pairs of a loss without a reference (orpo, cpo); resolves to its part of the loss.
    /// `chosen_tokens_in_step` counts what its cross-entropy covers: the answers' tokens, for orpo the prompts' too.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn accumulate_pairs<'env>(
        &self,
        env: &'env Env,
        batch: &NativeBatch,
        pairs_in_step: f64,
        chosen_tokens_in_step: f64,
        train: bool,
    ) -> napi::Result<Object<'env>> {
        let packed = batch.packed.clone();
        let loss = self.loss.clone();
        self.job(env, move |session, parts| {
            let loss = match loss.as_deref() {
                Some(Objective::Orpo(orpo)) => PolicyLoss::Orpo(orpo),
                Some(Objective::Cpo(cpo)) => PolicyLoss::Cpo(cpo),
                _ => return Err(no_loss("orpo or cpo")),
            };
            let parts = parts.read().unwrap_or_else(PoisonError::into_inner);
            let denominator = Denominator { pairs: pairs_in_step, chosen_tokens: chosen_tokens_in_step };
            let objective = PairObjective::Policy(loss);
            let sums = if train {
                session.accumulate_pairs(parts.model(), &packed, objective, denominator)?
            } else {
                session.evaluate_pairs(parts.model(), &packed, objective, denominator)?
            };
            Ok(sums.loss)
        })
    }

    /// Adds a micro-batch of KTO; resolves to its part of the loss. `desirable` (0 or 1) and `reference` have an entry for
    /// each sequence; `kl` is the mean log-ratio of the whole step's mismatched sequences.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn accumulate_kto<'env>(
        &self,
        env: &'env Env,
        batch: &NativeBatch,
        desirable: Uint8Array,
        reference: Float64Array,
        kl: f64,
        answers_in_step: f64,
        train: bool,
    ) -> napi::Result<Object<'env>> {
        let packed = batch.packed.clone();
        let desirable: Vec<bool> = desirable.iter().map(|&wanted| wanted != 0).collect();
        let reference = reference.to_vec();
        let loss = self.loss.clone();
        self.job(env, move |session, parts| {
            let Some(Objective::Kto(loss)) = loss.as_deref() else { return Err(no_loss("kto")) };
            let parts = parts.read().unwrap_or_else(PoisonError::into_inner);
            let unpaired = Unpaired { desirable: &desirable, reference: &reference, kl };
            let sums = if train {
                session.accumulate_kto(parts.model(), &packed, unpaired, loss, answers_in_step)?
            } else {
                session.evaluate_kto(parts.model(), &packed, unpaired, loss, answers_in_step)?
            };
            Ok(sums.loss)
        })
    }

    /// Clips and updates; resolves to the step's log (JSON, TRL's names). `epoch` is the fraction after this step.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn apply<'env>(&self, env: &'env Env, update: NativeUpdate, epoch: f64) -> napi::Result<Object<'env>> {
        let writer = self.writer.clone();
        self.job(env, move |session, parts| {
            writer.wait();
            // A snapshot that still shares what is trained keeps it: then this copies.
            let mut parts = parts.write().unwrap_or_else(PoisonError::into_inner);
            let update = Update {
                learning_rate: update.learning_rate,
                beta1: update.beta1,
                beta2: update.beta2,
                epsilon: update.epsilon,
                weight_decay: update.weight_decay,
                max_grad_norm: update.max_grad_norm,
            };
            let result = session.apply(parts.trained(), &update)?;
            let facts = StepFacts {
                step: result.step,
                steps: 1,
                epoch,
                learning_rate: update.learning_rate,
                grad_norm: result.grad_norm,
                num_tokens: result.tokens_seen,
                computed_tokens: result.computed_tokens,
            };
            Ok(match result.sums {
                Sums::Sft(sums) => serde_json::to_string(&sums.log(facts))?,
                Sums::Dpo(sums) => serde_json::to_string(&sums.log(facts))?,
                Sums::Kto(sums) => serde_json::to_string(&sums.log(facts))?,
                Sums::Nothing => return Err(Failure::new("ZA_ARGUMENT", "apply without an accumulated batch")),
            })
        })
    }

    /// The metrics of all evaluation batches since the last call (JSON, `eval_…`).
    #[napi(ts_return_type = "Promise<string>")]
    pub fn take_evaluation<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.job(env, move |session, _| {
            Ok(match session.take_evaluation() {
                Sums::Sft(sums) => serde_json::to_string(&sums.eval_log())?,
                Sums::Dpo(sums) => serde_json::to_string(&sums.eval_log())?,
                Sums::Kto(sums) => serde_json::to_string(&sums.eval_log())?,
                Sums::Nothing => return Err(Failure::new("ZA_ARGUMENT", "no evaluation batch was added")),
            })
        })
    }

    /// Sum of the log-probabilities of each sequence's predicted tokens under the model as it is now.
    #[napi(ts_return_type = "Promise<Float64Array>")]
    pub fn sequence_logps<'env>(&self, env: &'env Env, batch: &NativeBatch) -> napi::Result<Object<'env>> {
        let packed = batch.packed.clone();
        self.job(env, move |session, parts| {
            let parts = parts.read().unwrap_or_else(PoisonError::into_inner);
            Ok(Float64Array::new(session.sequence_logps(parts.model(), &packed)?))
        })
    }

    /// Continues several prompts together with what was trained so far, where it is trained; as `NativeModel.generateBatch`.
    #[napi(ts_return_type = "Promise<Array<NativeGenerated>>")]
    pub fn generate_batch<'env>(
        &self,
        env: &'env Env,
        prompts: Vec<Uint32Array>,
        seeds: Vec<f64>,
        decoding: NativeDecoding,
        abort: &NativeAbort,
    ) -> napi::Result<Object<'env>> {
        if decoding.reuse || decoding.kv_cache.is_some() {
            let text =
                "a session keeps no text, and its keys and values as it computes. Remedy: leave reuse and kvCache out";
            return Err(Failure::new("ZA_ARGUMENT", text).into());
        }
        let (requests, abort) = (requests(&prompts, &seeds, decoding)?, abort.flag.clone());
        self.job(env, move |session, parts| {
            let parts = parts.read().unwrap_or_else(PoisonError::into_inner);
            generated(session.generate(parts.model(), &requests, abort)?)
        })
    }

    /// Norm of the gradient accumulated so far, before clipping.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn grad_norm<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.job(env, |session, _| Ok(session.grad_norm()?))
    }

    /// Forgets what was accumulated since the last `apply`.
    #[napi(ts_return_type = "Promise<undefined>")]
    pub fn discard<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.job(env, |session, _| {
            session.discard();
            Ok(())
        })
    }

    /// Writes the checkpoint `folder/step-N` with `extra` (JSON), reads it back, and removes old ones beyond `keep`.
    ///
    /// The state is that of this moment; the writing goes on beside later work, which is not held up until `apply`.
    /// The promise settles when the checkpoint is verified.
    #[napi(ts_return_type = "Promise<NativeSaved>")]
    pub fn save<'env>(
        &self,
        env: &'env Env,
        folder: String,
        step: f64,
        keep: u32,
        extra: String,
        reference: Option<&NativeModel>,
    ) -> napi::Result<Object<'env>> {
        let (seat, writer) = (self.seat.clone(), self.writer.clone());
        let reference = reference.map(|model| model.parts.clone());
        submit_detached::<NativeSaved>(env, move |promised, _| {
            let mut seat = lock(&seat);
            let (session, parts) = match seat.fetch().and_then(|()| seat.session()) {
                Ok(both) => both,
                Err(failure) => return promised.settle(|| Err(failure)),
            };
            let snapshot = {
                let parts = parts.read().unwrap_or_else(PoisonError::into_inner);
                let reference =
                    reference.map(|parts| parts.read().unwrap_or_else(PoisonError::into_inner).weights.clone());
                Snapshot::of(session, parts.shared(), step as u64, extra).with_reference(reference)
            };
            writer.start(move || {
                promised.settle(move || {
                    let mut checkpoints = checkpoint::on_disk(folder.into(), keep as usize);
                    Ok(checkpoints.save(&snapshot.record, &snapshot.sections())?.into())
                });
            });
        })
    }

    /// Restores what is trained, moments and counters from the checkpoint that was found, and the weights of a
    /// `reference` that follows the policy.
    #[napi(ts_return_type = "Promise<undefined>")]
    pub fn restore<'env>(
        &self,
        env: &'env Env,
        found: &NativeCheckpoints,
        reference: Option<&NativeModel>,
    ) -> napi::Result<Object<'env>> {
        let reference = reference.map(|model| model.parts.clone());
        let (found, writer) = (found.found.clone(), self.writer.clone());
        self.job(env, move |session, parts| {
            writer.wait();
            let newest = found.newest.as_ref();
            let newest = newest.ok_or_else(|| Failure::new("ZA_ARGUMENT", "there is no checkpoint to restore"))?;
            let mut parts = parts.write().unwrap_or_else(PoisonError::into_inner);
            let mut reference = reference.as_ref().map(|parts| parts.write().unwrap_or_else(PoisonError::into_inner));
            let reference = reference.as_mut().map(|parts| &mut parts.changed_weights().data[..]);
            Ok(checkpoint::restore(session, parts.trained(), reference, newest, &Disk)?)
        })
    }

    /// Throws `ZA_DISK_SPACE` when `folder` has no room for the checkpoints that will be there at once (`keep` stay,
    /// `present` are there, `planned` will be written) and `more` bytes; `with_reference`: its weights are saved as well.
    #[napi]
    pub fn check_space(
        &self,
        folder: String,
        keep: u32,
        present: u32,
        planned: f64,
        more: f64,
        with_reference: bool,
    ) -> napi::Result<()> {
        guard(|| {
            let reference = if with_reference { self.trainable } else { 0 };
            let size = checkpoint::planned_bytes(self.trainable, self.optimizer, reference);
            let count = checkpoint::room_for(keep.into(), present.into(), planned as u64);
            Ok(checkpoint::check_space(&Disk, folder.as_ref(), size, count, more as u64)?)
        })
    }

    /// Brings what a card has trained to the model, and gives gradients, moments and workspace back at once; waiting for the
    /// garbage collector could take long.
    #[napi(ts_return_type = "Promise<undefined>")]
    pub fn release<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let (seat, writer) = (self.seat.clone(), self.writer.clone());
        submit(env, move || {
            writer.wait();
            lock(&seat).release()
        })
    }

    /// Bytes of gradients, moments and workspace.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn bytes<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.job(env, move |session, _| Ok(session.bytes() as f64))
    }

    fn job<'env, T>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&mut Session, &SharedParts) -> Result<T, Failure> + Send + 'static,
    ) -> napi::Result<Object<'env>>
    where
        T: napi::bindgen_prelude::ToNapiValue + Send + 'static,
    {
        let seat = self.seat.clone();
        submit(env, move || {
            let mut seat = lock(&seat);
            let (session, parts) = seat.session()?;
            work(session, &parts)
        })
    }
}

impl Drop for NativeSession {
    /// The garbage collector's thread shall not wait for a card: what is queued there is waited for where the last of the seat is
    /// let go, which is here only if the engine was faster.
    fn drop(&mut self) {
        let seat = self.seat.clone();
        // An engine that is gone has nothing left to give back.
        let _ = behind(move || drop(seat));
    }
}

fn lock(seat: &Mutex<Seat>) -> MutexGuard<'_, Seat> {
    seat.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_loss(wanted: &str) -> Failure {
    Failure::new("ZA_CONFIG_INVALID", format!("this session was made without a loss of {wanted}"))
}
