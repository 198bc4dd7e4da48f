//! The four products of a decoder layer, with what an adapter adds to them: [`crate::linear`]'s twin.

use zephyr_kernels::cuda::{Element, Pointer};
use zephyr_kernels::dropout::{self, Mask};
use zephyr_kernels::gemm::cuda::{Mat, nn, nt, tn};

use super::{Decoder, Gradients, Loaded, Workspace};
use crate::error::Result;
use crate::linear::Group;

impl<T: Element> Decoder<T> {
    /// `y[T, out] = x[T, in]·Wᵀ`, plus `addend` where there is one, plus what the adapter adds if it is on.
    pub(super) fn linear_forward(
        &self,
        index: usize,
        group: Group,
        y: Pointer<T>,
        x: Pointer<T>,
        addend: Option<Pointer<T>>,
        batch: &Loaded,
        workspace: &Workspace<T>,
        adapted: bool,
    ) -> Result<()> {
        let (tokens, (outputs, inputs)) = (batch.tokens, group.shape(&self.config));
        let weight = Mat::new(self.weight(&group.range(&self.layout.layers[index]))?, outputs, inputs);
        let x = Mat::new(x, tokens, inputs);
        self.device.multiply(&nt(Mat::new(y, tokens, outputs), x, weight, 1.0).plus(addend))?;
        let Some(adapter) = self.adapter.as_ref().filter(|_| adapted) else { return Ok(()) };
        for (pair, columns) in group.pairs(&self.config, adapter, index) {
            let low = Mat::new(workspace.stream.low, tokens, pair.rank);
            let a = Mat::new(self.adapted.offset(pair.a.start), pair.rank, inputs);
            let b = Mat::new(self.adapted.offset(pair.b.start), columns.len(), pair.rank);
            let part = Mat::strided(y.offset(columns.start), tokens, columns.len(), outputs);
            let x = self.dropped(x, pair.mask(batch.dropout), workspace)?;
            self.device.multiply(&nt(low, x, a, 1.0))?;
            self.device.multiply(&nt(part, low, b, pair.scale).accumulated())?;
        }
        Ok(())
    }

    /// Overwrites `d_x[T, in]`; adds to the gradients of the adapter or of the weights.
    pub(super) fn linear_backward(
        &self,
        index: usize,
        group: Group,
        d_y: Pointer<T>,
        x: Pointer<T>,
        d_x: Pointer<T>,
        batch: &Loaded,
        workspace: &Workspace<T>,
        gradients: Gradients<T>,
    ) -> Result<()> {
        let (tokens, (outputs, inputs)) = (batch.tokens, group.shape(&self.config));
        let range = group.range(&self.layout.layers[index]);
        let (whole, x) = (Mat::new(d_y, tokens, outputs), Mat::new(x, tokens, inputs));
        let d_x = Mat::new(d_x, tokens, inputs);
        self.device.multiply(&nn(d_x, whole, Mat::new(self.weight(&range)?, outputs, inputs), 1.0))?;
        let gradients = match gradients {
            Gradients::Weights(gradients) => {
                let d_weight = Mat::new(gradients.offset(range.start), outputs, inputs);
                return Ok(self.device.multiply(&tn(d_weight, whole, x, 1.0).accumulated())?);
            }
            Gradients::Adapter(gradients) => gradients,
        };
        let Some(adapter) = &self.adapter else { return Ok(()) };
        for (pair, columns) in group.pairs(&self.config, adapter, index) {
            let (low, d_low) = (
                Mat::new(workspace.stream.low, tokens, pair.rank),
                Mat::new(workspace.stream.d_low, tokens, pair.rank),
            );
            let a = Mat::new(self.adapted.offset(pair.a.start), pair.rank, inputs);
            let b = Mat::new(self.adapted.offset(pair.b.start), columns.len(), pair.rank);
            let d_a = Mat::new(gradients.offset(pair.a.start), pair.rank, inputs);
            let d_b = Mat::new(gradients.offset(pair.b.start), columns.len(), pair.rank);
            let d_y = Mat::strided(d_y.offset(columns.start), tokens, columns.len(), outputs);
            let mask = pair.mask(batch.dropout);
            let x = self.dropped(x, mask, workspace)?;
            self.device.multiply(&nt(low, x, a, 1.0))?;
            self.device.multiply(&tn(d_b, d_y, low, pair.scale).accumulated())?;
            self.device.multiply(&nn(d_low, d_y, b, pair.scale))?;
            self.device.multiply(&tn(d_a, d_low, x, 1.0).accumulated())?;
            match mask {
                None => self.device.multiply(&nn(d_x, d_low, a, 1.0).accumulated())?,
                Some(mask) => {
                    let d_dropped = workspace.stream.dropped;
                    self.device.multiply(&nn(Mat::new(d_dropped, tokens, inputs), d_low, a, 1.0))?;
                    self.device.run(&dropout::cuda::add(mask, d_dropped, d_x.first, tokens, inputs))?;
                }
            }
        }
        Ok(())
    }

    /// The input of an adapted projection: `x` itself, or `x` after dropout.
    fn dropped(&self, x: Mat<T>, mask: Option<Mask>, workspace: &Workspace<T>) -> Result<Mat<T>> {
        let Some(mask) = mask else { return Ok(x) };
        let dropped = workspace.stream.dropped;
        self.device.run(&dropout::cuda::apply(mask, x.first, dropped, x.rows, x.cols))?;
        Ok(Mat::new(dropped, x.rows, x.cols))
    }
}
