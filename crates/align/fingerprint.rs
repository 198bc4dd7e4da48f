//! What model this is, in 64 digits: ties numbers that were computed with a model (reference log-probs) to it.

use rayon::prelude::*;
use zephyr_mistral::{Model, Weights};

/// Floats hashed by one task.
const BLOCK: usize = 1 << 20;

/// BLAKE3 over configuration, parameters and adapter, in blocks: 64 hexadecimal digits. Equal for the same numbers,
/// whatever file they came from and whatever the number of threads; frozen weights count as the values they stand for.
pub fn of(model: Model) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(model.weights.config.to_json().to_string().as_bytes());
    for hash in weights(model.weights) {
        hasher.update(hash.as_bytes());
    }
    if let Some(adapter) = model.adapter {
        for pair in &adapter.layout.pairs {
            hasher.update(&pair.scale.to_le_bytes());
        }
        hasher.update(bytemuck::cast_slice(&adapter.data));
    }
    hasher.finalize().to_hex().to_string()
}

fn weights(weights: &Weights) -> Vec<blake3::Hash> {
    let blocks: Vec<_> = weights
        .layout
        .tensors
        .iter()
        .flat_map(|spec| (0..spec.range.len()).step_by(BLOCK).map(move |start| (spec, start)))
        .collect();
    let hash = |(spec, start): &(&zephyr_mistral::TensorSpec, usize)| {
        let mut values = vec![0.0f32; BLOCK.min(spec.range.len() - start)];
        weights.read(spec, *start, &mut values);
        blake3::hash(bytemuck::cast_slice(&values))
    };
    blocks.par_iter().map(hash).collect()
}

#[cfg(test)]
mod test {
    use super::*;
    use zephyr_mistral::Config;

    fn config() -> Config {
        let json = r#"{"model_type":"mistral","vocab_size":37,"hidden_size":24,"intermediate_size":40,
            "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"rms_norm_eps":1e-5,
            "hidden_act":"silu","max_position_embeddings":64,"rope_theta":10000.0}"#;
        Config::from_json(json, "test").unwrap()
    }

    #[test]
    fn one_changed_bit_or_another_config_is_another_model() {
        let weights = Weights::random(config(), 3);
        let fingerprint = of(Model::from(&weights));
        assert_eq!(fingerprint.len(), 64);
        assert_eq!(fingerprint, of(Model::from(&weights.clone())));
        let mut other = weights.clone();
        let last = other.data.len() - 1;
        other.data[last] = f32::from_bits(other.data[last].to_bits() ^ 1);
        assert_ne!(fingerprint, of(Model::from(&other)));
        let mut other = weights.clone();
        other.config.rope_theta *= 2.0;
        assert_ne!(fingerprint, of(Model::from(&other)));
    }
}
