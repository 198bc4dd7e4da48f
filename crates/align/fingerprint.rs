//! What model this is, in 64 digits: ties numbers that were computed with a model (reference log-probs) to it.

use rayon::prelude::*;
use zephyr_mistral::Weights;

/// Floats hashed by one task.
const BLOCK: usize = 1 << 20;

/// BLAKE3 over the configuration and the hashes of all parameters in blocks: 64 hexadecimal digits. Equal for the same
/// numbers, whatever file they came from and whatever the number of threads.
pub fn of(weights: &Weights) -> String {
    let blocks: Vec<blake3::Hash> =
        weights.data.par_chunks(BLOCK).map(|block| blake3::hash(bytemuck::cast_slice(block))).collect();
    let mut hasher = blake3::Hasher::new();
    hasher.update(weights.config.to_json().to_string().as_bytes());
    for hash in blocks {
        hasher.update(hash.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
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
        let fingerprint = of(&weights);
        assert_eq!(fingerprint.len(), 64);
        assert_eq!(fingerprint, of(&weights.clone()));
        let mut other = weights.clone();
        let last = other.data.len() - 1;
        other.data[last] = f32::from_bits(other.data[last].to_bits() ^ 1);
        assert_ne!(fingerprint, of(&other));
        let mut other = weights.clone();
        other.config.rope_theta *= 2.0;
        assert_ne!(fingerprint, of(&other));
    }
}
