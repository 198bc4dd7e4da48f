//! Where a session computes, and the session there: it is made at its first use, by a job of the engine. Jobs come one after
//! another, on one of the compute threads or on the engine's own; a device may be called from any thread, as each call takes up its
//! card first.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use serde_json::json;
use zephyr_align::session::{MemoryPlan, Precision, Work};
use zephyr_align::{Session, SessionOptions};
use zephyr_kernels::cuda::Free;
use zephyr_mistral::train::Recompute;

use crate::card;
use crate::failure::Failure;
use crate::model::{Parts, SharedParts};
use crate::resident::let_all_go;

/// A card, and the type of weights and activations there.
#[derive(Clone, Copy)]
pub struct Place {
    pub card: usize,
    pub precision: Precision,
}

/// A session that is made when it is needed.
pub struct Seat {
    model: Weak<RwLock<Parts>>,
    /// The model, from the first use until the session is released: a model that is given back meanwhile stays this session's.
    held: Option<SharedParts>,
    options: SessionOptions,
    /// `None`: the CPU.
    place: Option<Place>,
    /// `None`: what computes least again and fits a card.
    recompute: Option<Recompute>,
    session: Option<Session>,
    /// The model's changes on the host that the session knows of.
    known: u64,
}

impl Seat {
    pub fn new(
        parts: SharedParts,
        options: SessionOptions,
        place: Option<Place>,
        recompute: Option<Recompute>,
    ) -> Self {
        let model = Arc::downgrade(&parts);
        Self { model, held: Some(parts), options, place, recompute, session: None, known: 0 }
    }

    /// The model, held from now on.
    fn parts(&mut self) -> Result<SharedParts, Failure> {
        self.held = self.held.take().or_else(|| self.model.upgrade());
        let gone =
            || Failure::new("ZA_ARGUMENT", "the session was released and its model is gone. Remedy: open another");
        self.held.clone().ok_or_else(gone)
    }

    /// The session with the model as it is now, and the model.
    pub fn session(&mut self) -> Result<(&mut Session, SharedParts), Failure> {
        let shared = self.parts()?;
        let parts = shared.read().unwrap_or_else(PoisonError::into_inner);
        let mut session = match (self.session.take(), self.place) {
            (Some(session), _) => session,
            (None, None) => Session::new(&parts.weights, self.options.clone()),
            (None, Some(Place { card, precision })) => {
                let_all_go();
                Session::on(card::open(card)?, precision, self.options.clone())
            }
        };
        if self.known != parts.changes {
            session.refresh();
            self.known = parts.changes;
        }
        drop(parts);
        Ok((self.session.insert(session), shared))
    }

    /// On a card: plans the memory of a training, decides what is computed again, and allocates all of it. Gives the plan
    /// (JSON); nothing on the CPU.
    pub fn reserve(&mut self, work: Work) -> Result<Option<String>, Failure> {
        let Some(Place { card, precision }) = self.place else { return Ok(None) };
        self.session = None;
        let_all_go();
        let parts = self.parts()?;
        let parts = parts.read().unwrap_or_else(PoisonError::into_inner);
        let device = card::open(card)?;
        let memory @ Free { free, .. } = device.memory()?;
        let plan = MemoryPlan::fitting(parts.model(), precision, &self.options, work, memory, self.recompute)?;
        self.options.recompute = plan.recompute;
        let mut session = Session::on(device, precision, self.options.clone());
        session.reserve(parts.model(), work)?;
        (self.known, self.session) = (parts.changes, Some(session));
        let MemoryPlan { recompute, weights, gradients, states, activations, workspace } = plan;
        let told = json!({
            "precision": precision.name(),
            "recompute": recompute.name(),
            "weights": weights,
            "gradients": gradients,
            "states": states,
            "activations": activations,
            "workspace": workspace,
            "total": plan.total(),
            "free": free,
        });
        Ok(Some(told.to_string()))
    }

    /// Whether a card has trained what the model has not.
    pub fn is_ahead(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_ahead)
    }

    /// Brings what a card has trained to the model.
    pub fn fetch(&mut self) -> Result<(), Failure> {
        match (&mut self.session, &self.held) {
            (Some(session), Some(parts)) if session.is_ahead() => {
                let mut parts = parts.write().unwrap_or_else(PoisonError::into_inner);
                Ok(session.fetch(parts.trained())?)
            }
            _ => Ok(()),
        }
    }

    /// Fetches, and lets go of everything, card and model included. The next use begins as a new session.
    pub fn release(&mut self) -> Result<(), Failure> {
        let fetched = self.fetch();
        (self.session, self.held) = (None, None);
        fetched
    }
}
