//! The kernels for Hopper: the proofs of the others, on batches with the edges of their tiles of 128 rows.

use super::{Case, in_bf16, proof_backward};
use crate::emulator::{Device, Mutation, catches, prove};
use zephyr_kernels::attention::cuda::Plan;
use zephyr_kernels::cuda::Bf16;

const FORWARD: &str = "attention/hopper_forward.cu";
const BACKWARD: &str = "attention/hopper_backward.cu";

/// One token; tails and whole tiles, for one warpgroup and for two; several segments with an empty one; a window that ends in,
/// at and after a tile; 1, 2, 4 and 8 query heads to a key/value head; a prompt shared by one and by several, at a tile's
/// edge and not, with and without a window.
const CASES: [Case; 13] = [
    Case { heads: 1, kv_heads: 1, head_dim: 64, window: None, segments: &[(1, 0)] },
    Case { heads: 1, kv_heads: 1, head_dim: 64, window: None, segments: &[(63, 0), (64, 0), (65, 0), (129, 0)] },
    Case { heads: 2, kv_heads: 1, head_dim: 64, window: None, segments: &[(300, 0)] },
    Case { heads: 4, kv_heads: 1, head_dim: 64, window: Some(1), segments: &[(130, 0)] },
    Case { heads: 8, kv_heads: 1, head_dim: 64, window: Some(64), segments: &[(200, 0), (0, 0), (3, 0)] },
    Case { heads: 1, kv_heads: 1, head_dim: 64, window: Some(128), segments: &[(290, 0)] },
    Case { heads: 2, kv_heads: 1, head_dim: 64, window: None, segments: &[(150, 0), (170, 137), (90, 137)] },
    Case {
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        window: Some(140),
        segments: &[(180, 0), (266, 170), (0, 5), (9, 1), (20, 0)],
    },
    Case { heads: 1, kv_heads: 1, head_dim: 64, window: Some(9), segments: &[(150, 0), (140, 130)] },
    Case { heads: 4, kv_heads: 1, head_dim: 128, window: None, segments: &[(129, 0), (1, 0)] },
    Case { heads: 1, kv_heads: 1, head_dim: 128, window: Some(129), segments: &[(270, 0)] },
    Case { heads: 2, kv_heads: 1, head_dim: 128, window: None, segments: &[(128 + 9, 0), (21, 128)] },
    Case { heads: 1, kv_heads: 1, head_dim: 128, window: Some(70), segments: &[(4, 0), (66, 0), (170, 66)] },
];

/// What mutants are tried on: every edge once.
const SMALL: [Case; 3] = [
    Case { heads: 2, kv_heads: 1, head_dim: 64, window: None, segments: &[(65, 0), (140, 43)] },
    Case { heads: 4, kv_heads: 2, head_dim: 64, window: Some(75), segments: &[(200, 0), (9, 0)] },
    Case { heads: 1, kv_heads: 1, head_dim: 64, window: None, segments: &[(5, 0), (330, 0)] },
];

#[test]
fn forward_equals_its_twin() {
    prove(FORWARD, &|device| CASES.iter().try_for_each(|case| in_bf16(device, case, Plan::for_hopper)));
}

#[test]
fn backward_equals_its_twin() {
    prove(BACKWARD, &|device| CASES.iter().try_for_each(|case| in_reverse(device, case)));
}

fn in_reverse(device: &Device, case: &Case) -> Result<(), String> {
    proof_backward::<Bf16>(device, case, Plan::for_hopper, 5e-3)
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_of_the_forward_pass_are_caught() {
    let mutations = [
        // Tiles that are not waited for, or given back while they are read, or not at all.
        Mutation { from: "    if (walk.first < end) keys.wait(next + 1);\n", to: "", caught_by: "multiplies 'dynamic" },
        Mutation { from: "    values.wait(turn);\n    begin", to: "    begin", caught_by: "multiplies 'dynamic" },
        Mutation { from: "  wait_for(shared.queries_there(), 0);\n", to: "", caught_by: "multiplies 'dynamic" },
        Mutation {
            from: "    wait_products<0>(sums.at);\n    values.release(turn);",
            to: "    values.release(turn);\n    wait_products<0>(sums.at);",
            caught_by: "read what is to be overwritten",
        },
        Mutation { from: "    values.release(turn);\n", to: "", caught_by: "no thread can go on" },
        Mutation { from: "queries.rows > GROUP_ROWS ? 8 : 4", to: "8", caught_by: "no thread can go on" },
        Mutation { from: "queries.rows > GROUP_ROWS ? 8 : 4", to: "4", caught_by: "" },
        Mutation { from: "named_barrier(1 + group, WARPGROUP);", to: "", caught_by: "read what is to be overwritten" },
        Mutation {
            from: "uint64_t* barrier = keys.vacant(turn);",
            to: "uint64_t* barrier = keys.full + stage;",
            caught_by: "",
        },
        Mutation {
            from: "arrive_expecting(shared.queries_there(), Shared<D>::Q::BYTES)",
            to: "arrive_expecting(shared.queries_there(), Shared<D>::Q::BYTES + 16)",
            caught_by: "lacks 0 arrivals and 16 bytes",
        },
        // Products: other rows, sums or operands that change under them.
        Mutation {
            from: "multiply_with_columns(scores.at, q, group_row, Described<D, KEYS>(shared.keys(next % STAGES)))",
            to: "multiply_with_columns(scores.at, q, 0, Described<D, KEYS>(shared.keys(next % STAGES)))",
            caught_by: "",
        },
        Mutation {
            from: "    wait_products<1>(scores.at);\n    keys",
            to: "    wait_products<2>();\n    keys",
            caught_by: "",
        },
        Mutation { from: "    round(scores, weights);\n    turn = next;", to: "    turn = next;", caught_by: "off by" },
        Mutation {
            from: "sums.at[column][i] *= factors[i / 2]",
            to: "sums.at[column][i] *= factors[i % 2]",
            caught_by: "off by",
        },
        Mutation { from: "begin_products(sums.at, weights);\n    add", to: "add", caught_by: "named to a wgmma.fence" },
        // The masks: the range's end, the window by one, the diagonal; a warpgroup that leaves too early.
        Mutation { from: " || key >= walk.limit", to: "", caught_by: "off by" },
        Mutation { from: " && walk.first + KEYS <= walk.limit", to: "", caught_by: "off by" },
        Mutation { from: "!sees(query, key, window) ||", to: "!sees(query, key, window - 1) ||", caught_by: "off by" },
        Mutation {
            from: "sees(position, walk.first + KEYS - 1, window)",
            to: "sees(position, walk.first + KEYS - 17, window)",
            caught_by: "off by",
        },
        Mutation {
            from: "queries.position + group_row + GROUP_ROWS)",
            to: "queries.position + group_row + 1)",
            caught_by: "off by",
        },
        // The walk: a range that is left out, or read from the other's rows.
        Mutation { from: "    origin = own_origin;\n  }", to: "  }", caught_by: "off by" },
        Mutation { from: "    first = limit;\n", to: "", caught_by: "off by" },
        // Heads that share keys, rows that are not there.
        Mutation { from: "head / (layout.heads / layout.kv_heads)", to: "head % layout.kv_heads", caught_by: "off by" },
        Mutation {
            from: "lane_index() % 4 == 0 && query < queries.rows",
            to: "lane_index() % 4 == 0",
            caught_by: "lse",
        },
        Mutation { from: "queries.rows > first_row ? queries.rows - first_row : 0", to: "16", caught_by: "" },
    ];
    catches(FORWARD, &|device| SMALL.iter().try_for_each(|case| in_bf16(device, case, Plan::for_hopper)), &mutations);
}

#[test]
#[cfg_attr(not(feature = "mutants"), ignore = "npm run test:cuda-emulated")]
fn mistakes_of_the_backward_pass_are_caught() {
    let mutations = [
        // Tiles and states that are not waited for, or given back while they are read.
        Mutation { from: "    shared.ring().wait(turn);\n", to: "", caught_by: "multiplies 'dynamic" },
        Mutation { from: "    shared.ring().wait(next);\n", to: "", caught_by: "multiplies 'dynamic" },
        Mutation { from: "    shared.second_ring().wait(next);\n", to: "", caught_by: "multiplies 'dynamic" },
        Mutation {
            from: "  make_barriers(shared, keys.rows, 2);",
            to: "  make_barriers(shared, keys.rows, 1);",
            caught_by: "",
        },
        Mutation { from: "    __syncwarp(); // all lanes' states are there\n", to: "", caught_by: "race" },
        Mutation {
            from: "    wait_products<0>(d_q.at);\n    shared.ring().release(turn);",
            to: "    shared.ring().release(turn);\n    wait_products<0>(d_q.at);",
            caught_by: "read what is to be overwritten",
        },
        Mutation {
            from: "    wait_products<0>(d_v.at, d_k.at);\n    shared.ring().release(turn);",
            to: "    shared.ring().release(turn);\n    wait_products<0>(d_v.at, d_k.at);",
            caught_by: "read what is to be overwritten",
        },
        Mutation {
            from: "    if (position + STEP - 1 < keys.position + group_row || visible <= group_row) {\n      shared.ring().release(turn);",
            to: "    if (position + STEP - 1 < keys.position + group_row || visible <= group_row) {",
            caught_by: "no thread can go on",
        },
        Mutation {
            from: "named_barrier(1 + group, WARPGROUP); // no warp's products read these keys",
            to: "// no warp's products read these keys",
            caught_by: "read what is to be overwritten",
        },
        Mutation {
            from: "named_barrier(1 + group, WARPGROUP); // no warp's products read these queries",
            to: "// no warp's products read these queries",
            caught_by: "read what is to be overwritten",
        },
        Mutation { from: "rows > GROUP_ROWS ? 8 : 4", to: "8", caught_by: "no thread can go on" },
        // Products.
        Mutation {
            from: "multiply_with_columns(p.at, own_keys, group_row, queries)",
            to: "multiply_with_columns(p.at, own_keys, 0, queries)",
            caught_by: "",
        },
        Mutation {
            from: "add_product_with_rows<D, STEP>(d_k.at, slopes, queries)",
            to: "add_product_with_rows<D, STEP>(d_k.at, slopes, d_out)",
            caught_by: "off by",
        },
        Mutation {
            from: "    round(d_s, slopes);\n    begin_products(d_k.at, slopes);",
            to: "    begin_products(d_k.at, slopes);\n    round(d_s, slopes);",
            caught_by: "changed since wgmma.fence",
        },
        Mutation {
            from: "(d_s.at[column][i] - delta[query])",
            to: "(d_s.at[column][i] + delta[query])",
            caught_by: "off by",
        },
        Mutation {
            from: "(d_s.at[column][i] - row_delta[i / 2])",
            to: "(d_s.at[column][i] - row_delta[i % 2])",
            caught_by: "off by",
        },
        // The masks.
        Mutation { from: " || query >= queries)", to: ")", caught_by: "off by" },
        Mutation {
            from: " || visible < first_row + 16 || queries < STEP",
            to: " || visible < first_row + 16",
            caught_by: "off by",
        },
        Mutation { from: "first_row + key >= visible", to: "first_row + key > visible", caught_by: "off by" },
        Mutation { from: "visible < first_row + 16 ||", to: "visible < first_row + 8 ||", caught_by: "off by" },
        Mutation {
            from: "!sees(position + STEP - 1, first_key, window)",
            to: "!sees(position + STEP - 8, first_key, window)",
            caught_by: "off by",
        },
        Mutation {
            from: "(!sees(query, key, layout.window) || key >= walk.limit)",
            to: "!sees(query, key, layout.window)",
            caught_by: "off by",
        },
        Mutation { from: "walk.first + STEP > walk.limit;", to: "false;", caught_by: "off by" },
        Mutation {
            from: "queries.position + group_row + GROUP_ROWS)",
            to: "queries.position + group_row + 1)",
            caught_by: "off by",
        },
        // The walks, and what is written where.
        Mutation { from: "if (++number == count)", to: "if (++number >= 1)", caught_by: "off by" },
        Mutation { from: "    limit = end;\n    origin = own_origin;", to: "    limit = end;", caught_by: "off by" },
        Mutation {
            from: "write_rows(d_k, layout.scale, layout.scale",
            to: "write_rows(d_k, 1.0f, 1.0f",
            caught_by: "off by",
        },
        Mutation { from: "keys.rows > first_row ? keys.rows - first_row : 0;", to: "16;", caught_by: "" },
        Mutation { from: "const bool there = query < rows;", to: "const bool there = true;", caught_by: "outside" },
    ];
    catches(BACKWARD, &|device| SMALL.iter().try_for_each(|case| in_reverse(device, case)), &mutations);
}
