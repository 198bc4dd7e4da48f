//! A reference that follows the policy (TR-DPO, Gorbatovski et al. 2024, arXiv 2404.09656; TRL `sync_ref_model`).

use rayon::prelude::*;
use zephyr_mistral::Weights;

use crate::error::{Error, Result};

/// `π_ref ← α π + (1 − α) π_ref`, weight by weight.
///
/// # Errors
/// Models of different shapes, weights that are frozen in fewer bytes.
pub fn blend(reference: &mut Weights, policy: &Weights, alpha: f32) -> Result<()> {
    let (ours, theirs) = (reference.data.len(), policy.data.len());
    if ours == 0 {
        let text = "weights that are frozen cannot follow a policy. Remedy: load the reference as float32";
        return Err(Error::Config(text.to_owned()));
    }
    if ours != theirs {
        return Err(Error::Config(format!("the reference has {ours} parameters, the policy {theirs}")));
    }
    reference.data.par_iter_mut().zip(&policy.data[..]).for_each(|(reference, &policy)| {
        *reference = *reference * (1.0 - alpha) + alpha * policy;
    });
    Ok(())
}

#[cfg(test)]
mod test {
    use super::blend;
    use crate::test::{models, weights};

    #[test]
    fn mixes_weight_by_weight() {
        for folder in models() {
            let policy = weights(folder.join("model.safetensors"));
            let start = weights(folder.join("ref.safetensors"));
            let mixed = |alpha| {
                let mut reference = start.clone();
                blend(&mut reference, &policy, alpha).unwrap();
                reference.data
            };
            assert!(mixed(0.0)[..] == start.data[..] && mixed(1.0)[..] == policy.data[..]);
            let frozen = || start.converted(zephyr_mistral::Storage::Bf16).unwrap();
            assert!(blend(&mut frozen(), &frozen(), 0.5).unwrap_err().to_string().contains("frozen"));
            let (mixed, at) = (mixed(0.6), start.data.len() / 2);
            assert!((mixed[at] - (0.6 * policy.data[at] + 0.4 * start.data[at])).abs() < 1e-6);
            assert!(mixed[..] != start.data[..]);
        }
    }
}
