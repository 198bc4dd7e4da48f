use crate::oracle::{assert_close, assert_deterministic, differences, elements, random, tensor, weighted};
use candle_core::Var;

fn run_forward(gate_up: &[f32], width: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; gate_up.len() / 2];
    super::forward(gate_up, width, &mut out);
    out
}

#[test]
fn agrees_with_candle() {
    for (rows, width) in [(1, 1), (1, 17), (3, 33), (2, 65), (40, 1536)] {
        let gate_up: Vec<f32> = random(rows * 2 * width, 1).iter().map(|x| x * 8.0).collect();
        let d_out = random(rows * width, 2);
        let var = Var::from_tensor(&tensor(&gate_up, &[rows, 2 * width])).unwrap();
        let (gate, up) = (var.narrow(1, 0, width).unwrap(), var.narrow(1, width, width).unwrap());
        // silu from slow parts: x / (1 + e^−x)
        let silu = (&gate / (gate.neg().unwrap().exp().unwrap() + 1.0).unwrap()).unwrap();
        let out = (silu * up).unwrap();
        let gradients = (&out * tensor(&d_out, &[rows, width])).unwrap().sum_all().unwrap().backward().unwrap();

        assert_close("out", &run_forward(&gate_up, width), &elements(&out), 1e-6);
        let mut d_gate_up = gate_up.clone();
        super::backward(&d_out, width, &mut d_gate_up);
        assert_close("d_gate_up", &d_gate_up, &elements(gradients.get(&var).unwrap()), 1e-5);
    }
}

#[test]
fn agrees_with_finite_differences() {
    let (rows, width) = (2, 19);
    let (gate_up, d_out) = (random(rows * 2 * width, 3), random(rows * width, 4));
    let expected = differences(&gate_up, |x| weighted(&run_forward(x, width), &d_out));
    let mut d_gate_up = gate_up;
    super::backward(&d_out, width, &mut d_gate_up);
    assert_close("d_gate_up", &d_gate_up, &expected, 3e-4);
}

#[test]
fn saturates_without_nan() {
    let gate_up = [-1e4, -100.0, -0.0, 100.0, 1e4, 1.0, 1.0, 1.0, 1.0, 1.0];
    assert_eq!(run_forward(&gate_up, 5), [-0.0, -0.0, -0.0, 100.0, 1e4]);
    let mut d_gate_up = gate_up;
    super::backward(&[1.0; 5], 5, &mut d_gate_up);
    assert_eq!(d_gate_up, [-0.0, -0.0, 0.5, 1.0, 1.0, -0.0, -0.0, -0.0, 100.0, 1e4]);
}

#[test]
fn same_bits_every_time() {
    let (rows, width) = (33, 577);
    let (gate_up, d_out) = (random(rows * 2 * width, 1), random(rows * width, 2));
    assert_deterministic("swiglu", || {
        let mut all = run_forward(&gate_up, width);
        let mut d_gate_up = gate_up.clone();
        super::backward(&d_out, width, &mut d_gate_up);
        all.extend(d_gate_up);
        all
    });
}
