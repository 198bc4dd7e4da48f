//! An adapter written into its base.

use zephyr_kernels::gemm::{self, Mat, MatMut};

use super::adapter::Adapter;
use crate::layout::Weights;

/// `W += s·B·A` for every adapted projection, in f32.
///
/// Panics if the adapter was made for another configuration, or the weights are frozen: [`Weights::converted`] gives them
/// as f32.
pub fn merge(weights: &mut Weights, adapter: &Adapter) {
    for pair in &adapter.layout.pairs {
        let name = format!("{}.weight", pair.projection.path(pair.layer));
        let spec = weights.layout.find(&name).expect("an adapter of this model");
        let [outputs, inputs] = pair.projection.shape(&weights.config);
        let range = spec.range.clone();
        gemm::nn(
            MatMut::new(&mut weights.data[range], outputs, inputs),
            Mat::new(&adapter.data[pair.b.clone()], outputs, pair.rank),
            Mat::new(&adapter.data[pair.a.clone()], pair.rank, inputs),
            pair.scale,
            1.0,
        );
    }
}
