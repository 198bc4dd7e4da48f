//! The log-prob head: only the rows that predict something, a chunk of logits at a time.

use zephyr_kernels::cuda::{Element, Fetched, Pointer};
use zephyr_kernels::gemm::cuda::{Mat, nn, nt, tn};
use zephyr_kernels::{embedding, head};

use super::backward::of_weights;
use super::workspace::STATS_BYTES;
use super::{Decoder, Gradients, Loaded, Workspace};
use crate::error::Result;

/// What the rows of a batch say about their targets, on its way to the host.
#[derive(Debug)]
pub struct Statistics {
    rows: usize,
    bytes: Fetched,
}

impl Statistics {
    /// Waits for it, and for nothing that was queued since.
    ///
    /// # Errors
    /// The device's.
    pub fn wait(self, stats: &mut head::Stats) -> Result<()> {
        let Self { rows, bytes: fetched } = self;
        let mut bytes = vec![0u8; STATS_BYTES * rows];
        fetched.wait(&mut bytes)?;
        let (floats, correct) = bytes.split_at((STATS_BYTES - 1) * rows);
        let head::Stats { logp, lse, entropy, log_collision, logit_mean, .. } = &mut *stats;
        let kinds = [logp, lse, entropy, log_collision, logit_mean];
        let floats = floats.as_chunks().0;
        for (kind, to) in kinds.into_iter().enumerate() {
            to.clear();
            to.extend(floats[kind * rows..][..rows].iter().map(|&four| f32::from_le_bytes(four)));
        }
        stats.correct.clear();
        stats.correct.extend(correct.iter().map(|&flag| flag == 1));
        Ok(())
    }
}

impl<T: Element> Decoder<T> {
    /// What the rows say about their targets. It must be waited for, or dropped, before the next batch on this workspace.
    ///
    /// # Errors
    /// The device's.
    pub fn statistics(&self, batch: &Loaded, workspace: &Workspace<T>) -> Result<Statistics> {
        self.gather(batch, workspace)?;
        for (first, count) in chunks(batch, workspace) {
            self.logits(workspace, first, count)?;
            self.chunk_statistics(batch, workspace, first, count)?;
        }
        self.fetch(batch, workspace)
    }

    /// [`Self::statistics`] and [`Self::head_backward`] with the logits computed once, for a loss whose derivative by every
    /// log-probability is `coefficient`.
    ///
    /// # Errors
    /// The device's.
    pub fn statistics_and_backward(
        &self,
        batch: &Loaded,
        workspace: &Workspace<T>,
        coefficient: f32,
        gradients: Gradients<T>,
    ) -> Result<Statistics> {
        self.device.upload(&vec![coefficient; batch.predictions], workspace.ends.coefficient)?;
        self.gather(batch, workspace)?;
        let mut fetched = None;
        for (first, count) in chunks(batch, workspace) {
            self.logits(workspace, first, count)?;
            self.chunk_statistics(batch, workspace, first, count)?;
            if first + count == batch.predictions {
                fetched = Some(self.fetch(batch, workspace)?);
            }
            self.chunk_gradients(batch, workspace, first, count, gradients)?;
        }
        self.scatter(batch, workspace)?;
        fetched.map_or_else(|| self.fetch(batch, workspace), Ok)
    }

    /// From the loss's derivative by each log-probability to the gradient of the final hidden states, and that of the head.
    ///
    /// # Errors
    /// The device's.
    pub fn head_backward(
        &self,
        batch: &Loaded,
        workspace: &Workspace<T>,
        coefficients: &[f32],
        gradients: Gradients<T>,
    ) -> Result<()> {
        assert_eq!(coefficients.len(), batch.predictions, "coefficients");
        self.device.upload(coefficients, workspace.ends.coefficient)?;
        for (first, count) in chunks(batch, workspace) {
            self.logits(workspace, first, count)?;
            self.chunk_gradients(batch, workspace, first, count, gradients)?;
        }
        self.scatter(batch, workspace)
    }

    /// Logits of the predicting rows `[first, first + count)` to the workspace.
    fn logits(&self, workspace: &Workspace<T>, first: usize, count: usize) -> Result<()> {
        let (width, vocabulary) = (self.config.hidden_size, self.config.vocab_size);
        let hidden = Mat::new(workspace.ends.head_rows.offset(first * width), count, width);
        let weight = Mat::new(self.weight(&self.layout.lm_head)?, vocabulary, width);
        Ok(self.device.multiply(&nt(Mat::new(workspace.ends.logits, count, vocabulary), hidden, weight, 1.0))?)
    }

    /// All logits of a batch, `[N, V]`.
    ///
    /// # Errors
    /// The device's.
    pub fn all_logits(&self, batch: &Loaded, workspace: &Workspace<T>) -> Result<Vec<f32>> {
        self.gather(batch, workspace)?;
        let mut logits = vec![0.0; batch.predictions * self.config.vocab_size];
        let chunks = logits.chunks_mut(workspace.sizes.chunk * self.config.vocab_size);
        for (chunk, logits) in chunks.enumerate() {
            let count = logits.len() / self.config.vocab_size;
            self.logits(workspace, chunk * workspace.sizes.chunk, count)?;
            self.device.download(workspace.ends.logits, logits)?;
        }
        Ok(logits)
    }

    fn gather(&self, batch: &Loaded, workspace: &Workspace<T>) -> Result<()> {
        let (width, rows) = (self.config.hidden_size, batch.predictions);
        let launch =
            embedding::cuda::forward(workspace.stream.hidden, width, batch.rows, workspace.ends.head_rows, rows);
        Ok(self.device.run(&launch)?)
    }

    /// A row that predicts two answers gets the gradients of both.
    fn scatter(&self, batch: &Loaded, workspace: &Workspace<T>) -> Result<()> {
        let (width, rows) = (self.config.hidden_size, batch.predictions);
        self.device.zero(workspace.stream.d_hidden, batch.tokens * width)?;
        let (from, to) = (workspace.ends.d_head_rows, workspace.stream.d_hidden);
        Ok(self.device.run(&embedding::cuda::backward(from, width, batch.rows, to, rows))?)
    }

    /// What the logits that were just made say about their targets.
    fn chunk_statistics(&self, batch: &Loaded, workspace: &Workspace<T>, first: usize, count: usize) -> Result<()> {
        let (logits, targets) = (workspace.ends.logits, batch.targets.offset(first));
        let stats = stats_of(batch, workspace, first);
        Ok(self.device.run(&head::cuda::statistics(logits, targets, &stats, count, self.config.vocab_size))?)
    }

    /// The gradients of the logits that were just made, to their rows and to the head.
    fn chunk_gradients(
        &self,
        batch: &Loaded,
        workspace: &Workspace<T>,
        first: usize,
        count: usize,
        gradients: Gradients<T>,
    ) -> Result<()> {
        let (width, vocabulary) = (self.config.hidden_size, self.config.vocab_size);
        let weight = Mat::new(self.weight(&self.layout.lm_head)?, vocabulary, width);
        let (logits, targets) = (workspace.ends.logits, batch.targets.offset(first));
        let lse = stats_of(batch, workspace, first).lse;
        let (d_logits, coefficient) = (workspace.ends.d_logits, workspace.ends.coefficient.offset(first));
        let launch = head::cuda::gradient(logits, targets, lse, coefficient, d_logits, count, vocabulary);
        self.device.run(&launch)?;
        let d_logits = Mat::new(d_logits, count, vocabulary);
        let d_hidden = Mat::new(workspace.ends.d_head_rows.offset(first * width), count, width);
        self.device.multiply(&nn(d_hidden, d_logits, weight, 1.0))?;
        if let Some(d_weight) = of_weights(gradients, &self.layout.lm_head) {
            let hidden = Mat::new(workspace.ends.head_rows.offset(first * width), count, width);
            let d_weight = Mat::new(d_weight, vocabulary, width);
            self.device.multiply(&tn(d_weight, d_logits, hidden, 1.0).accumulated())?;
        }
        Ok(())
    }

    fn fetch(&self, batch: &Loaded, workspace: &Workspace<T>) -> Result<Statistics> {
        let rows = batch.predictions;
        Ok(Statistics { rows, bytes: self.device.fetch(workspace.ends.stats.address, STATS_BYTES * rows)? })
    }
}

/// First row and length of each chunk.
fn chunks<T>(batch: &Loaded, workspace: &Workspace<T>) -> impl Iterator<Item = (usize, usize)> + use<T> {
    let (rows, chunk) = (batch.predictions, workspace.sizes.chunk);
    (0..rows).step_by(chunk).map(move |first| (first, chunk.min(rows - first)))
}

/// Where the statistics of the rows from `first` on lie.
fn stats_of<T>(batch: &Loaded, workspace: &Workspace<T>, first: usize) -> head::cuda::Stats {
    let (floats, rows) = (Pointer::new(workspace.ends.stats.address), batch.predictions);
    let kind = |index: usize| floats.offset(index * rows + first);
    head::cuda::Stats {
        logp: kind(0),
        lse: kind(1),
        entropy: kind(2),
        log_collision: kind(3),
        logit_mean: kind(4),
        correct: workspace.ends.stats.offset((STATS_BYTES - 1) * rows + first),
    }
}
