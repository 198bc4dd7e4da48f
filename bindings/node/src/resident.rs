//! Models that stay on a card to generate and score with: copied there at their first use by a job of the engine, and copied anew
//! when their weights were changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use zephyr_mistral::device;
use zephyr_mistral::generate::{Generator, KeptText};
use zephyr_mistral::{Adapter, Weights};

use crate::card;
use crate::engine::behind;
use crate::failure::Failure;
use crate::model::Parts;

/// One model's place on a card.
#[derive(Clone, Default)]
pub(crate) struct Resident(Arc<Mutex<Option<Held>>>);

struct Held {
    card: usize,
    /// Before what it refers to: the text that a call with `reuse` left
    kept: Option<KeptText>,
    model: device::Resident,
    origin: Origin,
}

/// The weights and adapter that something was computed with. They are not kept alive by it.
pub(crate) struct Origin {
    weights: Weak<Weights>,
    adapter: Option<Weak<Adapter>>,
}

impl Origin {
    pub fn of(parts: &Parts) -> Self {
        Self { weights: Arc::downgrade(&parts.weights), adapter: parts.adapter.as_ref().map(Arc::downgrade) }
    }

    /// Whether these parts are the same. Weights that were trained since are others: whoever trains takes them out of their
    /// `Arc` as long as anything refers to it.
    pub fn is(&self, parts: &Parts) -> bool {
        let same_adapter = match (&self.adapter, &parts.adapter) {
            (Some(own), Some(adapter)) => std::ptr::eq(own.as_ptr(), Arc::as_ptr(adapter)),
            (own, adapter) => own.is_none() && adapter.is_none(),
        };
        same_adapter && std::ptr::eq(self.weights.as_ptr(), Arc::as_ptr(&parts.weights))
    }
}

/// All that may be on a card.
static ALL: Mutex<Vec<Weak<Mutex<Option<Held>>>>> = Mutex::new(Vec::new());

fn all() -> MutexGuard<'static, Vec<Weak<Mutex<Option<Held>>>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes every model from the cards: what trains, or another model, needs the room. Only in a job of the engine.
pub(crate) fn let_all_go() {
    all().retain(|resident| {
        let Some(resident) = resident.upgrade() else { return false };
        let held = resident.try_lock();
        match held {
            Ok(mut held) => *held = None,
            Err(TryLockError::Poisoned(held)) => *held.into_inner() = None,
            // The one that wants the room: jobs come one after another.
            Err(TryLockError::WouldBlock) => return true,
        }
        false
    });
}

impl Resident {
    /// `work` with a generator of these parts on the card; with `reuse` it begins with the text that such a call left, and
    /// leaves its own. Only in a job of the engine.
    pub fn with<R>(
        &self,
        card: usize,
        parts: &Parts,
        reuse: bool,
        work: impl FnOnce(Generator) -> Result<(R, Option<KeptText>), Failure>,
    ) -> Result<R, Failure> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = match place.take().filter(|held| held.card == card) {
            Some(mut held) => {
                if !held.origin.is(parts) {
                    held.kept = None;
                    held.model.write(parts.model())?;
                    held.origin = Origin::of(parts);
                }
                held
            }
            None => {
                // Where there is no room, others that only generate make it.
                let model = device::Resident::new(card::open(card)?, parts.model(), let_all_go)?;
                let mut all = all();
                all.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(&self.0)));
                all.push(Arc::downgrade(&self.0));
                Held { card, kept: None, model, origin: Origin::of(parts) }
            }
        };
        let Held { kept, model, .. } = place.insert(held);
        let mut generator = Generator::on(model.network());
        if reuse {
            generator = generator.keeping(kept.take());
        }
        let (result, left) = work(generator)?;
        if reuse {
            *kept = left;
        }
        Ok(result)
    }

    /// Takes the model from the card, behind the jobs that are queued: whoever asks is not to work with a card, nor to wait.
    pub fn let_go(&self) {
        // Nothing was put on a card.
        if Arc::weak_count(&self.0) == 0 {
            return;
        }
        let place = self.0.clone();
        // An engine that is gone has nothing left to give back.
        let _ = behind(move || *place.lock().unwrap_or_else(PoisonError::into_inner) = None);
    }
}
