use crate::oracle::{assert_close, assert_deterministic, elements, random, tensor};
use candle_core::{Device, Tensor, Var};

#[test]
fn agrees_with_candle() {
    for (rows, width, tokens) in [(7, 3, 1), (50, 17, 33), (300, 64, 65), (900, 576, 200)] {
        let table = random(rows * width, 1);
        let ids: Vec<u32> = (0..tokens as u32).map(|t| (t * t + 3) % rows as u32 / 2).collect();
        let d_out = random(tokens * width, 2);

        let variable = Var::from_tensor(&tensor(&table, &[rows, width])).unwrap();
        let picked = variable.index_select(&Tensor::new(&ids[..], &Device::Cpu).unwrap(), 0).unwrap();
        let loss = (&picked * tensor(&d_out, &[tokens, width])).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();

        let mut out = vec![f32::NAN; tokens * width];
        super::forward(&table, width, &ids, &mut out);
        assert_eq!(out, elements(&picked));
        let mut d_table = vec![0.5; rows * width];
        super::backward(&d_out, width, &ids, &mut d_table);
        let expected: Vec<f32> = elements(gradients.get(&variable).unwrap()).iter().map(|x| x + 0.5).collect();
        assert_close("d_table", &d_table, &expected, 1e-5);
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let (width, tokens, rows) = (64, 2000, 97);
    let d_out = random(tokens * width, 3);
    let ids: Vec<u32> = (0..tokens as u32).map(|t| t * 31 % rows).collect();
    let run = || {
        let mut d_table = vec![0.0; rows as usize * width];
        super::backward(&d_out, width, &ids, &mut d_table);
        d_table
    };
    assert_deterministic("d_table", run);
    assert_eq!(crate::oracle::with_threads(1, run), crate::oracle::with_threads(3, run));
}

#[test]
#[should_panic(expected = "token 1 has id 4, the table 4 rows")]
fn an_id_outside_the_table_is_named() {
    super::forward(&[0.0; 8], 2, &[3, 4], &mut [0.0; 4]);
}
