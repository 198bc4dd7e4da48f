//! An adapted product against candle's autograd, dropout and fused groups included.

use candle_core::{Device, Tensor, Var};
use serde_json::{Value, json};

use super::{Group, LoraScratch};
use crate::config::Config;
use crate::layout::Weights;
use crate::lora::dropout::key;
use crate::lora::{Adapter, LoraConfig};
use crate::model::Model;
use zephyr_kernels::dropout::Mask;

fn noise(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|at| ((at * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0).collect()
}

fn tensor(values: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn close(what: &str, found: &[f32], expected: &[f32]) {
    let norm = |values: &[f32]| values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    assert_eq!(found.len(), expected.len());
    let difference: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    assert!(norm(&difference) <= 1e-5 * norm(expected), "{what} is off by {:e}", norm(&difference) / norm(expected));
}

#[test]
fn an_adapted_product_agrees_with_candle() {
    let json = r#"{"model_type":"mistral","vocab_size":17,"hidden_size":24,"intermediate_size":40,"num_hidden_layers":1,
        "num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"sliding_window":null,"rms_norm_eps":1e-5,
        "hidden_act":"silu","max_position_embeddings":64,"rope_theta":10000.0,"initializer_range":0.3}"#;
    let weights = Weights::random(Config::from_json(json, "test").unwrap(), 3);
    for (dropout, targets) in
        [(0.0, json!("all-linear")), (0.25, json!("all-linear")), (0.0, json!(["v_proj", "up_proj"]))]
    {
        let Value::Object(fields) =
            json!({"target_modules": targets, "r": 3, "lora_alpha": 7, "lora_dropout": dropout})
        else {
            panic!()
        };
        let config = LoraConfig::from_fields(fields, "test").unwrap();
        let mut adapter = Adapter::new(config, &weights.config, 9).unwrap();
        let len = adapter.data.len();
        adapter.data.copy_from_slice(&noise(len, 4));
        let model = Model::adapted(&weights, &adapter);
        for group in [Group::Qkv, Group::O, Group::GateUp, Group::Down] {
            for rows in [3, 50] {
                let linear = model.linear(0, group);
                let (outputs, inputs) = linear.shape();
                let (x, d_y, start) = (noise(rows * inputs, 1), noise(rows * outputs, 2), noise(rows * outputs, 3));
                let mut scratch = LoraScratch::default();
                let mut y = start.clone();
                linear.forward(&mut y, &x, 1.0, Some(77), &mut scratch);
                let (mut d_x, mut gradients) = (vec![f32::NAN; x.len()], vec![0.5; len]);
                linear.backward(&d_y, &x, &mut d_x, &mut gradients, Some(77), &mut scratch);

                let input = Var::from_tensor(&tensor(&x, rows)).unwrap();
                let w = tensor(&weights.data[linear.range()], outputs);
                let mut parts = vec![(tensor(&start, rows) + input.matmul(&w.t().unwrap()).unwrap()).unwrap()];
                let mut variables = Vec::new();
                for (pair, _, _, columns) in linear.pairs() {
                    let a = Var::from_tensor(&tensor(&adapter.data[pair.a.clone()], pair.rank)).unwrap();
                    let b = Var::from_tensor(&tensor(&adapter.data[pair.b.clone()], columns.len())).unwrap();
                    let mut mask = vec![1.0; x.len()];
                    if dropout > 0.0 {
                        let key = key(&[77, 0, pair.projection as u64]);
                        Mask::new(key, dropout as f32).apply(&vec![1.0; x.len()], &mut mask);
                        assert!(mask.contains(&0.0));
                    }
                    let dropped = (input.as_tensor() * tensor(&mask, rows)).unwrap();
                    let low = dropped.matmul(&a.t().unwrap()).unwrap();
                    let delta = (low.matmul(&b.t().unwrap()).unwrap() * f64::from(pair.scale)).unwrap();
                    let right = outputs - columns.end;
                    parts.push(delta.pad_with_zeros(1, columns.start, right).unwrap());
                    variables.push((pair, a, b));
                }
                let sum = parts[1..].iter().fold(parts[0].clone(), |sum, part| (sum + part).unwrap());
                close("y", &y, &flat(&sum));
                let loss = (&sum * tensor(&d_y, rows)).unwrap().sum_all().unwrap();
                let expected = loss.backward().unwrap();
                close("d_x", &d_x, &flat(expected.get(&input).unwrap()));
                let mut found = gradients.iter().map(|value| value - 0.5).collect::<Vec<_>>();
                for (pair, a, b) in variables {
                    close("d_a", &found[pair.a.clone()], &flat(expected.get(&a).unwrap()));
                    close("d_b", &found[pair.b.clone()], &flat(expected.get(&b).unwrap()));
                    found[pair.a.clone()].fill(0.0);
                    found[pair.b.clone()].fill(0.0);
                }
                assert!(found.iter().all(|&value| value == 0.0), "nothing else has a gradient");
            }
        }
    }
}
