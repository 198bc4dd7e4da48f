//! A training session as a checkpoint, and back.

use std::sync::Arc;

use zephyr_mistral::Weights;
use zephyr_mistral::lora::Adapter;

use super::read::Verified;
use super::{Files, Record, Section, SectionMut};
use crate::error::Result;
use crate::session::{Moments, Session};

const PARAMETERS: &str = "parameters";

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
    moments: Arc<Moments>,
    pub record: Record,
}

impl Snapshot {
    /// `step` is the run's own count, skipped steps included; `extra` the caller's JSON.
    pub fn of(session: &Session, trained: Trained, step: u64, extra: String) -> Self {
        let record = Record { step, updates: session.step(), tokens_seen: session.finished_tokens(), extra };
        Self { trained, moments: session.shared_moments(), record }
    }

    /// Parameters and optimizer state.
    pub fn sections(&self) -> Vec<Section<'_>> {
        let mut sections = vec![Section::floats(PARAMETERS, self.trained.parameters())];
        sections.extend(self.moments.sections());
        sections
    }
}

/// Bytes of a checkpoint once the optimizer has made a step: that many parameters, and their moments.
pub fn planned_bytes(parameters: usize) -> u64 {
    3 * (parameters * size_of::<f32>()) as u64
}

/// Goes back to a saved step boundary: overwrites what is trained (weights or adapter, flat), moments and counters.
///
/// # Errors
/// [`crate::Error::State`] when the checkpoint is of another model or optimizer; everything is unchanged then.
pub fn restore(session: &mut Session, parameters: &mut [f32], from: &Verified, files: &dyn Files) -> Result<()> {
    // Before the first update there are no moments yet.
    let mut moments = Moments::zeros(if from.record.updates == 0 { 0 } else { parameters.len() });
    let mut sections = vec![SectionMut::floats(PARAMETERS, parameters)];
    sections.extend(moments.sections_mut());
    from.read(files, sections)?;
    session.restore(from.record.updates, from.record.tokens_seen, moments);
    Ok(())
}
