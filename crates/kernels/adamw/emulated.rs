use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, oracle, random, same, widen};
use zephyr_kernels::adamw::cuda::{self, Codes, Moments, Weights};
use zephyr_kernels::adamw::{BLOCK, Blocks, Config, split, step, step_8bit};
use zephyr_kernels::cuda::{Bf16, Pointer};

const SOURCE: &str = "adamw/kernel.cu";
const CONFIG: Config =
    Config { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 0.75 };
/// A tail of every kind, several blocks of moments and of threads, and a last block of moments that is not full.
const LENGTHS: [usize; 5] = [1, 9, 256, 777, 2 * 2048 + 8];
const STEPS: u64 = 3;

/// Weights on the device in one of their forms, whose exact f32 can be read back.
struct Held {
    weights: Weights,
    len: usize,
}

impl Held {
    fn new(device: &Device, start: &[f32], halves: bool) -> Self {
        let len = start.len();
        let weights = if halves {
            let (mut upper, mut rests) = (start.to_vec(), vec![0; len]);
            split(&mut upper, &mut rests);
            let upper: Vec<Bf16> = upper.iter().map(|&value| Bf16::from_f32(value)).collect();
            Weights::Split { weights: device.upload("weights", &upper), rests: device.upload("rests", &rests) }
        } else {
            Weights::Full { params: device.upload("params", start), copy: Some(device.empty("copy", len)) }
        };
        Self { weights, len }
    }

    /// The exact weights; an error if what the forward pass would see is not their bf16.
    fn read(&self, device: &Device) -> Result<Vec<f32>, String> {
        match self.weights {
            Weights::Full { params, copy } => {
                let exact = device.download("params", params, self.len)?;
                let copy = device.download("copy", copy.expect("held with a copy"), self.len)?;
                let rounded: Vec<Bf16> = exact.iter().map(|&value| Bf16::from_f32(value)).collect();
                if copy == rounded { Ok(exact) } else { Err("the copy is not the weights' bf16".into()) }
            }
            Weights::Split { weights, rests } => {
                let mut exact = widen(&device.download("weights", weights, self.len)?);
                zephyr_kernels::adamw::join(&mut exact, &device.download("rests", rests, self.len)?);
                Ok(exact)
            }
        }
    }
}

/// Gradients of a step: none of them small against the others of its block, one exactly 0.
fn gradients<G: Tested>(len: usize, number: u64) -> (Vec<G>, Vec<f32>) {
    let (mut gradients, mut gradients32) = random::<G>(len, 40 + number, 0.3);
    (gradients[len / 2], gradients32[len / 2]) = (G::from_f32(0.0), 0.0);
    (gradients, gradients32)
}

fn full_moments<G: Tested>(device: &Device) -> Result<(), String> {
    for len in LENGTHS {
        for halves in [false, true] {
            let mut expected = oracle::random(len, 1);
            let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
            let held = Held::new(device, &expected, halves);
            let (m_there, v_there) = (device.upload("m", &m), device.upload("v", &v));
            let grad_scale = device.upload("grad_scale", &[CONFIG.grad_scale]);
            for number in 1..=STEPS {
                let (g, g32) = gradients::<G>(len, number);
                let config = Config { step: number, ..CONFIG };
                step(&mut expected, &g32, &mut m, &mut v, &config);
                let moments = Moments::Full { m: m_there, v: v_there };
                device.run(&cuda::step(held.weights, device.upload("g", &g), moments, len, grad_scale, &config))?;
            }
            same("params", &held.read(device)?, &expected)?;
            same("m", &device.download("m", m_there, len)?, &m)?;
            same("v", &device.download("v", v_there, len)?, &v)?;
        }
    }
    Ok(())
}

fn coded_moments<G: Tested>(device: &Device) -> Result<(), String> {
    let tables = device.upload("tables", &cuda::tables());
    for len in LENGTHS {
        for halves in [false, true] {
            let mut expected = oracle::random(len, 1);
            let (mut m, mut v) = (Blocks::zeros(len, true), Blocks::zeros(len, false));
            let held = Held::new(device, &expected, halves);
            let there = |name: &str, blocks: &Blocks| Codes {
                codes: device.upload(&format!("{name}.codes"), &blocks.codes),
                scales: device.upload(&format!("{name}.scales"), &blocks.scales),
            };
            let (m_there, v_there) = (there("m", &m), there("v", &v));
            let grad_scale = device.upload("grad_scale", &[CONFIG.grad_scale]);
            for number in 1..=STEPS {
                let (g, g32) = gradients::<G>(len, number);
                let config = Config { step: number, ..CONFIG };
                step_8bit(&mut expected, &g32, &mut m, &mut v, &config);
                let moments = Moments::Coded { m: m_there, v: v_there, tables };
                device.run(&cuda::step(held.weights, device.upload("g", &g), moments, len, grad_scale, &config))?;
                same("params", &held.read(device)?, &expected)?;
                for (name, there, blocks) in [("m", m_there, &m), ("v", v_there, &v)] {
                    if device.download(name, there.codes, len)? != blocks.codes {
                        return Err(format!("codes of {name} differ in step {number}"));
                    }
                    let scales = device.download(name, there.scales, len.div_ceil(BLOCK))?;
                    same(&format!("scales of {name}"), &scales, &blocks.scales)?;
                }
            }
        }
    }
    Ok(())
}

/// Every value of both maps, every middle and its neighbours, both signs, through `step`: with β = 0 the moments are the
/// gradient and its square, so that what is encoded can be chosen.
fn every_code(device: &Device) -> Result<(), String> {
    let tables = cuda::tables();
    let (signed, unsigned) = tables.split_at(511);
    let neighbours = |&value: &f32| [value.next_down(), value, value.next_up()];
    let mut first: Vec<f32> = signed.iter().flat_map(neighbours).filter(|value| value.abs() <= 1.0).collect();
    first.extend(unsigned.iter().flat_map(neighbours).filter(|value| *value > 0.0).map(f32::sqrt));
    // One 1 in each block, so that its scale is 1.
    let g: Vec<f32> = first.chunks(BLOCK - 1).flat_map(|part| part.iter().copied().chain([1.0])).collect();
    let config = Config { beta1: 0.0, beta2: 0.0, grad_scale: 1.0, ..CONFIG };
    let len = g.len();
    let (mut params, mut m, mut v) = (vec![0.0; len], Blocks::zeros(len, true), Blocks::zeros(len, false));
    let held = Held::new(device, &params, false);
    let there = |blocks: &Blocks| Codes {
        codes: device.upload("codes", &blocks.codes),
        scales: device.upload("scales", &blocks.scales),
    };
    let (m_there, v_there) = (there(&m), there(&v));
    step_8bit(&mut params, &g, &mut m, &mut v, &config);
    let moments = Moments::Coded { m: m_there, v: v_there, tables: device.upload("tables", &tables) };
    let grad_scale = device.upload("grad_scale", &[1.0f32]);
    device.run(&cuda::step(held.weights, device.upload("g", &g), moments, len, grad_scale, &config))?;
    for (name, there, blocks) in [("m", m_there, &m), ("v", v_there, &v)] {
        let found = device.download(name, there.codes, len)?;
        if let Some(at) = (0..len).find(|&at| found[at] != blocks.codes[at]) {
            return Err(format!("{name} of {:e} has code {}, not {}", g[at], found[at], blocks.codes[at]));
        }
    }
    Ok(())
}

/// bf16 moments follow those of f32: no drift over many steps, where rounding to the nearest would stand still.
fn halved_moments(device: &Device) -> Result<(), String> {
    let len = 515;
    let start = oracle::random(len, 1);
    // A second moment of 1 that has to shrink by a thousandth a step.
    let (mut expected, mut m, mut v) = (start.clone(), vec![0.0; len], vec![1.0; len]);
    let (zeros, ones) = (vec![Bf16::default(); len], vec![Bf16::from_f32(1.0); len]);
    for halves in [false, true] {
        let held = Held::new(device, &start, halves);
        let (m_there, v_there) = (device.upload("m", &zeros), device.upload("v", &ones));
        let grad_scale = device.upload("grad_scale", &[1.0f32]);
        for number in 1..=60 {
            let g: Vec<f32> =
                oracle::random(len, 90 + number).iter().zip(&start).map(|(noise, start)| start + noise).collect();
            let config = Config { step: number, grad_scale: 1.0, weight_decay: 0.0, ..CONFIG };
            if !halves {
                step(&mut expected, &g, &mut m, &mut v, &config);
            }
            let moments = Moments::Bf16 { m: m_there, v: v_there, seed: number as u32 };
            device.run(&cuda::step(held.weights, device.upload("g", &g), moments, len, grad_scale, &config))?;
        }
        let mean = |values: &[f32]| values.iter().map(|&value| f64::from(value)).sum::<f64>() / len as f64;
        let found = widen(&device.download("v", v_there, len)?);
        let bias = mean(&found) / mean(&v) - 1.0;
        if bias.abs() > 2e-3 {
            return Err(format!("second moments are off by {bias} on average"));
        }
        let moved = |to: &[f32]| to.iter().zip(&start).map(|(to, from)| f64::from(to - from)).collect::<Vec<f64>>();
        let (ours, theirs) = (moved(&held.read(device)?), moved(&expected));
        let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let apart: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a - b).collect();
        if norm(&apart) > 0.01 * norm(&theirs) {
            return Err(format!("weights are {} apart after moving {}", norm(&apart), norm(&theirs)));
        }
    }
    Ok(())
}

/// A gradient that is not finite leaves everything as it was.
fn skipping(device: &Device) -> Result<(), String> {
    let start = oracle::random(300, 1);
    let held = Held { weights: Weights::Full { params: device.upload("params", &start), copy: None }, len: 300 };
    let Weights::Full { params, .. } = held.weights else { unreachable!("as made above") };
    let moments = oracle::random(300, 2);
    let (m, v) = (device.upload("m", &moments), device.upload("v", &moments));
    let g: Pointer<f32> = device.upload("g", &vec![f32::NAN; 300]);
    for scale in [f32::NAN, f32::INFINITY] {
        let scale = device.upload("grad_scale", &[scale]);
        device.run(&cuda::step(held.weights, g, Moments::Full { m, v }, 300, scale, &CONFIG))?;
        same("params", &device.download("params", params, 300)?, &start)?;
        same("m", &device.download("m", m, 300)?, &moments)?;
    }
    Ok(())
}

/// Weights without a gradient stay to the last bit, whatever they are: halfway between two bf16, at the ends, tiny.
fn resting(device: &Device) -> Result<(), String> {
    let mut start = oracle::random(400, 7);
    let halfway = 1.0 + 1.0 / 256.0;
    let special = [halfway, -halfway, halfway + 1.0 / 128.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, 0.0];
    start[..special.len()].copy_from_slice(&special);
    let config = Config { weight_decay: 0.0, ..CONFIG };
    let (held, zeros) = (Held::new(device, &start, true), vec![0.0f32; 400]);
    let moments = Moments::Full { m: device.upload("m", &zeros), v: device.upload("v", &zeros) };
    let (g, grad_scale) = (device.upload("g", &zeros), device.upload("grad_scale", &[1.0f32]));
    device.run(&cuda::step(held.weights, g, moments, 400, grad_scale, &config))?;
    same("weights at rest", &held.read(device)?, &start)
}

#[test]
fn f32_moments_have_the_bits_of_the_twin() {
    prove(SOURCE, &full_moments::<f32>);
    prove(SOURCE, &full_moments::<Bf16>);
    prove(SOURCE, &resting);
}

#[test]
fn coded_moments_have_the_bits_of_the_twin() {
    prove(SOURCE, &coded_moments::<f32>);
    prove(SOURCE, &coded_moments::<Bf16>);
    prove(SOURCE, &every_code);
}

#[test]
fn bf16_moments_follow_those_of_f32() {
    prove(SOURCE, &halved_moments);
}

#[test]
fn an_update_that_is_not_finite_is_left_out() {
    prove(SOURCE, &skipping);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_are_caught() {
    let whole = |device: &Device| {
        full_moments::<f32>(device)?;
        coded_moments::<f32>(device)?;
        every_code(device)?;
        resting(device)?;
        skipping(device)
    };
    let mutations = [
        Mutation { from: "(bits + 0x8000u)", to: "(bits + 0x7fffu + (bits >> 16 & 1u))", caught_by: "weights at rest" },
        Mutation { from: "while (guess > 0 && !(middles[guess - 1] < value)) --guess;", to: "", caught_by: "code" },
        Mutation { from: "while (guess < 255 && middles[guess] < value) ++guess;", to: "", caught_by: "code" },
        Mutation {
            from: "middles[guess] < value) ++guess;\n  while (guess > 0 && !(middles[guess - 1] < value))",
            to: "middles[guess] <= value) ++guess;\n  while (guess > 0 && middles[guess - 1] > value)",
            caught_by: "code",
        },
        Mutation { from: "&& code[i] == 0) code[i] = 1", to: "&& code[i] == 0) code[i] = 0", caught_by: "code" },
        Mutation { from: "if (lane_index() == 0) {\n      m_scale", to: "{\n      m_scale", caught_by: "race" },
        Mutation {
            from: "maps[at] = moments.maps[at];\n  __syncthreads();",
            to: "maps[at] = moments.maps[at];",
            caught_by: "maps",
        },
        Mutation {
            from: "const float square = v * s.beta2 + s.weight2 * gradient * gradient",
            to: "const float square = fmaf(v, s.beta2, s.weight2 * gradient * gradient)",
            caught_by: "exactly",
        },
        Mutation {
            from: "if (aligned && first + RUN <= len) update_run",
            to: "if (first < len) update_run",
            caught_by: "outside",
        },
    ];
    catches(SOURCE, &whole, &mutations);
    let rounded = "(__float_as_uint(second[i]) + (chance >> 16)) >> 16";
    let nearest =
        [Mutation { from: rounded, to: "(__float_as_uint(second[i]) + 0x8000u) >> 16", caught_by: "second moments" }];
    catches(SOURCE, &halved_moments, &nearest);
}
