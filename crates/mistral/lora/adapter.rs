//! The adapter's parameters.

use std::ops::Range;

use zephyr_kernels::dropout::Mask;

use super::config::LoraConfig;
use super::dropout::key;
use super::target;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::{Builder, TensorSpec};
use crate::linear::Projection;
use crate::weights::arena;

/// The pair of one projection: `W + scale·B·A`.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    pub layer: usize,
    pub projection: Projection,
    pub rank: usize,
    pub scale: f32,
    /// Probability of dropout of its input, when training.
    pub dropout: f32,
    /// `[r, in]`
    pub a: Range<usize>,
    /// `[out, r]`
    pub b: Range<usize>,
}

impl LowRank {
    /// The mask on its input in the micro-batch of that key; none without a key, or without dropout.
    pub fn mask(&self, micro_batch: Option<u64>) -> Option<Mask> {
        let key = key(&[micro_batch?, self.layer as u64, self.projection as u64]);
        (self.dropout > 0.0).then(|| Mask::new(key, self.dropout))
    }
}

/// Where every A and B lies in one flat f32 arena, under the names that PEFT gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterLayout {
    pub tensors: Vec<TensorSpec>,
    /// By layer, then in the order of [`Projection::ALL`].
    pub pairs: Vec<LowRank>,
    /// `[layers][7]`, places in `pairs`.
    slots: Vec<[Option<usize>; 7]>,
    /// Floats in the arena.
    pub len: usize,
}

impl AdapterLayout {
    /// The layout on that base.
    ///
    /// # Errors
    /// `ZA_ADAPTER_CONFIG` for what cannot be adapted.
    pub(super) fn planned(config: &LoraConfig, base: &Config) -> Result<Self> {
        for path in ["lm_head", "model.embed_tokens", "model.norm"] {
            if config.adapts(path) {
                let problem = format!("it means {path}, and only the seven projections of a layer can be adapted");
                return Err(Error::adapter("LoRA", "target_modules", problem, "Leave it out, or take all-linear."));
            }
        }
        Ok(Self::new(config, base))
    }

    fn new(config: &LoraConfig, base: &Config) -> Self {
        let mut build = Builder::default();
        let dropout = config.dropout as f32;
        let (mut pairs, mut slots) = (Vec::new(), vec![[None; 7]; base.layers]);
        for (layer, projection, path) in target::paths(base).filter(|(_, _, path)| config.adapts(path)) {
            let [outputs, inputs] = projection.shape(base);
            let (rank, scale) = (config.rank_of(&path), config.scale_of(&path) as f32);
            let a = build.add(format!("base_model.model.{path}.lora_A.weight"), &[rank, inputs]);
            let b = build.add(format!("base_model.model.{path}.lora_B.weight"), &[outputs, rank]);
            slots[layer][projection as usize] = Some(pairs.len());
            pairs.push(LowRank { layer, projection, rank, scale, dropout, a, b });
        }
        Self { tensors: build.tensors, pairs, slots, len: build.len }
    }

    /// The pair of that projection, if it is adapted.
    pub fn find(&self, layer: usize, projection: Projection) -> Option<&LowRank> {
        self.slots[layer][projection as usize].map(|place| &self.pairs[place])
    }
}

/// A low-rank adapter in memory: configuration, map, and all A and B as f32 in one allocation.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub config: LoraConfig,
    pub layout: AdapterLayout,
    pub data: Vec<f32>,
}

impl Adapter {
    /// A new adapter of that base, as PEFT initialises it: B zero, so that it changes nothing; A Kaiming-uniform with
    /// a = √5, which is uniform in ±1/√in. A pure function of the seed.
    ///
    /// # Errors
    /// `ZA_ADAPTER_CONFIG` for a target or pattern that fits no projection (the message lists what exists), and for
    /// one that also means the embeddings or the head.
    pub fn new(config: LoraConfig, base: &Config, seed: u64) -> Result<Self> {
        let paths: Vec<String> =
            target::paths(base).map(|(_, _, path)| path).filter(|path| config.adapts(path)).collect();
        let names: Vec<&str> = Projection::ALL.iter().map(|projection| projection.name()).collect();
        let remedy = format!(
            "Choose from {}, in layers 0 to {} (model.layers.0.self_attn.q_proj), or all-linear.",
            names.join(", "),
            base.layers - 1
        );
        let refuse = |field: &str, problem: String| Err(Error::adapter("LoRA", field, problem, remedy.clone()));
        let unknown = config.targets.unknown(base);
        if !unknown.is_empty() {
            return refuse("target_modules", format!("the model has no projection {}", unknown.join(", ")));
        }
        if paths.is_empty() {
            return refuse("target_modules", "no projection of the model is meant".to_owned());
        }
        for (field, patterns) in [("rank_pattern", &config.ranks), ("alpha_pattern", &config.alphas)] {
            if let Some(key) = patterns.unused(&paths) {
                return refuse(field, format!("{key:?} fits none of the adapted projections"));
            }
        }
        let layout = AdapterLayout::planned(&config, base)?;
        let mut adapter = Self::zeroed(config, layout)?;
        for (index, pair) in adapter.layout.pairs.iter().enumerate() {
            let bound = 1.0 / ((pair.a.len() / pair.rank) as f64).sqrt();
            for (at, value) in adapter.data[pair.a.clone()].iter_mut().enumerate() {
                let uniform = (key(&[seed, index as u64, at as u64]) >> 11) as f64 / (1u64 << 53) as f64;
                *value = ((2.0 * uniform - 1.0) * bound) as f32;
            }
        }
        Ok(adapter)
    }

    /// Whether every B is zero, so that the adapter changes nothing, as when it is new.
    pub fn is_neutral(&self) -> bool {
        self.layout.pairs.iter().all(|pair| self.data[pair.b.clone()].iter().all(|&value| value == 0.0))
    }

    /// All zero, to be filled.
    pub(super) fn zeroed(config: LoraConfig, layout: AdapterLayout) -> Result<Self> {
        let data = arena(layout.len, "The adapter")?;
        Ok(Self { config, layout, data })
    }
}
