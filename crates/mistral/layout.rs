//! Where every parameter lies in one flat f32 arena.
//!
//! The order is chosen so that matrices that share an input are neighbours: `q_proj, k_proj, v_proj` form one
//! `[(H + 2·KV)·D, h]` matrix and `gate_proj, up_proj` one `[2·I, h]` matrix without a copy, under the names and
//! shapes that transformers gives them. Gradients and optimizer moments use the same layout.

use std::ops::Range;

use rayon::prelude::*;

use crate::config::Config;
use crate::storage::Frozen;
use zephyr_kernels::splitmix;

/// One named parameter: `shape` as transformers writes it (`[out, in]` for projections), `range` in floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

/// The ranges of one decoder layer. `qkv` and `gate_up` are fused views over neighbouring tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerLayout {
    /// `[h]`, RMSNorm before attention.
    pub input_norm: Range<usize>,
    /// `[(H + 2·KV)·D, h]`.
    pub qkv: Range<usize>,
    /// `[h, H·D]`.
    pub o: Range<usize>,
    /// `[h]`, RMSNorm before the MLP.
    pub post_norm: Range<usize>,
    /// `[2·I, h]`.
    pub gate_up: Range<usize>,
    /// `[h, I]`.
    pub down: Range<usize>,
}

/// The arena's map. `lm_head` equals `embed` when the embeddings are tied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub tensors: Vec<TensorSpec>,
    pub embed: Range<usize>,
    pub layers: Vec<LayerLayout>,
    pub final_norm: Range<usize>,
    pub lm_head: Range<usize>,
    /// Floats in the arena.
    pub len: usize,
}

/// Lays tensors one behind the other.
#[derive(Default)]
pub(crate) struct Builder {
    pub tensors: Vec<TensorSpec>,
    /// Floats so far.
    pub len: usize,
}

impl Builder {
    pub fn add(&mut self, name: String, shape: &[usize]) -> Range<usize> {
        let range = self.len..self.len + shape.iter().product::<usize>();
        self.len = range.end;
        self.tensors.push(TensorSpec { name, shape: shape.to_vec(), range: range.clone() });
        range
    }
}

impl Layout {
    /// The layout of a checked configuration (its products are known not to overflow).
    pub fn new(config: &Config) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (q_rows, kv_rows) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let mut build = Builder::default();
        let embed = build.add("model.embed_tokens.weight".into(), &[config.vocab_size, hidden]);
        let layers = (0..config.layers)
            .map(|index| {
                let name = |part: &str| format!("model.layers.{index}.{part}.weight");
                let input_norm = build.add(name("input_layernorm"), &[hidden]);
                let q = build.add(name("self_attn.q_proj"), &[q_rows, hidden]);
                build.add(name("self_attn.k_proj"), &[kv_rows, hidden]);
                let v = build.add(name("self_attn.v_proj"), &[kv_rows, hidden]);
                let o = build.add(name("self_attn.o_proj"), &[hidden, q_rows]);
                let post_norm = build.add(name("post_attention_layernorm"), &[hidden]);
                let gate = build.add(name("mlp.gate_proj"), &[inner, hidden]);
                let up = build.add(name("mlp.up_proj"), &[inner, hidden]);
                let down = build.add(name("mlp.down_proj"), &[hidden, inner]);
                LayerLayout { input_norm, qkv: q.start..v.end, o, post_norm, gate_up: gate.start..up.end, down }
            })
            .collect();
        let final_norm = build.add("model.norm.weight".into(), &[hidden]);
        let lm_head = if config.tie_word_embeddings {
            embed.clone()
        } else {
            build.add("lm_head.weight".into(), &[config.vocab_size, hidden])
        };
        Self { tensors: build.tensors, embed, layers, final_norm, lm_head, len: build.len }
    }

    /// The tensor of that name, if this architecture has it.
    pub fn find(&self, name: &str) -> Option<&TensorSpec> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Which tensors a range of the arena is made of.
    pub(crate) fn places(&self, range: &Range<usize>) -> Range<usize> {
        let first = self.tensors.partition_point(|tensor| tensor.range.start < range.start);
        first..self.tensors.partition_point(|tensor| tensor.range.end <= range.end)
    }
}

/// A model in memory: configuration, map, and all parameters, as f32 in one allocation or frozen in fewer bytes.
#[derive(Clone, Debug)]
pub struct Weights {
    pub config: Config,
    pub layout: Layout,
    /// All parameters; empty when they are frozen.
    pub data: Vec<f32>,
    pub(crate) frozen: Option<Frozen>,
}

impl Weights {
    /// A zero-filled model of that shape.
    pub fn zeros(config: Config) -> Self {
        let layout = Layout::new(&config);
        let data = vec![0.0; layout.len];
        Self { config, layout, data, frozen: None }
    }

    /// The same model without its values: what is left of one whose memory is given back.
    pub fn released(&self) -> Self {
        Self { config: self.config.clone(), layout: self.layout.clone(), data: Vec::new(), frozen: None }
    }

    /// Random weights as transformers initialises them: normal with `initializer_range` for matrices, ones for norms.
    /// A pure function of the seed (splitmix64 and Box–Muller), the same on every machine up to `libm` rounding.
    pub fn random(config: Config, seed: u64) -> Self {
        let mut weights = Self::zeros(config);
        let deviation = weights.config.initializer_range;
        let mut state = seed;
        for tensor in &weights.layout.tensors {
            let values = &mut weights.data[tensor.range.clone()];
            if tensor.shape.len() == 1 {
                values.fill(1.0);
                continue;
            }
            let len = values.len();
            values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
                // A pair takes two numbers of the generator: one for each value.
                let mut state = splitmix::after(state, chunk * CHUNK);
                for pair in values.chunks_mut(2) {
                    let (first, second) = normal_pair(&mut state);
                    pair[0] = (first * deviation) as f32;
                    if let Some(value) = pair.get_mut(1) {
                        *value = (second * deviation) as f32;
                    }
                }
            });
            state = splitmix::after(state, len.next_multiple_of(2));
        }
        weights
    }
}

/// Random values made at one time by a thread; an even number.
const CHUNK: usize = 1 << 16;

/// Two independent standard normals (Box–Muller over splitmix64).
fn normal_pair(state: &mut u64) -> (f64, f64) {
    let mut uniform = || ((splitmix::next(state) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
    (radius * angle.cos(), radius * angle.sin())
}

#[cfg(test)]
mod test {
    use super::*;

    /// Whatever the threads, and in tensors of odd lengths and of several chunks.
    #[test]
    fn random_weights_are_those_of_one_generator_in_order() {
        let config = r#"{"model_type": "mistral", "vocab_size": 4097, "hidden_size": 33, "intermediate_size": 5,
            "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 8,
            "rms_norm_eps": 1e-5, "hidden_act": "silu", "initializer_range": 0.5}"#;
        let weights = Weights::random(Config::from_json(config, "config").unwrap(), 7);
        assert!(weights.layout.embed.len() > 2 * CHUNK);
        let mut state = 7;
        for tensor in weights.layout.tensors.iter().filter(|tensor| tensor.shape.len() == 2) {
            for pair in weights.data[tensor.range.clone()].chunks(2) {
                let (first, second) = normal_pair(&mut state);
                let expected = [(first * 0.5) as f32, (second * 0.5) as f32];
                assert_eq!(pair, &expected[..pair.len()], "{}", tensor.name);
            }
        }
    }
}
