//! Packed batches: sequences laid end to end, and which tokens of them are predicted. The two sequences of a pair may share
//! their prompt: `[prompt | chosen | rejected]`, where the rejected tokens see the prompt and themselves only.

use std::collections::HashSet;

use zephyr_mistral::train::Batch;

use crate::error::{Error, Result};

/// One document or one side of a pair: token ids and, per token, whether it is supervised.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    pub ids: &'a [u32],
    /// Same length as `ids`. The first token of a sequence is never predicted, supervised or not.
    pub supervised: &'a [bool],
}

/// A preference pair: two whole sequences, and how many tokens the prompt before both answers has.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    pub prompt: usize,
    pub chosen: Sequence<'a>,
    pub rejected: Sequence<'a>,
}

/// Values of sequences that lie as in pairs (chosen 0, rejected 0, chosen 1, …), as those of the chosen and of the rejected.
pub fn sides(values: &[f64]) -> (Vec<f64>, Vec<f64>) {
    values.as_chunks::<2>().0.iter().map(|&[chosen, rejected]| (chosen, rejected)).unzip()
}

/// Sequences without padding, with the rows of the head: row `rows[k]` predicts `targets[k]`, a supervised token of
/// sequence `owner[k]`. A row that ends a shared prompt stands twice in `rows`, with the first token of either answer.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// `[T]`, a shared prompt once.
    pub ids: Vec<u32>,
    /// `[T]`, from 0 in each sequence; those of an answer go on after its prompt.
    pub positions: Vec<u32>,
    /// Cumulative lengths of what each sequence adds to `ids`, `[S + 1]`.
    pub segments: Vec<u32>,
    /// `[S]`, tokens of each sequence that stand in the one before it: the shared prompt; 0 for a whole sequence.
    pub prefixes: Vec<u32>,
    /// `[N]`, token rows whose next token is supervised.
    pub rows: Vec<u32>,
    /// `[N]`
    pub targets: Vec<u32>,
    /// `[N]`
    pub owner: Vec<u32>,
    /// `[S]`, predicted tokens of each sequence: |y|.
    pub predicted: Vec<u32>,
    /// How many rows, the last ones, predict prompt tokens that are learnt as text beside the answers (ORPO). They
    /// belong to no |y| and no sum.
    pub prompt_rows: usize,
    /// Weight of each row in the sum of its sequence, `[N]`; empty when all are 1.
    pub weights: Vec<f32>,
}

impl Packed {
    /// Lays the sequences end to end.
    ///
    /// # Errors
    /// [`Error::NothingToLearn`] for a sequence without a predicted token: it would add nothing to a loss and hide it.
    pub fn new<'a>(sequences: impl IntoIterator<Item = Sequence<'a>>) -> Result<Self> {
        let mut packed = Self { segments: vec![0], ..Self::default() };
        for sequence in sequences {
            packed.push(sequence, 0)?;
        }
        Ok(packed)
    }

    /// Lays the pairs end to end: chosen 0, rejected 0, chosen 1, … With `shared` each prompt is there once, and loss and
    /// gradients are those of the separate sequences. A pair whose sides do not begin with the same prompt stays whole.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn pairs<'a>(pairs: impl IntoIterator<Item = Pair<'a>>, shared: bool) -> Result<Self> {
        let mut packed = Self { segments: vec![0], ..Self::default() };
        for Pair { prompt, chosen, rejected } in pairs {
            let same = chosen.ids.get(..prompt).is_some_and(|ids| rejected.ids.starts_with(ids));
            packed.push(chosen, 0)?;
            packed.push(rejected, if shared && same { prompt } else { 0 })?;
        }
        Ok(packed)
    }

    /// Adds a sequence whose first `prefix` tokens are those of the sequence before it.
    fn push(&mut self, sequence: Sequence, prefix: usize) -> Result<()> {
        let index = self.predicted.len();
        if sequence.ids.len() != sequence.supervised.len() {
            return Err(Error::Config(format!(
                "sequence {index} has {} tokens but {} mask entries",
                sequence.ids.len(),
                sequence.supervised.len()
            )));
        }
        let start = self.ids.len();
        let stem = if prefix > 0 { self.segments[index - 1] as usize } else { start };
        self.ids.extend(&sequence.ids[prefix..]);
        self.positions.extend(prefix as u32..sequence.ids.len() as u32);
        let first = self.rows.len();
        for offset in (1..sequence.ids.len()).filter(|&offset| sequence.supervised[offset]) {
            let before = offset - 1;
            self.rows.push(if before < prefix { stem + before } else { start + before - prefix } as u32);
            self.targets.push(sequence.ids[offset]);
            self.owner.push(index as u32);
        }
        let predicted = self.rows.len() - first;
        if predicted == 0 {
            return Err(Error::NothingToLearn { index });
        }
        self.segments.push(self.ids.len() as u32);
        self.prefixes.push(prefix as u32);
        self.predicted.push(predicted as u32);
        Ok(())
    }

    /// Adds a row for every token of the chosen sequences (0, 2, …) that is not supervised: ORPO's cross-entropy covers
    /// the prompts too.
    pub fn with_chosen_prompts(mut self) -> Self {
        let learnt: HashSet<(u32, u32)> = self.rows.iter().copied().zip(self.owner.iter().copied()).collect();
        for chosen in (0..self.sequences()).step_by(2) {
            for row in self.segments[chosen]..self.segments[chosen + 1] - 1 {
                if !learnt.contains(&(row, chosen as u32)) {
                    self.rows.push(row);
                    self.targets.push(self.ids[row as usize + 1]);
                    self.owner.push(chosen as u32);
                    self.prompt_rows += 1;
                }
            }
        }
        self
    }

    /// LD-DPO (arXiv 2409.06411; TRL `ld_alpha`): the tokens of a pair's longer answer behind the length of the shorter
    /// one count `alpha` instead of 1 in its log-prob sum.
    pub fn with_discounted_tails(mut self, alpha: f32) -> Self {
        let mut seen = vec![0; self.sequences()];
        let weight = |&owner: &u32| {
            let side = owner as usize;
            let shorter = self.predicted[side].min(self.predicted[side ^ 1]);
            seen[side] += 1;
            if seen[side] > shorter { alpha } else { 1.0 }
        };
        self.weights = self.owner.iter().map(weight).collect();
        self
    }

    /// The sequence of each row that predicts an answer's token; rows of learnt prompts come behind them.
    pub fn answer_owners(&self) -> &[u32] {
        &self.owner[..self.owner.len() - self.prompt_rows]
    }

    /// Weight of a row in the sum of its sequence.
    pub fn weight(&self, row: usize) -> f64 {
        self.weights.get(row).map_or(1.0, |&weight| f64::from(weight))
    }

    /// The model's view of it.
    pub fn batch(&self) -> Batch<'_> {
        let Self { ids, positions, segments, prefixes, .. } = self;
        Batch { ids, positions, segments, prefixes }
    }

    /// Tokens of all sequences, prompts included, those of a shared prompt once for each sequence: what TRL counts.
    pub fn tokens(&self) -> u64 {
        self.computed_tokens() + self.prefixes.iter().map(|&rows| u64::from(rows)).sum::<u64>()
    }

    /// Tokens that go through the decoder: a shared prompt once.
    pub fn computed_tokens(&self) -> u64 {
        self.ids.len() as u64
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.predicted.len()
    }

    /// Sums a value of each predicted token over its sequence, weighted, in f64 and in token order: `[S]`.
    pub fn sum_by_sequence(&self, values: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.sequences()];
        for (row, (&owner, &value)) in self.answer_owners().iter().zip(values).enumerate() {
            sums[owner as usize] += self.weight(row) * f64::from(value);
        }
        sums
    }

    /// Sums a value of each predicted prompt token (see [`Self::with_chosen_prompts`]), in f64 and in order.
    pub fn sum_of_prompts(&self, values: &[f32]) -> f64 {
        values[values.len() - self.prompt_rows..].iter().copied().map(f64::from).sum()
    }
}
