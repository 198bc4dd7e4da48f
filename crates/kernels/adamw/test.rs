use super::{Config, step};
use crate::oracle::{assert_close, assert_deterministic, elements, random, tensor};
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

const CONFIG: Config =
    Config { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };

/// The paper's algorithm 2 in f64.
fn reference(p: &mut [f64], g: &[f32], m: &mut [f64], v: &mut [f64], c: &Config) {
    for i in 0..p.len() {
        let g = f64::from(g[i]) * f64::from(c.grad_scale);
        m[i] = c.beta1 * m[i] + (1.0 - c.beta1) * g;
        v[i] = c.beta2 * v[i] + (1.0 - c.beta2) * g * g;
        let (m, v) = (m[i] / (1.0 - c.beta1.powi(c.step as i32)), v[i] / (1.0 - c.beta2.powi(c.step as i32)));
        p[i] -= c.lr * (m / (v.sqrt() + c.eps) + c.weight_decay * p[i]);
    }
}

#[test]
fn agrees_with_the_paper_over_many_steps() {
    for beta1 in [0.0, 0.4, 0.9] {
        let len = 77;
        let mut p = random(len, 1);
        let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
        let mut p64: Vec<f64> = p.iter().map(|&x| x.into()).collect();
        let (mut m64, mut v64) = (vec![0.0; len], vec![0.0; len]);
        for number in 1..=50 {
            let g = random(len, 100 + number);
            let config = Config { step: number, grad_scale: 0.3, beta1, ..CONFIG };
            step(&mut p, &g, &mut m, &mut v, &config);
            reference(&mut p64, &g, &mut m64, &mut v64, &config);
        }
        let expected: Vec<f32> = p64.iter().map(|&x| x as f32).collect();
        assert_close("params", &p, &expected, 3e-6);
    }
}

#[test]
fn agrees_with_candle() {
    let len = 65;
    let start = random(len, 1);
    let var = Var::from_tensor(&tensor(&start, &[len])).unwrap();
    let params = ParamsAdamW { lr: CONFIG.lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
    let mut theirs = AdamW::new(vec![var.clone()], params).unwrap();
    let (mut p, mut m, mut v) = (start, vec![0.0; len], vec![0.0; len]);
    for number in 1..=10 {
        let g = random(len, 200 + number);
        let loss: Tensor = (var.as_tensor() * tensor(&g, &[len])).unwrap().sum_all().unwrap();
        theirs.backward_step(&loss).unwrap();
        step(&mut p, &g, &mut m, &mut v, &Config { step: number, ..CONFIG });
    }
    assert_close("params", &p, &elements(&var), 3e-6);
}

#[test]
fn a_first_step_by_hand() {
    // m = 0.05, v = 0.00025, both corrections undo the factors: p = 1·(1 − 0.001) − 0.01·0.5/(0.5 + 1e−8).
    let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
    step(&mut p, &[1.0], &mut m, &mut v, &Config { grad_scale: 0.5, ..CONFIG });
    assert_close("p", &p, &[0.989], 1e-7);
    assert_close("m", &m, &[0.05], 1e-7);
    assert_close("v", &v, &[0.00025], 1e-7);
}

#[test]
fn same_bits_every_time() {
    let (p, g, m, v) = (random(100_001, 1), random(100_001, 2), random(100_001, 3), random(100_001, 4));
    let v: Vec<f32> = v.iter().map(|v| v.abs()).collect();
    assert_deterministic("adamw", || {
        let (mut p, mut m, mut v) = (p.clone(), m.clone(), v.clone());
        step(&mut p, &g, &mut m, &mut v, &Config { step: 7, ..CONFIG });
        p.extend(m);
        p.extend(v);
        p
    });
}
