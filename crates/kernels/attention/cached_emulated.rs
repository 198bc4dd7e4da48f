//! Attention over pages of keys and values.

use super::heads_close;
use crate::emulator::{Device, Mutation, catches, prove};
use crate::{Tested, moves, random};
use zephyr_kernels::attention::cuda::{CachePlan, PAGE, Piece, page_elements};
use zephyr_kernels::attention::{Cache, CacheShape, CacheType, Sequence, cached};
use zephyr_kernels::cuda::{Bf16, Pointer};

const SOURCE: &str = "attention/cached.cu";
/// Of a page; the other one holds other keys and values.
const LAYERS: usize = 2;
const LAYER: usize = 1;

/// One step; `sequences` are tokens that are there before, and new ones.
#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    sequences: &'static [(usize, usize)],
}

/// The first token; one behind a page's end, at it and before it; nothing new; several sequences of different lengths, one of
/// them a prompt; keys of several stretches; a window that ends in, at and after a tile of keys, and one that a stretch lies
/// before for some of its tokens; 1, 3, 4 and 8 query heads to a key/value head.
const CASES: [Case; 10] = [
    Case { heads: 1, kv_heads: 1, head_dim: 16, window: None, sequences: &[(0, 1)] },
    Case { heads: 4, kv_heads: 1, head_dim: 16, window: None, sequences: &[(63, 1), (64, 1), (62, 1), (5, 0)] },
    Case { heads: 3, kv_heads: 1, head_dim: 32, window: None, sequences: &[(0, 70), (300, 1), (9, 2)] },
    Case { heads: 8, kv_heads: 1, head_dim: 64, window: None, sequences: &[(600, 1), (0, 9)] },
    Case { heads: 4, kv_heads: 2, head_dim: 32, window: Some(5), sequences: &[(130, 1), (60, 40), (0, 3)] },
    Case { heads: 2, kv_heads: 2, head_dim: 64, window: Some(64), sequences: &[(127, 1), (128, 1), (40, 66)] },
    Case { heads: 8, kv_heads: 2, head_dim: 16, window: Some(250), sequences: &[(510, 16), (700, 1)] },
    Case { heads: 2, kv_heads: 1, head_dim: 96, window: Some(100), sequences: &[(140, 1), (30, 33)] },
    Case { heads: 8, kv_heads: 2, head_dim: 128, window: None, sequences: &[(70, 1), (0, 17)] },
    // More heads than a block has rows: it takes 35 of 70.
    Case { heads: 70, kv_heads: 1, head_dim: 16, window: None, sequences: &[(20, 2)] },
];

/// No whole pack; for f32 alone.
const ODD: Case = Case { heads: 2, kv_heads: 1, head_dim: 41, window: Some(7), sequences: &[(60, 9), (0, 5)] };

fn proof<T: Tested>(device: &Device, case: &Case, tolerance: f64) -> Result<(), String> {
    let Case { heads, kv_heads, head_dim, window, sequences } = *case;
    let shape = CacheShape { heads, kv_heads, head_dim, window, scale: 1.0 / (head_dim as f32).sqrt() };
    let (queries, width) = (heads * head_dim, (heads + 2 * kv_heads) * head_dim);
    let mut texts = Vec::new();
    for (seed, &(before, new)) in sequences.iter().enumerate() {
        // Query and key rows at about one and a half, so that the softmax is neither flat nor a single key.
        let (rows, rows32) = random::<T>((before + new) * width, seed as u64 + 1, 1.5);
        let page = |_| device.empty::<T>("page", page_elements(LAYERS, kv_heads, head_dim)).address;
        texts.push((rows, rows32, (0..(before + new).div_ceil(PAGE)).map(page).collect::<Vec<u64>>()));
    }

    let step = |from: &dyn Fn((usize, usize)) -> (usize, usize), attends: bool| {
        let pieces: Vec<Piece> = (sequences.iter().zip(&texts))
            .map(|(&sequence, (_, _, pages))| {
                let (position, tokens) = from(sequence);
                Piece { tokens, position, pages }
            })
            .collect();
        let plan = CachePlan::new(&pieces, &shape);
        let rows = pieces.iter().zip(&texts).map(|(piece, (rows, _, _))| {
            rows[piece.position * width..(piece.position + piece.tokens) * width].to_vec()
        });
        let rows = rows.collect::<Vec<_>>().concat();
        let tokens = rows.len() / width;
        if tokens == 0 {
            return Ok(Vec::new());
        }
        let (qkv, words) = (device.upload("qkv", &rows), device.upload("plan", &plan.words));
        let append = plan.append(words, LAYER, qkv);
        device.run(&append)?;
        let moved = tokens * 2 * kv_heads * head_dim * size_of::<T>();
        moves(device, moved + tokens * append.block as usize * 32, moved, None)?;
        let others = device.upload("qkv", &rows.iter().rev().copied().collect::<Vec<T>>());
        device.run(&plan.append(words, 0, others))?;
        if !attends {
            return Ok(Vec::new());
        }
        let (parts, lse): (Pointer<f32>, Pointer<f32>) =
            (device.empty("parts", plan.parts * queries), device.empty("lse", plan.parts * heads));
        let out = device.empty::<T>("out", tokens * queries);
        device.run(&plan.attend(words, LAYER, qkv, parts, lse))?;
        super::no_conflicts(device)?;
        device.run(&plan.combine(words, parts, lse, out))?;
        device.download("out", out, tokens * queries)
    };
    step(&|(before, _)| (0, before), false)?;
    let found = step(&|sequence| sequence, true)?;

    let mut expected = vec![0.0; found.len()];
    let mut caches = Vec::new();
    for (_, rows32, _) in &texts {
        let new = || Cache::new(CacheType::F32, kv_heads, head_dim);
        let (mut keys, mut values) = (new(), new());
        for row in rows32.chunks_exact(width) {
            keys.push(&row[queries..queries + kv_heads * head_dim]);
            values.push(&row[queries + kv_heads * head_dim..]);
        }
        caches.push((keys, values));
    }
    let (mut rest, mut twins) = (&mut expected[..], Vec::new());
    for ((&(before, new), (_, rows32, _)), (keys, values)) in sequences.iter().zip(&texts).zip(&caches) {
        let (out, others) = rest.split_at_mut(new * queries);
        rest = others;
        twins.push(Sequence { q: &rows32[before * width..], keys, values, out });
    }
    cached(&mut twins, width, &shape);
    heads_close(&format!("out of {case:?}"), &found, &expected, head_dim, tolerance)
}

/// As in forward.cu: P is rounded to bf16, and so is the result.
fn in_bf16(device: &Device, case: &Case) -> Result<(), String> {
    proof::<Bf16>(device, case, 4e-3)
}

fn in_f32(device: &Device, case: &Case) -> Result<(), String> {
    proof::<f32>(device, case, 3e-6)
}

#[test]
fn over_pages_it_equals_its_twin_in_bf16() {
    prove(SOURCE, &|device| CASES.iter().try_for_each(|case| in_bf16(device, case)));
}

#[test]
fn over_pages_it_equals_its_twin_in_f32() {
    prove(SOURCE, &|device| CASES.iter().chain([&ODD]).try_for_each(|case| in_f32(device, case)));
}

/// What an emulated device can do with in the time of a mutant.
fn small() -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| case.head_dim <= 32)
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_over_pages_are_caught() {
    let mutations = [
        // A page, a layer, a head, a place in the page.
        Mutation { from: "first_page + position / PAGE", to: "first_page", caught_by: "" },
        Mutation { from: "static_cast<size_t>(layer) * 2 * kv_heads", to: "layer * kv_heads", caught_by: "" },
        Mutation { from: "fetch_from(layout.kv_heads + kv_head),", to: "fetch_from(kv_head),", caught_by: "off by" },
        Mutation { from: "+ token.slot * dim", to: "", caught_by: "race" },
        Mutation { from: "number < 2 * kv_heads * packs", to: "number < kv_heads * packs", caught_by: "are expected" },
        // Heads that share keys, and the tokens that they are of.
        Mutation { from: "head + row % layout.share;\n  });", to: "head;\n  });", caught_by: "off by" },
        Mutation {
            from: "return queries.position + row / layout.share;",
            to: "return queries.position + row;",
            caught_by: "off by",
        },
        Mutation { from: "first_row < rows, queries.begin", to: "first_row + 16 < rows, queries.begin", caught_by: "" },
        Mutation { from: "if (row >= rows) continue;", to: "", caught_by: "" },
        // Keys that a token does not see, a stretch of which it sees none.
        Mutation { from: "D, queries.end - first,", to: "D, KEYS,", caught_by: "nothing has written" },
        Mutation {
            from: "if (!sees(query, key, window)) scores",
            to: "if (!sees(query, key, window + 1)) scores",
            caught_by: "off by",
        },
        Mutation {
            from: "const float factor = mass > 0.0f ? 1.0f / mass : 0.0f;",
            to: "const float factor = 1.0f / mass;",
            caught_by: "NaN",
        },
        Mutation {
            from: "lse[to] = mass > 0.0f ? fmaf(flash.largest[0][half], layout.scale, logf(mass)) : LOWEST;",
            to: "lse[to] = fmaf(flash.largest[0][half], layout.scale, 0.0f);",
            caught_by: "off by",
        },
        // The parts of a token.
        Mutation { from: "number * token.stride", to: "number", caught_by: "off by" },
        Mutation { from: "mass += weight;", to: "mass = weight;", caught_by: "off by" },
        Mutation { from: "number < token.parts; ++number) {", to: "number < 1; ++number) {", caught_by: "off by" },
    ];
    catches(SOURCE, &|device| small().try_for_each(|case| in_bf16(device, case)), &mutations);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_over_pages_in_f32_are_caught() {
    let mutations = [
        Mutation { from: "max(queries.begin, first_seen(position, window))", to: "queries.begin", caught_by: "off by" },
        Mutation { from: "min(queries.end, position + 1)", to: "queries.end", caught_by: "off by" },
        Mutation { from: "row_of(kv_heads + kv_head)", to: "row_of(kv_head)", caught_by: "off by" },
        Mutation { from: "+ key % PAGE * dim;", to: ";", caught_by: "" },
        Mutation {
            from: "blockIdx.x * share + number % share, position",
            to: "blockIdx.x * share, position",
            caught_by: "",
        },
        Mutation { from: "if (dim % PACK<T> == 0) append", to: "if (dim > 0) append", caught_by: "" },
    ];
    catches(SOURCE, &|device| small().chain([&ODD]).try_for_each(|case| in_f32(device, case)), &mutations);
}
