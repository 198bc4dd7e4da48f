//! Packed batches: sequences laid end to end, and which tokens of them are predicted.

use zephyr_mistral::train::Batch;

use crate::error::{Error, Result};

/// One document or one side of a pair: token ids and, per token, whether it is supervised.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    pub ids: &'a [u32],
    /// Same length as `ids`. The first token of a sequence is never predicted, supervised or not.
    pub supervised: &'a [bool],
}

/// Sequences without padding, with the rows of the head: row `rows[k]` predicts `targets[k]`, a supervised token of
/// sequence `owner[k]`.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// `[T]`
    pub ids: Vec<u32>,
    /// `[T]`, from 0 in each sequence.
    pub positions: Vec<u32>,
    /// Cumulative lengths, `[S + 1]`.
    pub segments: Vec<u32>,
    /// `[N]`, token rows whose next token is supervised.
    pub rows: Vec<u32>,
    /// `[N]`
    pub targets: Vec<u32>,
    /// `[N]`
    pub owner: Vec<u32>,
    /// `[S]`, predicted tokens of each sequence: |y|.
    pub predicted: Vec<u32>,
}

impl Packed {
    /// Lays the sequences end to end.
    ///
    /// # Errors
    /// [`Error::NothingToLearn`] for a sequence without a predicted token: it would add nothing to a loss and hide it.
    pub fn new<'a>(sequences: impl IntoIterator<Item = Sequence<'a>>) -> Result<Self> {
        let mut packed = Self { segments: vec![0], ..Self::default() };
        for (index, sequence) in sequences.into_iter().enumerate() {
            if sequence.ids.len() != sequence.supervised.len() {
                return Err(Error::Config(format!(
                    "sequence {index} has {} tokens but {} mask entries",
                    sequence.ids.len(),
                    sequence.supervised.len()
                )));
            }
            let start = packed.ids.len() as u32;
            let mut predicted = 0;
            for (offset, &id) in sequence.ids.iter().enumerate() {
                packed.ids.push(id);
                packed.positions.push(offset as u32);
                if offset > 0 && sequence.supervised[offset] {
                    packed.rows.push(start + offset as u32 - 1);
                    packed.targets.push(id);
                    packed.owner.push(index as u32);
                    predicted += 1;
                }
            }
            if predicted == 0 {
                return Err(Error::NothingToLearn { index });
            }
            packed.segments.push(packed.ids.len() as u32);
            packed.predicted.push(predicted);
        }
        Ok(packed)
    }

    /// The model's view of it.
    pub fn batch(&self) -> Batch<'_> {
        Batch { ids: &self.ids, positions: &self.positions, segments: &self.segments }
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.predicted.len()
    }

    /// Sums a value of each predicted token over its sequence, in f64 and in token order: `[S]`.
    pub fn sum_by_sequence(&self, values: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.sequences()];
        for (&owner, &value) in self.owner.iter().zip(values) {
            sums[owner as usize] += f64::from(value);
        }
        sums
    }
}
