//! A training session as a checkpoint, and back.

use std::sync::Arc;

use zephyr_mistral::lora::Adapter;
use zephyr_mistral::{Parameters, Weights};

use super::read::Verified;
use super::{Files, Record, Section, SectionMut};
use crate::error::Result;
use crate::session::{Optimizer, OptimizerKind, Session, decay_runs, state_bytes};

const PARAMETERS: &str = "parameters";
/// Weights of a reference that follows the policy (TR-DPO).
const REFERENCE: &str = "reference";

/// What a session trains, shared.
#[derive(Clone)]
pub enum Trained {
    Weights(Arc<Weights>),
    Adapter(Arc<Adapter>),
}

impl Trained {
    fn parameters(&self) -> &[f32] {
        match self {
            Self::Weights(weights) => &weights.data,
            Self::Adapter(adapter) => &adapter.data,
        }
    }
}

/// A session at a step boundary, held by reference counts: nothing is copied unless the session is trained on before
/// the snapshot is let go.
#[derive(Clone)]
pub struct Snapshot {
    trained: Trained,
    reference: Option<Arc<Weights>>,
    optimizer: Arc<Optimizer>,
    pub record: Record,
}

impl Snapshot {
    /// `step` is the run's own count, skipped steps included; `extra` the caller's JSON. Panics on a session that has made
    /// steps on a device and was not [fetched](Session::fetch).
    pub fn of(session: &Session, trained: Trained, step: u64, extra: String) -> Self {
        assert!(!session.is_ahead(), "a session on a device is fetched before it is saved");
        let record = Record { step, updates: session.step(), tokens_seen: session.finished_tokens(), extra };
        Self { trained, reference: None, optimizer: session.shared_optimizer(), record }
    }

    /// With the weights of a reference that moves with the run.
    pub fn with_reference(self, reference: Option<Arc<Weights>>) -> Self {
        Self { reference, ..self }
    }

    /// Parameters, the moving reference, and optimizer state.
    pub fn sections(&self) -> Vec<Section<'_>> {
        let mut sections = vec![Section::floats(PARAMETERS, self.trained.parameters())];
        sections.extend(self.reference.iter().map(|weights| Section::floats(REFERENCE, &weights.data)));
        sections.extend(self.optimizer.sections());
        sections
    }
}

/// Bytes of a checkpoint once the optimizer has made a step: that many parameters, their state, and the weights of a
/// reference that moves.
pub fn planned_bytes(parameters: usize, optimizer: OptimizerKind, reference: usize) -> u64 {
    ((parameters + reference) * size_of::<f32>() + state_bytes(optimizer, parameters)) as u64
}

/// Goes back to a saved step boundary: overwrites what is trained (weights or adapter), the weights of a moving
/// `reference`, moments and counters.
///
/// # Errors
/// [`crate::Error::State`] when the checkpoint is of another model or optimizer; everything is unchanged then.
pub fn restore<'p>(
    session: &mut Session,
    trained: impl Into<Parameters<'p>>,
    reference: Option<&mut [f32]>,
    from: &Verified,
    files: &dyn Files,
) -> Result<()> {
    let Parameters { data, tensors } = trained.into();
    let kind = session.optimizer().kind();
    // Before the first update there is no state yet.
    let mut optimizer = Optimizer::sized(kind, from.record.updates, &decay_runs(tensors));
    let mut sections = vec![SectionMut::floats(PARAMETERS, data)];
    sections.extend(reference.map(|data| SectionMut::floats(REFERENCE, data)));
    sections.extend(optimizer.sections_mut());
    from.read(files, sections)?;
    session.restore(from.record.tokens_seen, optimizer);
    Ok(())
}
