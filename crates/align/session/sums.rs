//! What micro-batches add up to, by the kind of training.

use crate::metrics::{PairSums, TokenSums, UnpairedSums};

/// The sums of micro-batches since the last optimizer step (or since the last evaluation was taken).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sums {
    #[default]
    Nothing,
    Sft(TokenSums),
    /// Every kind of pair loss.
    Dpo(PairSums),
    Kto(UnpairedSums),
}

impl Sums {
    pub(super) fn add_sft(&mut self, sums: TokenSums) {
        match self {
            Self::Sft(total) => *total += sums,
            _ => *self = Self::Sft(sums),
        }
    }

    pub(super) fn add_dpo(&mut self, sums: PairSums) {
        match self {
            Self::Dpo(total) => *total += sums,
            _ => *self = Self::Dpo(sums),
        }
    }

    pub(super) fn add_kto(&mut self, sums: UnpairedSums) {
        match self {
            Self::Kto(total) => *total += sums,
            _ => *self = Self::Kto(sums),
        }
    }
}
