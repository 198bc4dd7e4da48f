use super::{Direction, Table, apply};
use crate::oracle::{assert_close, assert_deterministic, elements, random, tensor, weighted};
use candle_core::Var;

#[test]
fn agrees_with_candle() {
    for (tokens, heads, dim) in [(1, 1, 2), (17, 3, 16), (33, 2, 32), (65, 4, 64), (9, 1, 128)] {
        let table = Table::new(dim, 10_000.0, tokens);
        let (x, d_out) = (random(tokens * heads * dim, 1), random(tokens * heads * dim, 2));
        let var = Var::from_tensor(&tensor(&x, &[1, tokens, heads, dim])).unwrap();
        let (cos, sin) = (tensor(&table.cos, &[tokens, dim / 2]), tensor(&table.sin, &[tokens, dim / 2]));
        // candle wants [batch, heads, tokens, dim].
        let by_head = var.transpose(1, 2).unwrap().contiguous().unwrap();
        let turned = candle_nn::rotary_emb::rope_slow(&by_head, &cos, &sin).unwrap().transpose(1, 2).unwrap();
        let loss = (&turned * tensor(&d_out, &[1, tokens, heads, dim])).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();

        let positions: Vec<u32> = (0..tokens as u32).collect();
        let (mut out, mut d_x) = (x.clone(), d_out.clone());
        apply(&mut out, heads * dim, heads, dim, &positions, &table, Direction::Forward);
        apply(&mut d_x, heads * dim, heads, dim, &positions, &table, Direction::Backward);
        assert_close("out", &out, &elements(&turned), 1e-6);
        assert_close("d_x", &d_x, &elements(gradients.get(&var).unwrap()), 1e-6);
    }
}

/// The rotation is linear, so its transpose is its gradient: ⟨R·x, y⟩ = ⟨x, Rᵀ·y⟩, and RᵀR = 1.
#[test]
fn backward_is_the_transposed_rotation() {
    let (tokens, heads, dim) = (5, 2, 32);
    let table = Table::new(dim, 500_000.0, 900);
    let positions = [7, 899, 0, 3, 3];
    let (x, y) = (random(tokens * heads * dim, 1), random(tokens * heads * dim, 2));
    let turn = |x: &[f32], direction| {
        let mut x = x.to_vec();
        apply(&mut x, heads * dim, heads, dim, &positions, &table, direction);
        x
    };
    let (left, right) = (weighted(&turn(&x, Direction::Forward), &y), weighted(&x, &turn(&y, Direction::Backward)));
    assert!((left - right).abs() < 1e-5, "{left} and {right}");
    assert_close("back", &turn(&turn(&x, Direction::Forward), Direction::Backward), &x, 1e-6);
}

#[test]
fn the_table_holds_the_angles() {
    let table = Table::new(8, 10_000.0, 50);
    assert_eq!((table.positions(), table.cos.len()), (50, 50 * 4));
    for position in 0..50 {
        for pair in 0..4 {
            let angle = position as f64 / 10_000f64.powf(2.0 * pair as f64 / 8.0);
            let (cos, sin) = (table.cos[position * 4 + pair], table.sin[position * 4 + pair]);
            assert!((f64::from(cos) - angle.cos()).abs() < 5e-6 && (f64::from(sin) - angle.sin()).abs() < 5e-6);
        }
    }
}

#[test]
fn other_columns_are_left_alone() {
    let (tokens, heads, dim, stride) = (40, 3, 16, 64);
    let table = Table::new(dim, 10_000.0, tokens);
    let positions: Vec<u32> = (0..tokens as u32).rev().collect();
    let mut x = random(tokens * stride, 1);
    let before = x.clone();
    let mut compact: Vec<f32> = x.chunks(stride).flat_map(|row| &row[..heads * dim]).copied().collect();
    apply(&mut x, stride, heads, dim, &positions, &table, Direction::Forward);
    apply(&mut compact, heads * dim, heads, dim, &positions, &table, Direction::Forward);
    for ((row, before), compact) in x.chunks(stride).zip(before.chunks(stride)).zip(compact.chunks(heads * dim)) {
        assert_eq!(row[..heads * dim], *compact);
        assert_eq!(row[heads * dim..], before[heads * dim..]);
    }
}

#[test]
#[should_panic(expected = "row 0 stands at position 4, the table ends at 4")]
fn a_position_outside_the_table_is_named() {
    apply(&mut [0.0; 4], 4, 1, 4, &[4], &Table::new(4, 1e4, 4), Direction::Forward);
}

#[test]
fn same_bits_every_time() {
    let (tokens, heads, dim) = (200, 4, 64);
    let (table, x) = (Table::new(dim, 10_000.0, tokens), random(tokens * heads * dim, 1));
    let positions: Vec<u32> = (0..tokens as u32).collect();
    assert_deterministic("rope", || {
        let mut x = x.clone();
        apply(&mut x, heads * dim, heads, dim, &positions, &table, Direction::Forward);
        x
    });
}
