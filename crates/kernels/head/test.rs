use super::{Head, Stats, backward, forward, forward_backward, logits};
use crate::oracle::{assert_close, assert_deterministic, differences, elements, random, tensor, weighted};
use candle_core::{D, Device, Tensor, Var};

/// One problem: sizes, data, chunk.
struct Case {
    rows: usize,
    vocabulary: usize,
    width: usize,
    chunk: usize,
    hidden: Vec<f32>,
    weight: Vec<f32>,
    targets: Vec<u32>,
    coefficient: Vec<f32>,
}

impl Case {
    fn new(rows: usize, vocabulary: usize, width: usize, chunk: usize) -> Self {
        let scaled = |len, seed| random(len, seed).iter().map(|x| x * 2.0).collect::<Vec<f32>>();
        Self {
            rows,
            vocabulary,
            width,
            chunk,
            hidden: scaled(rows * width, 1),
            weight: scaled(vocabulary * width, 2),
            targets: (0..rows).map(|row| (row * 37 % vocabulary) as u32).collect(),
            coefficient: random(rows, 3),
        }
    }

    fn head(&self) -> Head<'_> {
        Head { weight: self.weight[..].into(), vocabulary: self.vocabulary, width: self.width, chunk: self.chunk }
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        forward(&self.head(), &self.hidden, &self.targets, &mut stats, &mut Vec::new());
        stats
    }

    /// d_hidden and d_weight, the latter on top of 0.5.
    fn gradients(&self) -> (Vec<f32>, Vec<f32>) {
        let (mut d_hidden, mut d_weight) = (vec![f32::NAN; self.hidden.len()], vec![0.5; self.weight.len()]);
        let lse = self.stats().lse;
        let (head, mut scratch) = (self.head(), vec![f32::NAN; 3]);
        let d = Some(&mut d_weight[..]);
        backward(&head, &self.hidden, &self.targets, &lse, &self.coefficient, &mut d_hidden, d, &mut scratch);
        (d_hidden, d_weight)
    }
}

fn cases() -> [Case; 5] {
    [
        Case::new(1, 2, 1, 4),
        Case::new(3, 17, 5, 2),
        Case::new(17, 33, 16, 5),
        Case::new(33, 1000, 64, 33),
        Case::new(65, 321, 48, 16),
    ]
}

#[test]
fn agrees_with_candle() {
    for case in cases() {
        let (rows, vocabulary, width) = (case.rows, case.vocabulary, case.width);
        let hidden = Var::from_tensor(&tensor(&case.hidden, &[rows, width])).unwrap();
        let weight = Var::from_tensor(&tensor(&case.weight, &[vocabulary, width])).unwrap();
        let targets = Tensor::new(&case.targets[..], &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        let their_logits = hidden.matmul(&weight.t().unwrap()).unwrap();
        let log_p = candle_nn::ops::log_softmax(&their_logits, D::Minus1).unwrap();
        let logp = log_p.gather(&targets, 1).unwrap().squeeze(1).unwrap();
        let entropy = (log_p.exp().unwrap() * &log_p).unwrap().sum(1).unwrap().neg().unwrap();
        let lse = their_logits.log_sum_exp(1).unwrap();
        let gradients = (&logp * tensor(&case.coefficient, &[rows])).unwrap().sum_all().unwrap().backward().unwrap();

        let stats = case.stats();
        assert_close("logp", &stats.logp, &elements(&logp), 1e-5);
        assert_close("lse", &stats.lse, &elements(&lse), 1e-5);
        assert_close("entropy", &stats.entropy, &elements(&entropy), 1e-5);
        assert_close("logit_mean", &stats.logit_mean, &elements(&their_logits.mean(1).unwrap()), 1e-5);
        let best: Vec<u32> = their_logits.argmax(1).unwrap().to_vec1().unwrap();
        let correct: Vec<bool> = best.iter().zip(&case.targets).map(|(best, target)| best == target).collect();
        assert_eq!(stats.correct, correct);

        let (d_hidden, d_weight) = case.gradients();
        assert_close("d_hidden", &d_hidden, &elements(gradients.get(&hidden).unwrap()), 2e-5);
        let expected: Vec<f32> = elements(gradients.get(&weight).unwrap()).iter().map(|x| x + 0.5).collect();
        assert_close("d_weight", &d_weight, &expected, 2e-5);

        let mut ours = vec![f32::NAN; rows * vocabulary];
        logits(&case.head(), &case.hidden, &mut ours);
        assert_close("logits", &ours, &elements(&their_logits), 1e-5);
    }
}

#[test]
fn agrees_with_finite_differences() {
    let mut case = Case::new(3, 19, 5, 2);
    case.hidden.iter_mut().chain(&mut case.weight).for_each(|x| *x *= 0.5);
    let loss = |hidden: &[f32], weight: &[f32]| {
        let mut stats = Stats::default();
        forward(&Head { weight: weight.into(), ..case.head() }, hidden, &case.targets, &mut stats, &mut Vec::new());
        weighted(&stats.logp, &case.coefficient)
    };
    let (d_hidden, mut d_weight) = case.gradients();
    d_weight.iter_mut().for_each(|x| *x -= 0.5);
    assert_close("d_hidden", &d_hidden, &differences(&case.hidden, |x| loss(x, &case.weight)), 5e-4);
    assert_close("d_weight", &d_weight, &differences(&case.weight, |x| loss(&case.hidden, x)), 5e-4);
}

#[test]
fn one_pass_equals_two_and_any_chunk_equals_any_other() {
    for mut case in cases() {
        let (stats, (d_hidden, d_weight)) = (case.stats(), case.gradients());
        let mut fused = (Stats::default(), vec![f32::NAN; case.hidden.len()], vec![0.5; case.weight.len()]);
        forward_backward(
            &case.head(),
            &case.hidden,
            &case.targets,
            &case.coefficient,
            &mut fused.1,
            Some(&mut fused.2),
            &mut fused.0,
            &mut Vec::new(),
        );
        assert_eq!(fused, (stats.clone(), d_hidden.clone(), d_weight.clone()));
        case.chunk = 3;
        let (again, (d_hidden3, d_weight3)) = (case.stats(), case.gradients());
        assert_close("logp", &again.logp, &stats.logp, 1e-5);
        assert_close("d_hidden", &d_hidden3, &d_hidden, 1e-5);
        assert_close("d_weight", &d_weight3, &d_weight, 1e-5);
    }
}

#[test]
fn a_tie_goes_to_the_first_token() {
    // Width 1: the logits are the weights. Tokens 1 and 3 tie at the top.
    let head = Head { weight: [0.0, 2.0, 1.0, 2.0][..].into(), vocabulary: 4, width: 1, chunk: 8 };
    let mut stats = Stats::default();
    forward(&head, &[1.0; 4], &[0, 1, 2, 3], &mut stats, &mut Vec::new());
    assert_eq!(stats.correct, [false, true, false, false]);
}

#[test]
fn large_logits_stay_finite_and_nan_is_not_hidden() {
    let head = Head { weight: [1e4, -1e4, 0.0][..].into(), vocabulary: 3, width: 1, chunk: 2 };
    let mut stats = Stats::default();
    forward(&head, &[1.0, 1.0, f32::NAN], &[0, 1, 0], &mut stats, &mut Vec::new());
    assert_eq!(stats.logp[..2], [0.0, -2e4]);
    assert_eq!(stats.entropy[..2], [0.0, 0.0]);
    assert!(stats.logp[2].is_nan() && !stats.correct[2]);
}

#[test]
fn stats_shrink_and_grow_with_the_call() {
    let case = Case::new(3, 17, 5, 2);
    let mut stats = Stats::default();
    let mut scratch = Vec::new();
    forward(&case.head(), &case.hidden, &case.targets, &mut stats, &mut scratch);
    forward(&case.head(), &case.hidden[..5], &case.targets[..1], &mut stats, &mut scratch);
    assert_eq!((stats.logp.len(), stats.correct.len()), (1, 1));
    forward(&case.head(), &[], &[], &mut stats, &mut scratch);
    assert!(stats.lse.is_empty());
}

#[test]
fn same_bits_every_time() {
    let case = Case::new(65, 999, 48, 16);
    assert_deterministic("head", || {
        let (stats, (d_hidden, d_weight)) = (case.stats(), case.gradients());
        [stats.logp, stats.lse, stats.entropy, stats.logit_mean, d_hidden, d_weight].concat()
    });
}
