//! A training session as a checkpoint, and back.

use std::sync::Arc;

use zephyr_mistral::Weights;

use super::read::Verified;
use super::{Files, Record, Section, SectionMut};
use crate::error::Result;
use crate::session::{Moments, Session};

const PARAMETERS: &str = "parameters";

/// A session at a step boundary, held by reference counts: nothing is copied unless the session is trained on before
/// the snapshot is let go.
#[derive(Clone)]
pub struct Snapshot {
    weights: Arc<Weights>,
    moments: Arc<Moments>,
    pub record: Record,
}

impl Snapshot {
    /// `step` is the run's own count, skipped steps included; `extra` the caller's JSON.
    pub fn of(session: &Session, weights: Arc<Weights>, step: u64, extra: String) -> Self {
        let record = Record { step, updates: session.step(), tokens_seen: session.finished_tokens(), extra };
        Self { weights, moments: session.shared_moments(), record }
    }

    /// Parameters and optimizer state.
    pub fn sections(&self) -> Vec<Section<'_>> {
        let mut sections = vec![Section::floats(PARAMETERS, &self.weights.data)];
        sections.extend(self.moments.sections());
        sections
    }
}

/// Bytes of a checkpoint of this model once it is being trained: parameters and moments.
pub fn planned_bytes(weights: &Weights) -> u64 {
    3 * size_of_val(weights.data.as_slice()) as u64
}

/// Goes back to a saved step boundary: overwrites weights, moments and counters.
///
/// # Errors
/// [`crate::Error::State`] when the checkpoint is of another model or optimizer; everything is unchanged then.
pub fn restore(session: &mut Session, weights: &mut Weights, from: &Verified, files: &dyn Files) -> Result<()> {
    // Before the first update there are no moments yet.
    let parameters = if from.record.updates == 0 { 0 } else { weights.data.len() };
    let mut moments = Moments::zeros(parameters);
    let mut sections = vec![SectionMut::floats(PARAMETERS, &mut weights.data)];
    sections.extend(moments.sections_mut());
    from.read(files, sections)?;
    session.restore(from.record.updates, from.record.tokens_seen, moments);
    Ok(())
}
