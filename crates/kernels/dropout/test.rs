use super::Mask;

#[test]
fn the_share_and_the_mean_are_those_asked_for() {
    for probability in [0.05f32, 0.5, 0.9] {
        let x = vec![1.0; 200_000];
        let mut out = vec![0.0; x.len()];
        Mask::new(0x1234_5678_9abc, probability).apply(&x, &mut out);
        let dropped = out.iter().filter(|&&value| value == 0.0).count() as f64 / x.len() as f64;
        assert!((dropped - f64::from(probability)).abs() < 5e-3, "{dropped} of {probability}");
        let mean = out.iter().map(|&value| f64::from(value)).sum::<f64>() / x.len() as f64;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
    }
}

#[test]
fn masks_differ_by_key_and_repeat_by_key() {
    let x: Vec<f32> = (1..40_000).map(|i| i as f32).collect();
    let of = |key| {
        let mut out = vec![0.0; x.len()];
        Mask::new(key, 0.3).apply(&x, &mut out);
        let mut sum = vec![0.0; x.len()];
        Mask::new(key, 0.3).add(&x, &mut sum);
        assert_eq!(out, sum);
        out
    };
    assert_eq!(of(12), of(12));
    assert_ne!(of(12), of(21));
}
