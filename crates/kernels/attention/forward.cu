// FlashAttention-2 (Dao 2023) forwards, for sm_80 and later: a block has a tile of queries of one head, walks over the keys
// that they see, and keeps scores and sums in registers. mod.rs has the mathematics, tiles.cuh the tiles, plan.cuh the
// work list. P is rounded to bf16 for its product with V; everything else is f32.
#include "plan.cuh"
#include "tiles.cuh"

constexpr int KEYS = 64;

/// `TILES` times 16 queries a warp, four warps.
template <int D, int TILES>
__device__ void forward(const bf16* qkv, const uint32_t* tiles, bf16* out, float* lse, const Layout& layout) {
  constexpr int THREADS = 128, ROWS = TILES * 16 * 4;
  DYNAMIC_SHARED(bf16, shared);
  const Tile<D> q_tile{shared}, k_tile{shared + ROWS * D}, v_tile{shared + (ROWS + KEYS) * D};
  const Queries queries = Queries::read(tiles, blockIdx.y);
  const uint32_t head = blockIdx.x, kv_head = head / (layout.heads / layout.kv_heads), stride = layout.row<D>();
  const bf16* keys = qkv + (layout.heads + kv_head) * D;
  const bf16* values = keys + layout.kv_heads * D;
  const float scale = layout.scale * LOG2_E;

  const uint32_t begin = first_seen(queries.position, layout.window), end = queries.position + queries.rows;
  const auto fetch_keys = [&](Tile<D> tile, const bf16* from, uint32_t first) {
    fetch<KEYS, THREADS>(tile, from, stride, end - first, [&](uint32_t row) { return queries.key_row(first + row); });
    commit_copies();
  };
  fetch<ROWS, THREADS>(q_tile, qkv + static_cast<size_t>(queries.row) * stride + head * D, stride, queries.rows, [](uint32_t row) { return row; });
  fetch_keys(k_tile, keys, begin);

  const uint32_t first_row = warp_index() * TILES * 16;
  Sums<D> sums[TILES];
  float largest[TILES][2], mass[TILES][2];
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) {
    sums[tile].clear();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      largest[tile][half] = LOWEST;
      mass[tile][half] = 0.0f;
    }
  }

  for (uint32_t first = begin; first < end; first += KEYS) {
    wait_copies<0>();
    __syncthreads(); // these keys are there, and nobody needs the last values any more
    fetch_keys(v_tile, values, first);
    Sums<KEYS> scores[TILES];
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) scores[tile].clear();
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      uint32_t a[TILES][4];
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) q_tile.as_a(a[tile], first_row + 16 * tile, step);
#pragma unroll
      for (int pair = 0; pair < KEYS / 16; ++pair) {
        uint32_t b[4];
        k_tile.as_columns(b, 16 * pair, step);
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
          multiply_add(scores[tile].at[2 * pair], a[tile], b[0], b[1]);
          multiply_add(scores[tile].at[2 * pair + 1], a[tile], b[2], b[3]);
        }
      }
    }
    wait_copies<0>();
    __syncthreads(); // the values are there, and nobody needs these keys any more
    if (first + KEYS < end) fetch_keys(k_tile, keys, first + KEYS);

#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
      const uint32_t position = queries.position + first_row + 16 * tile;
      if (!sees(position, first + KEYS - 1, layout.window) || !sees(position + 15, first, layout.window)) {
#pragma unroll
        for (int column = 0; column < KEYS / 8; ++column) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const uint32_t query = position + lane_index() / 4 + i / 2 * 8, key = first + column * 8 + lane_index() % 4 * 2 + i % 2;
            if (!sees(query, key, layout.window)) scores[tile].at[column][i] = LOWEST;
          }
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float best = largest[tile][half];
#pragma unroll
        for (int column = 0; column < KEYS / 8; ++column) {
          best = fmaxf(best, fmaxf(scores[tile].at[column][2 * half], scores[tile].at[column][2 * half + 1]));
        }
        best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 1));
        best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 2));
        // A row that has seen no key yet keeps −∞; against 0 its probabilities come out as 0.
        const float reference = best == LOWEST ? 0.0f : best * scale;
        const float factor = exp2_approximate(fmaf(largest[tile][half], scale, -reference));
        float total = 0.0f;
#pragma unroll
        for (int column = 0; column < KEYS / 8; ++column) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            float& score = scores[tile].at[column][i];
            score = exp2_approximate(fmaf(score, scale, -reference));
            total += score;
          }
        }
        mass[tile][half] = fmaf(mass[tile][half], factor, total);
        largest[tile][half] = best;
#pragma unroll
        for (int column = 0; column < D / 8; ++column) {
          sums[tile].at[column][2 * half] *= factor;
          sums[tile].at[column][2 * half + 1] *= factor;
        }
      }
    }
#pragma unroll
    for (int step = 0; step < KEYS / 16; ++step) {
      uint32_t a[TILES][4];
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) scores[tile].as_a(a[tile], step);
#pragma unroll
      for (int pair = 0; pair < D / 16; ++pair) {
        uint32_t b[4];
        v_tile.as_rows(b, step, pair);
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
          multiply_add(sums[tile].at[2 * pair], a[tile], b[0], b[1]);
          multiply_add(sums[tile].at[2 * pair + 1], a[tile], b[2], b[3]);
        }
      }
    }
  }

#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) {
    const uint32_t row = first_row + 16 * tile;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Each lane of four has the sum of its own columns.
      float& total = mass[tile][half];
      total += __shfl_xor_sync(ALL_LANES, total, 1);
      total += __shfl_xor_sync(ALL_LANES, total, 2);
      const uint32_t query = row + lane_index() / 4 + 8 * half;
      if (lane_index() % 4 == 0 && query < queries.rows) {
        lse[static_cast<size_t>(head) * layout.tokens + queries.row + query] = fmaf(largest[tile][half], layout.scale, logf(total));
      }
    }
    bf16* to = out + (static_cast<size_t>(queries.row) + row) * layout.heads * D + head * D;
    write_rows(sums[tile], 1.0f / mass[tile][0], 1.0f / mass[tile][1], q_tile, row, to, layout.heads * D,
               queries.rows > row ? queries.rows - row : 0);
  }
}

#define FOR_HEAD(D, TILES, rows)                                                                                                         \
  extern "C" __global__ void __launch_bounds__(128)                                                                                      \
      attention_forward_##D##_##rows(const bf16* qkv, const uint32_t* tiles, bf16* out, float* lse, uint32_t tokens, uint32_t heads,     \
                                     uint32_t kv_heads, uint32_t window, float scale) {                                                  \
    forward<D, TILES>(qkv, tiles, out, lse, Layout{tokens, heads, kv_heads, window, scale});                                             \
  }                                                                                                                                      \
  EXPORT(attention_forward_##D##_##rows)

FOR_HEAD(16, 1, 64)
FOR_HEAD(32, 1, 64)
FOR_HEAD(64, 1, 64)
FOR_HEAD(96, 1, 64)
FOR_HEAD(128, 1, 64)
FOR_HEAD(64, 2, 128)
FOR_HEAD(96, 2, 128)
FOR_HEAD(128, 2, 128)
