use super::Noise;

fn noise(alpha: f32, seed: u64, counter: u64, segments: &[u32], width: usize) -> Vec<f32> {
    let tokens = *segments.last().unwrap() as usize;
    let mut values = vec![0.0; tokens * width];
    Noise { alpha, seed, counter }.add(segments, width, &mut values);
    values
}

#[test]
fn is_uniform_up_to_its_reach_in_each_document() {
    let values = noise(5.0, 1, 0, &[0, 10, 410], 100);
    for (values, tokens) in [(&values[..1000], 10.0f32), (&values[1000..], 400.0)] {
        let reach = 5.0 / (tokens * 100.0).sqrt();
        let count = values.len() as f32;
        let mean = values.iter().sum::<f32>() / count;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / count;
        assert!(values.iter().all(|value| value.abs() <= reach));
        assert!(mean.abs() < 4.0 * reach / (3.0 * count).sqrt(), "{mean}");
        assert!((variance / (reach * reach / 3.0) - 1.0).abs() < 0.1, "{variance}");
    }
}

#[test]
fn is_a_function_of_seed_and_counter() {
    let one = noise(5.0, 1, 7, &[0, 4], 8);
    assert_eq!(one, noise(5.0, 1, 7, &[0, 4], 8));
    assert_ne!(one, noise(5.0, 2, 7, &[0, 4], 8));
    assert_ne!(one, noise(5.0, 1, 8, &[0, 4], 8));
    assert!(noise(0.0, 1, 7, &[0, 4], 8).iter().all(|&value| value == 0.0));
}

#[test]
fn a_token_reaches_as_far_as_its_document_lets_it() {
    let reaches = Noise { alpha: 6.0, seed: 1, counter: 0 }.reaches(&[0, 1, 1, 5], 9);
    assert_eq!(reaches, [2.0, 1.0, 1.0, 1.0, 1.0]);
}
