//! Logits of a padded batch as transformers' eager attention gives them, in f64 and by the book: TRL's ORPO and CPO take
//! their `logits/…` over padding too, which our engine never computes.

use zephyr_mistral::Weights;

/// `[T, width]`
type Rows = Vec<Vec<f64>>;

/// For each of `ids` the mean over the vocabulary of the logits after it. The first `length` are text, the rest is padding.
pub fn mean_logits(weights: &Weights, ids: &[u32], length: usize) -> Vec<f64> {
    let config = &weights.config;
    let layout = &weights.layout;
    let (hidden, inner, dim) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let mut x: Rows =
        ids.iter().map(|&id| floats(&weights.data[layout.embed.clone()][id as usize * hidden..][..hidden])).collect();
    for layer in &layout.layers {
        let matrix = |range: &std::ops::Range<usize>, x: &Rows| product(&weights.data[range.clone()], x);
        let norm = |range: &std::ops::Range<usize>, x: &Rows| {
            normed(&weights.data[range.clone()], config.rms_norm_eps.into(), x)
        };
        let qkv = matrix(&layer.qkv, &norm(&layer.input_norm, &x));
        let head = |row: usize, head: usize| turned(&qkv[row][head * dim..][..dim], row, config.rope_theta);
        let attended: Rows = (0..ids.len())
            .map(|row| {
                let mut out = Vec::new();
                for query in 0..config.heads {
                    let kv = query / (config.heads / config.kv_heads);
                    let q = head(row, query);
                    let seen = |key: usize| {
                        key <= row && key < length && config.sliding_window.is_none_or(|window| row < key + window)
                    };
                    let scores: Vec<f64> = (0..ids.len())
                        .map(|key| match seen(key) {
                            true => dot(&q, &head(key, config.heads + kv)) / (dim as f64).sqrt(),
                            // What is masked has the least number there is added: where all is, all is equal.
                            false => f64::from(f32::MIN),
                        })
                        .collect();
                    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    let values = (config.heads + config.kv_heads + kv) * dim;
                    out.extend((0..dim).map(|column| {
                        weights.iter().zip(&qkv).map(|(weight, row)| weight * row[values + column]).sum::<f64>() / sum
                    }));
                }
                out
            })
            .collect();
        add(&mut x, &matrix(&layer.o, &attended));
        let gate_up = matrix(&layer.gate_up, &norm(&layer.post_norm, &x));
        let activated = gate_up
            .iter()
            .map(|row| (0..inner).map(|index| row[index] / (1.0 + (-row[index]).exp()) * row[inner + index]).collect())
            .collect();
        add(&mut x, &matrix(&layer.down, &activated));
    }
    let x = normed(&weights.data[layout.final_norm.clone()], config.rms_norm_eps.into(), &x);
    let logits = product(&weights.data[layout.lm_head.clone()], &x);
    logits.iter().map(|row| row.iter().sum::<f64>() / row.len() as f64).collect()
}

fn floats(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut Rows, y: &Rows) {
    x.iter_mut().zip(y).for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
}

/// `x·Wᵀ`
fn product(matrix: &[f32], x: &Rows) -> Rows {
    let rows: Rows = matrix.chunks_exact(x[0].len()).map(floats).collect();
    x.iter().map(|x| rows.iter().map(|row| dot(row, x)).collect()).collect()
}

fn normed(weight: &[f32], eps: f64, x: &Rows) -> Rows {
    let normed = |x: &Vec<f64>| {
        let scale = (dot(x, x) / x.len() as f64 + eps).sqrt().recip();
        x.iter().zip(weight).map(|(x, &weight)| x * scale * f64::from(weight)).collect()
    };
    x.iter().map(normed).collect()
}

/// Rotary position embedding of a head at a position.
fn turned(x: &[f64], position: usize, theta: f64) -> Vec<f64> {
    let half = x.len() / 2;
    (0..x.len())
        .map(|index| {
            let frequency = theta.powf(-((index % half) as f64) / half as f64);
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            match index < half {
                true => x[index] * cos - x[index + half] * sin,
                false => x[index] * cos + x[index - half] * sin,
            }
        })
        .collect()
}
