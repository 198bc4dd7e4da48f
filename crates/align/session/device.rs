//! A session's arrays on a device: everything of a step but the loss is computed there.
//!
//! The host waits twice, each time for one small copy and for nothing that was queued after it: for the statistics of the
//! predicted rows in each micro-batch, and for the gradient's norm in each step. Meanwhile the card has work:
//!
//! | the host waits for | queued behind it |
//! |---|---|
//! | statistics, where the loss's derivative is known before (SFT) | the rest of the head's gradient and the backward pass |
//! | statistics, where it follows from them | nothing: the backward pass wants it |
//! | the norm | AdamW and the clearing of the gradients |
//!
//! So the host makes metrics and queues the next batch while the card works. **Not yet run on a GPU.**

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use zephyr_kernels::cuda::{Arena, Device, Element, Reserved};
use zephyr_kernels::head::Stats;
use zephyr_mistral::device::{
    Cached, Decoder, Drawn, Gradients, Loaded, Planned, Room, Sizes, Statistics, Workspace, check_config, download,
};
use zephyr_mistral::generate::{Generation, Generator, Request};
use zephyr_mistral::{Model, Parameters};

use self::training::Training;
use super::backend::{Backend, Pass};
use super::{Optimizer, OptimizerKind, SessionOptions, Update, Work};
use crate::batch::Packed;
use crate::error::{Error, Result};

pub(super) mod training;

/// Tokens of prompts in a step of generating: few, as a training leaves little memory.
const PROMPT_ROWS: usize = 128;

/// One model on a device, its workspace, and what its training holds. Each is allocated when it is first wanted; a larger
/// batch than all before it makes the workspace anew.
pub(super) struct OnDevice<T: Element> {
    device: Arc<dyn Device>,
    options: SessionOptions,
    model: Option<Held<T>>,
    workspace: Option<(Reserved, Workspace<T>)>,
    training: Option<Training<T>>,
    batch: Option<Loaded>,
    /// Those of the last batch, until somebody asks
    coming: Option<Statistics>,
    stats: Stats,
}

/// The model on the device, and which of the host's it is.
struct Held<T: Element> {
    decoder: Decoder<T>,
    weights: usize,
    adapter: Option<usize>,
    /// The host has changed it.
    stale: bool,
}

impl<T: Element> OnDevice<T> {
    pub fn new(device: Arc<dyn Device>, options: &SessionOptions) -> Self {
        Self {
            device,
            options: options.clone(),
            model: None,
            workspace: None,
            training: None,
            batch: None,
            coming: None,
            stats: Stats::default(),
        }
    }

    /// Sees to it that the device holds this model, or this model with its adapter on top.
    fn hold(&mut self, model: Model) -> Result<()> {
        let (weights, adapter) = model.places();
        // The base alone was asked for first: it goes there again with the adapter, and no two copies of it are there.
        if self.training.is_none()
            && adapter.is_some()
            && self.model.as_ref().is_some_and(|held| held.adapter.is_none())
        {
            self.model = None;
        }
        match &mut self.model {
            None => {
                let decoder = Decoder::new(self.device.clone(), model, self.options.max_length)?;
                self.model = Some(Held { decoder, weights, adapter, stale: false });
            }
            // Before its place is looked at: whoever changed it may have moved it.
            Some(held) if held.stale => {
                held.decoder.write(model)?;
                held.weights = weights;
                // The base alone says nothing about the adapter over it.
                if adapter.is_some() || held.adapter.is_none() {
                    (held.adapter, held.stale) = (adapter, false);
                }
            }
            Some(held) if held.weights != weights || (adapter.is_some() && adapter != held.adapter) => {
                let text =
                    "a session on a device computes with one model. Remedy: make another session for another model";
                return Err(Error::Config(text.to_owned()));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// A workspace that holds the batch.
    fn make_room(&mut self, batch: &Planned, rows: usize, keep: bool) -> Result<()> {
        let SessionOptions { head_chunk, recompute, .. } = self.options;
        let wanted = batch.sizes(rows, head_chunk, keep, recompute);
        let held = self.workspace.as_ref().map(|(_, workspace)| &workspace.sizes);
        let Some(sizes) = wanted.beyond(held) else { return Ok(()) };
        self.workspace = None;
        self.allocate(sizes)
    }

    fn allocate(&mut self, sizes: Sizes) -> Result<()> {
        let decoder = &self.model.as_ref().expect("held before").decoder;
        let lay = |arena: &mut Arena| Workspace::lay(arena, &decoder.config, decoder.adapter.as_ref(), &sizes);
        self.workspace = Some(Arena::reserve(&self.device, "The workspace of a step", lay)?);
        Ok(())
    }

    /// The parts that a backward pass works on.
    fn parts(&self) -> (&Decoder<T>, &Workspace<T>, &Loaded, Gradients<T>) {
        let decoder = &self.model.as_ref().expect("a forward pass came before").decoder;
        let workspace = &self.workspace.as_ref().expect("a forward pass came before").1;
        let batch = self.batch.as_ref().expect("a forward pass came before");
        (decoder, workspace, batch, self.training.as_ref().expect("prepared before").gradients)
    }
}

/// Refuses to train what only the CPU does yet.
pub(super) fn check<T: Element>(model: Model, options: &SessionOptions) -> Result<()> {
    check_config::<T>(&model.weights.config)?;
    let refuse = |what: &str, remedy| {
        Err(Error::Model(zephyr_mistral::Error::DeviceUnsupported { what: what.to_owned(), remedy }))
    };
    if T::LETTER == 'f' && options.optimizer == OptimizerKind::AdamWBf16 {
        return refuse("adamw-bf16 over float32 weights", "Take precision bfloat16, or optimizer adamw.");
    }
    Ok(())
}

impl<T: Element> Backend for OnDevice<T> {
    fn prepare(&mut self, model: Model, optimizer: &Optimizer) -> Result<()> {
        check::<T>(model, &self.options)?;
        let stale = self.model.as_ref().is_some_and(|held| held.stale);
        self.hold(model)?;
        let held = self.model.as_ref().expect("held above");
        match &self.training {
            Some(training) if stale => training.write(&held.decoder, model, optimizer),
            Some(_) => Ok(()),
            None => {
                self.training = Some(Training::new(&held.decoder, model, optimizer)?);
                Ok(())
            }
        }
    }

    fn reserve(&mut self, model: Model, optimizer: &Optimizer, work: Work) -> Result<()> {
        if work.train {
            self.prepare(model, optimizer)?;
        }
        self.hold(model)?;
        let SessionOptions { head_chunk, recompute, .. } = self.options;
        self.workspace = None;
        self.allocate(Sizes::of(work.tokens, work.predictions, head_chunk, work.train, recompute))
    }

    fn forward(&mut self, model: Model, packed: &Packed, pass: Pass) -> Result<()> {
        // What nobody has asked for: this pass writes where it lies.
        self.coming = None;
        self.hold(model)?;
        let planned = self.model.as_ref().expect("held above").decoder.planned(packed.batch())?;
        self.make_room(&planned, packed.rows.len(), pass.keep)?;
        let decoder = &self.model.as_ref().expect("held above").decoder;
        let workspace = &self.workspace.as_ref().expect("made above").1;
        let drawn = Drawn { dropout: pass.dropout.filter(|_| pass.keep), noise: pass.noise };
        let batch = decoder.load(workspace, planned, &packed.rows, &packed.targets, drawn)?;
        decoder.forward(&batch, workspace, pass.keep, model.adapter.is_some())?;
        self.coming = Some(match (pass.coefficient, &self.training) {
            (Some(coefficient), Some(Training { gradients, .. })) if pass.keep => {
                decoder.statistics_and_backward(&batch, workspace, coefficient, *gradients)?
            }
            _ => decoder.statistics(&batch, workspace)?,
        });
        self.batch = Some(batch);
        Ok(())
    }

    fn generate(&mut self, model: Model, requests: &[Request], abort: Arc<AtomicBool>) -> Result<Vec<Generation>> {
        self.hold(model)?;
        let decoder = &self.model.as_ref().expect("held above").decoder;
        let mut room = Room::new(decoder, || ());
        let network = Box::new(Cached { decoder, room: &mut room });
        let mut generator = Generator::on(network).with_rows(PROMPT_ROWS).with_abort(abort);
        Ok(generator.generate_batch(requests, |_, _, _| ControlFlow::Continue(()))?)
    }

    fn wait_for_stats(&mut self) -> Result<()> {
        Ok(self.coming.take().map_or(Ok(()), |coming| coming.wait(&mut self.stats))?)
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn backward(&mut self, _: Model, _: &Packed, coefficients: Option<&[f32]>) -> Result<()> {
        let (decoder, workspace, batch, gradients) = self.parts();
        if let Some(coefficients) = coefficients {
            decoder.head_backward(batch, workspace, coefficients, gradients)?;
        }
        Ok(decoder.backward(batch, workspace, gradients)?)
    }

    fn gradients(&self) -> Result<Cow<'_, [f32]>> {
        let Some(training) = &self.training else { return Ok(Cow::Borrowed(&[])) };
        let mut values = vec![0.0; training.len];
        let downloaded = match training.gradients {
            Gradients::Weights(from) => download(&*self.device, from, &mut values),
            Gradients::Adapter(from) => download(&*self.device, from, &mut values),
        };
        downloaded?;
        Ok(Cow::Owned(values))
    }

    fn clear_gradients(&mut self) {
        if let Some(training) = &self.training {
            // What cannot be queued now makes the next pass fail.
            let _ = training.clear_gradients(&*self.device);
        }
    }

    fn grad_norm(&mut self) -> Result<f64> {
        match &self.training {
            None => Ok(0.0),
            Some(training) => training.queue_norm(&*self.device, None)?.wait(),
        }
    }

    fn step(&mut self, trained: Parameters, optimizer: &mut Arc<Optimizer>, update: &Update) -> Result<f64> {
        let (Some(held), Some(training)) = (&mut self.model, &mut self.training) else {
            let text = "a step without a gradient. Remedy: accumulate a batch before apply";
            return Err(Error::Config(text.to_owned()));
        };
        // Whoever trains may have moved what is trained, when a snapshot shared it.
        let place = trained.data.as_ptr() as usize;
        match training.gradients {
            Gradients::Weights(_) => held.weights = place,
            Gradients::Adapter(_) => held.adapter = Some(place),
        }
        let norm = training.queue_norm(&*self.device, update.max_grad_norm)?;
        training.queue_step(&held.decoder, optimizer.steps() + 1, update)?;
        training.clear_gradients(&*self.device)?;
        let norm = norm.wait()?;
        if norm.is_finite() {
            *optimizer = Arc::new(Optimizer::elsewhere(optimizer.kind(), optimizer.steps() + 1));
            training.ahead = true;
        }
        Ok(norm)
    }

    fn fetch(&mut self, trained: Parameters, optimizer: &mut Arc<Optimizer>) -> Result<()> {
        let (Some(held), Some(training)) = (&mut self.model, &mut self.training) else { return Ok(()) };
        if training.ahead {
            let place = trained.data.as_ptr() as usize;
            training.read(&held.decoder, trained.data, optimizer)?;
            match training.gradients {
                Gradients::Weights(_) => held.weights = place,
                Gradients::Adapter(_) => held.adapter = Some(place),
            }
            training.ahead = false;
        }
        Ok(())
    }

    fn is_ahead(&self) -> bool {
        self.training.as_ref().is_some_and(|training| training.ahead)
    }

    fn refresh(&mut self) {
        if let Some(held) = &mut self.model {
            held.stale = true;
        }
        if let Some(training) = &mut self.training {
            training.ahead = false;
        }
    }

    fn release(&mut self) {
        *self = Self::new(self.device.clone(), &self.options);
    }

    fn bytes(&self) -> usize {
        let model = self.model.as_ref().map_or(0, |held| held.decoder.bytes());
        let workspace = self.workspace.as_ref().map_or(0, |(memory, _)| memory.bytes());
        model + workspace + self.training.as_ref().map_or(0, Training::bytes)
    }
}
