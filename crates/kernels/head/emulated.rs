use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, moves, random};
use zephyr_kernels::cuda::{Bf16, Pointer};
use zephyr_kernels::head::{self, Head, Stats, cuda};

const SOURCE: &str = "head/kernel.cu";

/// The twin on given logits: a head whose hidden rows are unit vectors and whose weight is the logits' transpose.
fn twin(logits: &[f32], targets: &[u32], coefficient: &[f32]) -> (Stats, Vec<f32>) {
    let (rows, vocabulary) = (targets.len(), logits.len() / targets.len());
    let mut hidden = vec![0.0; rows * rows];
    let mut weight = vec![0.0; vocabulary * rows];
    for row in 0..rows {
        hidden[row * rows + row] = 1.0;
        for token in 0..vocabulary {
            weight[token * rows + row] = logits[row * vocabulary + token];
        }
    }
    let head = Head { weight: weight[..].into(), vocabulary, width: rows, chunk: rows };
    let (mut stats, mut scratch) = (Stats::default(), Vec::new());
    head::forward(&head, &hidden, targets, &mut stats, &mut scratch);
    // The weight's gradient is that of the logits, transposed.
    let (mut d_hidden, mut d_weight) = (vec![0.0; rows * rows], vec![0.0; vocabulary * rows]);
    let d = Some(&mut d_weight[..]);
    head::backward(&head, &hidden, targets, &stats.lse, coefficient, &mut d_hidden, d, &mut scratch);
    let d_logits = (0..rows * vocabulary).map(|at| d_weight[at % vocabulary * rows + at / vocabulary]).collect();
    (stats, d_logits)
}

/// Within `tolerance` of a nat, and of the value.
fn near(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) -> Result<(), String> {
    match actual.iter().zip(expected).find(|(a, e)| (*a - *e).abs() > tolerance * (1.0 + e.abs())) {
        Some((a, e)) => Err(format!("{what} is {a} where {e} is expected")),
        None => Ok(()),
    }
}

fn on_device<T: Tested>(
    device: &Device,
    logits: &[T],
    logits32: &[f32],
    targets: &[u32],
    in_place: bool,
) -> Result<(), String> {
    let (rows, vocabulary) = (targets.len(), logits.len() / targets.len());
    let coefficient: Vec<f32> = (0..rows).map(|row| 0.3 - 0.2 * row as f32).collect();
    let (expected, d_expected) = twin(logits32, targets, &coefficient);
    let (logits, targets) = (device.upload("logits", logits), device.upload("targets", targets));
    let stats = cuda::Stats {
        logp: device.empty("logp", rows),
        lse: device.empty("lse", rows),
        entropy: device.empty("entropy", rows),
        log_collision: device.empty("log_collision", rows),
        logit_mean: device.empty("logit_mean", rows),
        correct: device.empty("correct", rows),
    };
    device.run(&cuda::statistics(logits, targets, &stats, rows, vocabulary))?;
    // All logits once, each target and its logit.
    moves(device, rows * (vocabulary + 1) * size_of::<T>() + 4 * rows, 21 * rows, None)?;
    near("logp", &device.download("logp", stats.logp, rows)?, &expected.logp, 1e-6)?;
    near("lse", &device.download("lse", stats.lse, rows)?, &expected.lse, 1e-6)?;
    near("entropy", &device.download("entropy", stats.entropy, rows)?, &expected.entropy, 3e-6)?;
    near(
        "log_collision",
        &device.download("log_collision", stats.log_collision, rows)?,
        &expected.log_collision,
        3e-6,
    )?;
    near("logit_mean", &device.download("logit_mean", stats.logit_mean, rows)?, &expected.logit_mean, 2e-6)?;
    let correct: Vec<bool> =
        device.download("correct", stats.correct, rows)?.iter().map(|&flag: &u8| flag == 1).collect();
    if correct != expected.correct {
        return Err(format!("correct is {correct:?}, not {:?}", expected.correct));
    }
    let coefficient = device.upload("coefficient", &coefficient);
    let d_logits = if in_place { Pointer::new(logits.address) } else { device.empty("d_logits", rows * vocabulary) };
    device.run(&cuda::gradient(logits, targets, stats.lse, coefficient, d_logits, rows, vocabulary))?;
    let found = device.download::<Bf16>("d_logits", d_logits, rows * vocabulary)?;
    // Rounded to bf16; and e^0 is 1 within 2^-22 only.
    match found.iter().zip(&d_expected).find(|(a, e)| (a.to_f32() - **e).abs() > e.abs() / 256.0 + 3e-7) {
        Some((a, e)) => Err(format!("d_logits is {} where {e} is expected", a.to_f32())),
        None => Ok(()),
    }
}

fn proof<T: Tested>(device: &Device, in_place: bool) -> Result<(), String> {
    for (rows, vocabulary) in [(1, 2), (3, 17), (2, 40), (4, 36), (5, 321), (3, 1000), (2, 5120)] {
        let (mut logits, mut logits32) = random::<T>(rows * vocabulary, 1, 12.0);
        let mut targets: Vec<u32> = (0..rows).map(|row| (row * 37 % vocabulary) as u32).collect();
        // The last row's target is its largest logit, which stands there twice: only the first place is correct.
        let last = (rows - 1) * vocabulary;
        for place in [vocabulary / 2, vocabulary - 1] {
            (logits[last + place], logits32[last + place]) = (T::from_f32(14.0), 14.0);
        }
        on_device(device, &logits, &logits32, &targets, in_place)?;
        targets[rows - 1] = (vocabulary / 2) as u32;
        on_device(device, &logits, &logits32, &targets, in_place)?;
    }
    // Far from 0, and all the same.
    on_device(
        device,
        &[T::from_f32(1e4), T::from_f32(-1e4), T::from_f32(0.0)],
        &widened::<T>(&[1e4, -1e4, 0.0]),
        &[1],
        in_place,
    )?;
    on_device(device, &[T::from_f32(-3.0); 72], &[-3.0; 72], &[71], in_place)
}

fn widened<T: Tested>(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| T::from_f32(value).to_f32()).collect()
}

#[test]
fn equals_its_twin_on_f32_logits() {
    prove(SOURCE, &|device| proof::<f32>(device, false));
}

#[test]
fn equals_its_twin_on_bf16_logits_in_their_place() {
    prove(SOURCE, &|device| proof::<Bf16>(device, true));
}

#[test]
fn a_nan_is_not_hidden() {
    prove(SOURCE, &|device| {
        for place in [0, 5, 700] {
            let mut logits = vec![0.5f32; 704];
            logits[place] = f32::NAN;
            let (logits, targets) = (device.upload("logits", &logits), device.upload("targets", &[3u32]));
            let floats = |name| device.empty::<f32>(name, 1);
            let stats = cuda::Stats {
                logp: floats("logp"),
                lse: floats("lse"),
                entropy: floats("entropy"),
                log_collision: floats("log_collision"),
                logit_mean: floats("logit_mean"),
                correct: device.empty("correct", 1),
            };
            device.run(&cuda::statistics(logits, targets, &stats, 1, 704))?;
            let logp = device.download("logp", stats.logp, 1)?[0];
            if !logp.is_nan() {
                return Err(format!("logp is {logp} beside a NaN"));
            }
        }
        Ok(())
    });
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let mutations = [
        Mutation { from: "other.place < part.place", to: "other.place > part.place", caught_by: "correct" },
        Mutation {
            from: "factor * fmaf(part.mass, shift, part.moment)",
            to: "factor * part.moment",
            caught_by: "entropy",
        },
        Mutation { from: "part.squares *= factor * factor", to: "part.squares *= factor", caught_by: "log_collision" },
        Mutation {
            from: "parts[warp_index()] = part;\n  __syncthreads();",
            to: "parts[warp_index()] = part;",
            caught_by: "parts",
        },
        Mutation { from: "column + i == target", to: "column == target", caught_by: "d_logits" },
        Mutation { from: "vocabulary % 8 == 0", to: "vocabulary % 4 == 0", caught_by: "of" },
    ];
    catches(SOURCE, &|device| proof::<f32>(device, false), &mutations);
}
