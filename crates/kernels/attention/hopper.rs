//! Launches of `hopper_forward.cu` and `hopper_backward.cu`: bf16 on cards of compute capability 9.0 and no others.
//! **Not yet run on a GPU.**

use super::{ForwardTile, Plan, Shape, grid};
use crate::cuda::{Element, Launch, Pointer, TensorMap, WARP, queue};

/// Head dimensions that these kernels exist for.
pub const HOPPER_HEAD_DIMS: [usize; 2] = [64, 128];

/// Queries, and keys, of a tile: 64 for each of two warpgroups that compute.
const TILE: usize = 128;
/// And one that fetches.
const THREADS: u32 = 3 * 128;
/// Rows and columns of the boxes that it fetches.
const BOX: u32 = 64;
/// Tiles of keys, and of values, that are there or on their way in the forward pass.
const STAGES: usize = 2;
/// And in the backward pass, there of fewer rows.
const BACKWARD_STAGES: usize = 3;
const STEP: usize = 64;

impl Plan {
    /// For the kernels for Hopper; panics as [`Plan::new`] does.
    pub fn for_hopper(shape: &Shape) -> Self {
        assert!(HOPPER_HEAD_DIMS.contains(&shape.head_dim), "no kernel for Hopper, head dimension {}", shape.head_dim);
        Self { hopper: true, ..Self::of_tiles(shape, ForwardTile::Rows128, TILE, TILE) }
    }

    /// Queries, keys and values of all tokens and heads.
    fn qkv_map<T: Element>(&self, qkv: Pointer<T>) -> TensorMap {
        map(qkv, self.tokens, (self.heads + 2 * self.kv_heads) * self.head_dim)
    }

    pub(super) fn forward_on_hopper<T: Element>(
        &self,
        words: Pointer<u32>,
        qkv: Pointer<T>,
        out: Pointer<T>,
        lse: Pointer<f32>,
    ) -> Launch {
        let name = match self.head_dim {
            64 => "attention_forward_hopper_64",
            _ => "attention_forward_hopper_128",
        };
        // Queries, keys and values; a barrier for the queries, and two for each stage of the others.
        let shared = (1 + 2 * STAGES) * TILE * self.head_dim * size_of::<T>() + (1 + 4 * STAGES) * 8;
        let [tokens, heads, kv_heads] = self.sizes();
        queue!(
            name, grid(self.heads, &self.forward), THREADS, shared as u32;
            self.qkv_map(qkv), words.offset(self.forward.start), out, lse, tokens, heads, kv_heads, self.window, self.scale
        )
    }

    pub(super) fn backward_on_hopper<T: Element>(
        &self,
        words: Pointer<u32>,
        d_out: Pointer<T>,
        qkv: Pointer<T>,
        out: Pointer<T>,
        lse: Pointer<f32>,
        row_sums: Pointer<f32>,
        d_qkv: Pointer<T>,
    ) -> [Launch; 3] {
        let [sums, of_keys, of_queries] = match self.head_dim {
            64 => [
                "attention_row_sums_hopper_64",
                "attention_key_gradients_hopper_64",
                "attention_query_gradients_hopper_64",
            ],
            _ => [
                "attention_row_sums_hopper_128",
                "attention_key_gradients_hopper_128",
                "attention_query_gradients_hopper_128",
            ],
        };
        // Two tiles that stay and pairs of those that come, with the queries' log-sum-exps and row sums; barriers.
        let tiles = (2 * TILE + 2 * BACKWARD_STAGES * STEP) * self.head_dim * size_of::<T>();
        let states = 2 * BACKWARD_STAGES * STEP * size_of::<f32>();
        let shared = (tiles + states + (1 + 4 * BACKWARD_STAGES) * 8) as u32;
        let (qkv_map, d_out_map) = (self.qkv_map(qkv), map(d_out, self.tokens, self.heads * self.head_dim));
        let [tokens, heads, kv_heads] = self.sizes();
        let (tiles, keys, readers) =
            (words.offset(self.backward.start), words.offset(self.keys.start), words.offset(self.readers));
        [
            queue!(sums, [tokens, 1, 1], heads.min(8) * WARP, 0; d_out, out, row_sums, tokens, heads),
            queue!(
                of_keys, grid(self.kv_heads, &self.keys), THREADS, shared;
                qkv_map, d_out_map, lse, row_sums, keys, readers, d_qkv, tokens, heads, kv_heads, self.window, self.scale
            ),
            queue!(
                of_queries, grid(self.heads, &self.backward), THREADS, shared;
                qkv_map, d_out_map, lse, row_sums, tiles, d_qkv, tokens, heads, kv_heads, self.window, self.scale
            ),
        ]
    }
}

fn map<T: Element>(matrix: Pointer<T>, rows: usize, columns: usize) -> TensorMap {
    assert_eq!(size_of::<T>(), 2, "the kernels for Hopper take bf16");
    TensorMap {
        address: matrix.address,
        rows: rows as u64,
        columns: columns as u64,
        stride: (columns * size_of::<T>()) as u64,
        box_rows: BOX,
        box_columns: BOX,
    }
}
