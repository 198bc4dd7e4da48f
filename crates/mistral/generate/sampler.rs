//! From logits to a token, in the order of transformers' logits processors and warpers.

use super::GenerateOptions;
use super::random::Random;
use std::cmp::Ordering;
use zephyr_kernels::head;

/// Top-p sorts this many candidates before it looks whether they reach the mass; most distributions need fewer.
const FIRST_SORTED: usize = 256;

pub(super) struct Sampler {
    options: GenerateOptions,
    random: Random,
    /// Tokens of prompt and answer, each once; kept only where the penalty needs them.
    seen: Vec<u32>,
    is_seen: Vec<bool>,
    scores: Vec<f32>,
    weights: Vec<f32>,
    order: Vec<u32>,
}

/// A token, and what the unmodified logits say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    pub token: u32,
    /// Natural log of its probability.
    pub logp: f32,
    /// The most probable tokens with theirs, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

impl Sampler {
    pub fn new(options: &GenerateOptions, prompt: &[u32], vocabulary: usize) -> Self {
        let mut sampler = Sampler {
            options: options.clone(),
            random: Random::new(options.seed),
            seen: Vec::new(),
            is_seen: Vec::new(),
            scores: Vec::new(),
            weights: Vec::new(),
            order: Vec::new(),
        };
        if options.repetition_penalty != 1.0 {
            sampler.is_seen = vec![false; vocabulary];
            prompt.iter().for_each(|token| sampler.see(*token));
        }
        sampler
    }

    fn see(&mut self, token: u32) {
        if let Some(seen) = self.is_seen.get_mut(token as usize)
            && !std::mem::replace(seen, true)
        {
            self.seen.push(token);
        }
    }

    /// Chooses a token. `None`: the logits hold NaN, +∞, or nothing above −∞.
    pub fn next(&mut self, logits: &[f32]) -> Option<Choice> {
        let lse = head::log_sum_exp(logits);
        if !lse.is_finite() {
            return None;
        }
        let penalty = self.options.repetition_penalty;
        let token = if penalty == 1.0 {
            self.choose(logits)
        } else {
            let mut scores = std::mem::take(&mut self.scores);
            scores.clear();
            scores.extend_from_slice(logits);
            for token in &self.seen {
                let score = &mut scores[*token as usize];
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
            let token = self.choose(&scores);
            self.scores = scores;
            token
        };
        self.see(token);
        let logp = |token: u32| logits[token as usize] - lse;
        let top = self.top(logits).into_iter().map(|token| (token, logp(token))).collect();
        Some(Choice { token, logp: logp(token), top })
    }

    /// The most probable tokens, in that order.
    fn top(&mut self, logits: &[f32]) -> Vec<u32> {
        let count = self.options.top_logprobs.min(logits.len());
        if count == 0 {
            return Vec::new();
        }
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..logits.len() as u32);
        order.select_nth_unstable_by(count - 1, |a, b| by_score(logits, *a, *b));
        let mut top = order[..count].to_vec();
        top.sort_unstable_by(|a, b| by_score(logits, *a, *b));
        self.order = order;
        top
    }

    fn choose(&mut self, scores: &[f32]) -> u32 {
        let GenerateOptions { temperature, top_k, top_p, min_p, .. } = self.options;
        let best = argmax(scores);
        let max = scores[best as usize];
        // A temperature this small divides to infinity: it is greedy in all but name.
        if temperature == 0.0 || !(1.0 / temperature).is_finite() {
            return best;
        }
        let mut weights = std::mem::take(&mut self.weights);
        head::weights(scores, max, temperature, &mut weights);
        let weight = |token: u32| f64::from(weights[token as usize]);
        let top_k = if top_k == 0 { scores.len() } else { top_k.min(scores.len()) };
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..scores.len() as u32);
        if top_k < scores.len() {
            let (_, kth, _) = order.select_nth_unstable_by(top_k - 1, |a, b| by_score(scores, *a, *b));
            let threshold = scores[*kth as usize];
            order.clear();
            // What ties with the k-th stays, as in transformers.
            order.extend((0..scores.len() as u32).filter(|token| scores[*token as usize] >= threshold));
        }
        if top_p < 1.0 {
            keep_top_p(&mut order, scores, f64::from(top_p), weight);
        }
        if min_p > 0.0 {
            order.retain(|token| weight(*token) >= f64::from(min_p));
        }
        let token = draw(&order, weight, self.random.uniform()).unwrap_or(best);
        self.order = order;
        self.weights = weights;
        token
    }
}

/// Keeps the most probable tokens, in that order, until their mass reaches `top_p` of the whole; at least one.
fn keep_top_p(order: &mut Vec<u32>, scores: &[f32], top_p: f64, weight: impl Fn(u32) -> f64) {
    let goal = top_p * order.iter().map(|token| weight(*token)).sum::<f64>();
    let mut sorted = FIRST_SORTED.min(order.len());
    loop {
        if sorted < order.len() {
            order.select_nth_unstable_by(sorted - 1, |a, b| by_score(scores, *a, *b));
        }
        order[..sorted].sort_unstable_by(|a, b| by_score(scores, *a, *b));
        let mut mass = 0.0;
        let reached = order[..sorted].iter().position(|token| {
            mass += weight(*token);
            mass >= goal
        });
        if let Some(last) = reached {
            order.truncate(last + 1);
            return;
        }
        if sorted == order.len() {
            return;
        }
        sorted = (sorted * 8).min(order.len());
    }
}

/// The token at `uniform` (in [0, 1)) of the total weight.
fn draw(order: &[u32], weight: impl Fn(u32) -> f64, uniform: f64) -> Option<u32> {
    let goal = uniform * order.iter().map(|token| weight(*token)).sum::<f64>();
    let mut mass = 0.0;
    let found = order.iter().find(|token| {
        mass += weight(**token);
        mass > goal
    });
    // Rounding can leave the goal just unreached: then it is the last that weighs anything.
    found.or_else(|| order.iter().rev().find(|token| weight(**token) > 0.0)).copied()
}

/// Descending; equal scores by ascending id, so that every choice is one of a total order.
fn by_score(scores: &[f32], a: u32, b: u32) -> Ordering {
    scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b))
}

/// The lowest id of the largest score.
fn argmax(scores: &[f32]) -> u32 {
    // Two plain passes are faster than one that carries the place.
    let best = scores.iter().fold(f32::NEG_INFINITY, |best, &score| if score > best { score } else { best });
    scores.iter().position(|score| *score == best).unwrap_or(0) as u32
}

#[cfg(test)]
mod test;
