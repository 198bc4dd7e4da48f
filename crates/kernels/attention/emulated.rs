use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, close, random, widen};
use zephyr_kernels::attention::cuda::{ForwardTile, Plan};
use zephyr_kernels::attention::{Shape, backward, forward};
use zephyr_kernels::cuda::Bf16;

#[path = "cached_emulated.rs"]
mod cached;
#[path = "hopper_emulated.rs"]
mod hopper;

const FORWARD: &str = "attention/forward.cu";
const BACKWARD: &str = "attention/backward.cu";
const PLAIN: &str = "attention/plain.cu";

/// Which kernels work on a batch, and on what tiles.
type Planned = fn(&Shape) -> Plan;

fn rows_64(shape: &Shape) -> Plan {
    Plan::new(shape, ForwardTile::Rows64)
}

fn rows_128(shape: &Shape) -> Plan {
    Plan::new(shape, ForwardTile::Rows128)
}

/// Segments as `(rows, prefix)`.
type Segments = &'static [(u32, u32)];

/// One batch.
#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    segments: Segments,
}

impl Case {
    fn with<R>(&self, body: impl FnOnce(&Shape) -> R) -> R {
        let mut segments = vec![0];
        for &(rows, _) in self.segments {
            segments.push(segments[segments.len() - 1] + rows);
        }
        let prefixes: Vec<u32> = self.segments.iter().map(|&(_, prefix)| prefix).collect();
        let Self { heads, kv_heads, head_dim, window, .. } = *self;
        let scale = 1.0 / (head_dim as f32).sqrt();
        body(&Shape { heads, kv_heads, head_dim, window, scale, segments: &segments, prefixes: &prefixes })
    }
}

/// One token; tails; several segments with an empty one; a window that ends in, at and after a tile; 1, 4 and 8 query heads
/// to a key/value head; a prompt shared by two and by several, at a tile's edge and not, with and without a window.
const CASES: [Case; 15] = [
    Case { heads: 1, kv_heads: 1, head_dim: 16, window: None, segments: &[(1, 0)] },
    Case { heads: 2, kv_heads: 1, head_dim: 16, window: Some(12), segments: &[(5, 0), (0, 0), (33, 0)] },
    Case { heads: 3, kv_heads: 1, head_dim: 32, window: None, segments: &[(63, 0), (64, 0), (65, 0)] },
    Case { heads: 1, kv_heads: 1, head_dim: 64, window: None, segments: &[(200, 0)] },
    Case { heads: 4, kv_heads: 1, head_dim: 64, window: Some(1), segments: &[(70, 0)] },
    Case { heads: 8, kv_heads: 1, head_dim: 64, window: Some(64), segments: &[(140, 0), (3, 0)] },
    Case { heads: 1, kv_heads: 1, head_dim: 64, window: Some(65), segments: &[(193, 0)] },
    Case { heads: 1, kv_heads: 1, head_dim: 32, window: Some(90), segments: &[(180, 0)] },
    Case { heads: 2, kv_heads: 2, head_dim: 96, window: Some(100), segments: &[(130, 0), (17, 0)] },
    Case { heads: 4, kv_heads: 1, head_dim: 128, window: None, segments: &[(129, 0), (1, 0)] },
    Case { heads: 2, kv_heads: 1, head_dim: 128, window: None, segments: &[(64 + 9, 0), (21, 64)] },
    Case { heads: 2, kv_heads: 1, head_dim: 64, window: None, segments: &[(50, 0), (70, 37), (90, 37)] },
    Case {
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        window: Some(40),
        segments: &[(80, 0), (66, 70), (0, 5), (9, 1), (20, 0)],
    },
    Case { heads: 1, kv_heads: 1, head_dim: 96, window: Some(70), segments: &[(4, 0), (6, 0), (66, 0), (70, 66)] },
    Case { heads: 1, kv_heads: 1, head_dim: 64, window: Some(9), segments: &[(150, 0), (40, 130)] },
];

/// Query and key rows at about one and a half, so that the softmax is neither flat nor a single key.
fn inputs<T: Tested>(shape: &Shape) -> (Vec<T>, Vec<f32>) {
    random(tokens(shape) * (shape.heads + 2 * shape.kv_heads) * shape.head_dim, 1, 1.5)
}

fn tokens(shape: &Shape) -> usize {
    shape.segments[shape.segments.len() - 1] as usize
}

/// The twin's output and log-sum-exps.
fn twin(qkv: &[f32], shape: &Shape) -> (Vec<f32>, Vec<f32>) {
    let sums = tokens(shape) * shape.heads;
    let (mut out, mut lse) = (vec![0.0; sums * shape.head_dim], vec![0.0; sums]);
    forward(qkv, shape, &mut out, &mut lse);
    (out, lse)
}

/// `tolerance`: of a head's row; P is rounded to bf16 before its product with V, and so is the result.
fn proof_forward<T: Tested>(device: &Device, case: &Case, plan: Planned, tolerance: f64) -> Result<(), String> {
    case.with(|shape| {
        let (qkv, qkv32) = inputs::<T>(shape);
        let (expected, expected_lse) = twin(&qkv32, shape);
        let plan = plan(shape);
        let (qkv, words) = (device.upload("qkv", &qkv), device.upload("plan", &plan.words));
        let (out, lse) = (device.empty("out", expected.len()), device.empty("lse", expected_lse.len()));
        device.run(&plan.forward(words, qkv, out, lse))?;
        no_conflicts(device)?;
        let found = device.download::<T>("out", out, expected.len())?;
        heads_close(&format!("out of {case:?}"), &found, &expected, shape.head_dim, tolerance)?;
        let found = device.download::<f32>("lse", lse, expected_lse.len())?;
        close(&format!("lse of {case:?}"), &found, &expected_lse, 2e-6)
    })
}

/// `tolerance`: of a head's row; P and dS are rounded to bf16 before their products, and so are the results.
fn proof_backward<T: Tested>(device: &Device, case: &Case, plan: Planned, tolerance: f64) -> Result<(), String> {
    case.with(|shape| {
        let (qkv, qkv32) = inputs::<T>(shape);
        let (out, lse) = twin(&qkv32, shape);
        let (d_out, d_out32) = random::<T>(out.len(), 2, 1.0);
        let out: Vec<T> = out.into_iter().map(T::from_f32).collect();
        let mut expected = vec![0.0; qkv.len()];
        backward(&d_out32, &qkv32, &widen(&out), &lse, shape, &mut expected);

        let plan = plan(shape);
        let words = device.upload("plan", &plan.words);
        let (qkv, d_out) = (device.upload("qkv", &qkv), device.upload("d_out", &d_out));
        let (out, lse) = (device.upload("out", &out), device.upload("lse", &lse));
        let row_sums = device.empty("row_sums", tokens(shape) * shape.heads);
        let d_qkv = device.empty("d_qkv", expected.len());
        for launch in plan.backward(words, d_out, qkv, out, lse, row_sums, d_qkv) {
            device.run(&launch)?;
            no_conflicts(device)?;
        }
        let found = device.download::<T>("d_qkv", d_qkv, expected.len())?;
        heads_close(&format!("d_qkv of {case:?}"), &found, &expected, shape.head_dim, tolerance)
    })
}

/// ldmatrix reads each eight rows at once.
fn no_conflicts(device: &Device) -> Result<(), String> {
    match device.statistics().bank_conflicts {
        0 => Ok(()),
        conflicts => Err(format!("{conflicts} bank conflicts")),
    }
}

/// Each row of a head within `tolerance` of the expected one by Euclidean norm, relative to its own plus a tenth of a usual
/// one. A single key too many or too few among n moves a row by about 1/√n of it.
fn heads_close<T: Tested>(
    what: &str,
    actual: &[T],
    expected: &[f32],
    head_dim: usize,
    tolerance: f64,
) -> Result<(), String> {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let whole = norm(&mut expected.iter().map(|&value| f64::from(value)));
    let usual = whole / ((expected.len() / head_dim) as f64).sqrt();
    for (row, (actual, expected)) in actual.chunks(head_dim).zip(expected.chunks(head_dim)).enumerate() {
        let pairs = || actual.iter().zip(expected).map(|(a, e)| (f64::from(a.to_f32()), f64::from(*e)));
        let (off, size) = (norm(&mut pairs().map(|(a, e)| a - e)), norm(&mut pairs().map(|(_, e)| e)));
        let off = off / (size + 0.1 * usual);
        if off.is_nan() || off > tolerance {
            return Err(format!("{what}: row {row} of {head_dim} is off by {off}"));
        }
    }
    Ok(())
}

#[test]
fn forward_equals_its_twin() {
    prove(FORWARD, &|device| CASES.iter().try_for_each(|case| in_bf16(device, case, rows_64)));
}

#[test]
fn forward_with_larger_tiles_equals_its_twin() {
    let wide = |case: &&Case| case.head_dim >= 64;
    prove(FORWARD, &|device| CASES.iter().filter(wide).try_for_each(|case| in_bf16(device, case, rows_128)));
}

#[test]
fn backward_equals_its_twin() {
    prove(BACKWARD, &|device| CASES.iter().try_for_each(|case| proof_backward::<Bf16>(device, case, rows_64, 5e-3)));
}

fn in_bf16(device: &Device, case: &Case, plan: Planned) -> Result<(), String> {
    proof_forward::<Bf16>(device, case, plan, 4e-3)
}

/// The smaller head dimensions, which mutants are tried on.
fn small() -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| case.head_dim <= 64)
}

fn plain(device: &Device) -> Result<(), String> {
    let odd = Case { heads: 2, kv_heads: 1, head_dim: 41, window: Some(7), segments: &[(9, 0), (12, 5)] };
    let large = Case { heads: 1, kv_heads: 1, head_dim: 128, window: None, segments: &[(5, 0)] };
    for case in CASES.iter().filter(|case| case.head_dim <= 32).chain([&odd, &large]) {
        proof_forward::<f32>(device, case, rows_64, 3e-6)?;
        proof_backward::<f32>(device, case, rows_64, 1e-5)?;
    }
    Ok(())
}

#[test]
fn f32_equals_its_twin() {
    prove(PLAIN, &plain);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_of_the_f32_kernels_are_caught() {
    let mutations = [
        Mutation { from: "if (number >= reader.keys) continue;", to: "", caught_by: "off by" },
        Mutation {
            from: "__syncwarp(); // the scores are there",
            to: "// the scores",
            caught_by: "nothing has written",
        },
        Mutation { from: "__syncwarp(); // the weights are done with", to: "// done with", caught_by: "race" },
        Mutation { from: "layout.kv_heads + kv_head) * dim;", to: "kv_head) * dim;", caught_by: "off by" },
        Mutation {
            from: "weights, first_seen(position, window), position + 1, dim",
            to: "weights, first_seen(position, window + 1), position + 1, dim",
            caught_by: "off by",
        },
        Mutation { from: "i * WARP + lane_index() < dim ? ", to: "true ? ", caught_by: "outside" },
        Mutation { from: "sums[i] *= factor;", to: "", caught_by: "off by" },
    ];
    catches(PLAIN, &plain, &mutations);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_of_the_forward_pass_are_caught() {
    let mutations = [
        // A barrier too few: keys, values, and what the copies have not brought yet.
        Mutation { from: "__syncthreads(); // these keys", to: "// these keys", caught_by: "nothing has written" },
        Mutation { from: "__syncthreads(); // the values", to: "// the values", caught_by: "race" },
        Mutation {
            from: "wait_copies<0>();\n      __syncthreads(); // the values",
            to: "__syncthreads(); // the values",
            caught_by: "waited for",
        },
        // The window by one, the diagonal by eight, a mask that is left out, a walk that ends too early or begins too late.
        Mutation { from: "first + KEYS - 1, window)", to: "first + KEYS - 9, window)", caught_by: "off by" },
        Mutation {
            from: "query = position(row + lane_index() / 4 + i / 2 * 8)",
            to: "query = position(row + lane_index() / 4 + i / 2 * 9)",
            caught_by: "off by",
        },
        Mutation { from: "!sees(query, key, window)", to: "!sees(query, key, window - 1)", caught_by: "is" },
        Mutation {
            from: "first_seen(queries.position, layout.window)",
            to: "first_seen(queries.position + 1, layout.window)",
            caught_by: "off by",
        },
        Mutation { from: "first < end; first += KEYS", to: "first + 1 < end; first += KEYS", caught_by: "" },
        // Fragments: another row, another half.
        Mutation {
            from: "scores[tile].at[2 * pair + 1], a[tile], b[2], b[3]",
            to: "scores[tile].at[2 * pair + 1], a[tile], b[3], b[2]",
            caught_by: "off by",
        },
        Mutation { from: "% 4 * 2 + i % 2;", to: "% 4 * 2 + i / 2;", caught_by: "off by" },
        // The sums of a row: lanes, the old ones' factor.
        Mutation { from: "total += __shfl_xor_sync(ALL_LANES, total, 2);", to: "", caught_by: "off by" },
        Mutation { from: "sums[tile].at[column][2 * half] *= factor;", to: "", caught_by: "off by" },
        Mutation { from: "fmaf(mass[tile][half], factor, total)", to: "mass[tile][half] + total", caught_by: "off by" },
        // Rows that are not there, heads that share keys.
        Mutation {
            from: "lane_index() % 4 == 0 && query < queries.rows",
            to: "lane_index() % 4 == 0",
            caught_by: "lse",
        },
        Mutation { from: "head / (layout.heads / layout.kv_heads)", to: "head % layout.kv_heads", caught_by: "off by" },
    ];
    catches(FORWARD, &|device| small().try_for_each(|case| in_bf16(device, case, rows_64)), &mutations);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_of_the_backward_pass_are_caught() {
    let mutations = [
        Mutation {
            from: "__syncthreads(); // these queries",
            to: "// these queries",
            caught_by: "nothing has written",
        },
        Mutation { from: "__syncthreads(); // dO, lse", to: "// dO, lse", caught_by: "" },
        Mutation { from: "__syncthreads(); // these keys", to: "// these keys", caught_by: "nothing has written" },
        Mutation { from: "__syncthreads(); // the values", to: "// the values", caught_by: "race" },
        Mutation {
            from: "shared + (2 + turn % 2) * SIZE}; };\n  float*",
            to: "shared + 2 * SIZE}; };\n  float*",
            caught_by: "waited for",
        },
        Mutation { from: "|| key >= visible", to: "|| key > visible", caught_by: "off by" },
        Mutation { from: " || visible < first_row + 16", to: "", caught_by: "off by" },
        Mutation {
            from: "!sees(position + first_query + HALF - 1, first_key, layout.window)",
            to: "!sees(position + first_query + HALF - 8, first_key, layout.window)",
            caught_by: "off by",
        },
        Mutation {
            from: "key = first_row + lane_index() / 4 + i / 2 * 8",
            to: "key = first_row + lane_index() / 4 + i % 2 * 8",
            caught_by: "off by",
        },
        Mutation {
            from: "(d_s.at[column][i] - tile_delta[query])",
            to: "(d_s.at[column][i] + tile_delta[query])",
            caught_by: "off by",
        },
        Mutation { from: "if (++number == count)", to: "if (++number >= 1)", caught_by: "off by" },
        Mutation {
            from: "write_rows(d_k, layout.scale, layout.scale",
            to: "write_rows(d_k, 1.0f, 1.0f",
            caught_by: "off by",
        },
        Mutation {
            from: "if (first < reader.rows) return;",
            to: "if (first + ROWS <= reader.rows) return;",
            caught_by: "",
        },
        Mutation { from: "-row_lse[i / 2]", to: "-row_lse[i % 2]", caught_by: "off by" },
        Mutation { from: "walk.row(), rows = walk.rows()", to: "walk.row(), rows = walk.rows() + 1", caught_by: "" },
    ];
    catches(
        BACKWARD,
        &|device| small().try_for_each(|case| proof_backward::<Bf16>(device, case, rows_64, 5e-3)),
        &mutations,
    );
}
