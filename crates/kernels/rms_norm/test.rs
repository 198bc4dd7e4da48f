use crate::oracle::{assert_close, assert_deterministic, differences, elements, random, tensor, weighted};
use candle_core::Var;

const EPS: f32 = 1e-5;
const SIZES: [(usize, usize); 7] = [(1, 1), (1, 16), (3, 17), (2, 33), (5, 65), (70, 576), (33, 1000)];

fn run_forward(x: &[f32], weight: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut out, mut rstd) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len() / weight.len()]);
    super::forward(x, weight, EPS, &mut out, &mut rstd);
    (out, rstd)
}

#[test]
fn agrees_with_candle() {
    for (rows, width) in SIZES {
        let (x, weight, d_out) = (random(rows * width, 1), random(width, 2), random(rows * width, 3));
        let x_var = Var::from_tensor(&tensor(&x, &[rows, width])).unwrap();
        let weight_var = Var::from_tensor(&tensor(&weight, &[width])).unwrap();
        let normed = candle_nn::ops::rms_norm_slow(&x_var, &weight_var, EPS).unwrap();
        let loss = (&normed * tensor(&d_out, &[rows, width])).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();

        let (out, rstd) = run_forward(&x, &weight);
        assert_close("out", &out, &elements(&normed), 1e-5);
        // Both gradients are added to what is there.
        let (mut d_x, mut d_weight) = (vec![0.25; x.len()], vec![-0.5; width]);
        super::backward(&d_out, &x, &weight, &rstd, &mut d_x, Some(&mut d_weight));
        let expected = |var: &Var, start: f32| -> Vec<f32> {
            elements(gradients.get(var).unwrap()).iter().map(|x| x + start).collect()
        };
        assert_close("d_x", &d_x, &expected(&x_var, 0.25), 2e-5);
        assert_close("d_weight", &d_weight, &expected(&weight_var, -0.5), 2e-5);
        let mut without = vec![0.25; x.len()];
        super::backward(&d_out, &x, &weight, &rstd, &mut without, None);
        assert_eq!(without, d_x);
    }
}

#[test]
fn agrees_with_finite_differences() {
    let (rows, width) = (3, 19);
    let (x, weight, d_out) = (random(rows * width, 4), random(width, 5), random(rows * width, 6));
    let (_, rstd) = run_forward(&x, &weight);
    let (mut d_x, mut d_weight) = (vec![0.0; x.len()], vec![0.0; width]);
    super::backward(&d_out, &x, &weight, &rstd, &mut d_x, Some(&mut d_weight));
    assert_close("d_x", &d_x, &differences(&x, |x| weighted(&run_forward(x, &weight).0, &d_out)), 3e-4);
    assert_close("d_weight", &d_weight, &differences(&weight, |w| weighted(&run_forward(&x, w).0, &d_out)), 3e-4);
}

#[test]
fn the_fused_residual_equals_adding_first() {
    for (rows, width) in SIZES {
        let (x, delta, weight) = (random(rows * width, 1), random(rows * width, 2), random(width, 3));
        let sum: Vec<f32> = x.iter().zip(&delta).map(|(x, delta)| x + delta).collect();
        let expected = run_forward(&sum, &weight);
        let (mut residual, mut out, mut rstd) = (x, vec![f32::NAN; rows * width], vec![f32::NAN; rows]);
        super::forward_add(&mut residual, &delta, &weight, EPS, &mut out, &mut rstd);
        assert_eq!((residual, (out, rstd)), (sum, expected));
    }
}

#[test]
fn same_bits_every_time() {
    let (rows, width) = (99, 577);
    let (x, weight, d_out) = (random(rows * width, 1), random(width, 2), random(rows * width, 3));
    assert_deterministic("rms_norm", || {
        let (mut all, rstd) = run_forward(&x, &weight);
        let (mut d_x, mut d_weight) = (vec![0.0; x.len()], vec![0.0; width]);
        super::backward(&d_out, &x, &weight, &rstd, &mut d_x, Some(&mut d_weight));
        all.extend(d_x);
        all.extend(d_weight);
        all
    });
}
