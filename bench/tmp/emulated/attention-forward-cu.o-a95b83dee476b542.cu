// FlashAttention-2 (Dao 2023) forwards, for sm_80 and later: a block has a tile of queries of one head, walks over the keys
// that they see, and keeps scores and sums in registers. mod.rs has the mathematics, tiles.cuh the tiles, plan.cuh the
// work list. P is rounded to bf16 for its product with V; everything else is f32.
#include "flash.cuh"

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
  const auto fetch_from = [&](const bf16* from) {
    return [=](Tile<D> tile, uint32_t first) {
      fetch<KEYS, THREADS>(tile, from, stride, end - first, [&](uint32_t row) { return queries.key_row(first + row); });
    };
  };
  fetch<ROWS, THREADS>(q_tile, qkv + static_cast<size_t>(queries.row) * stride + head * D, stride, queries.rows, [](uint32_t row) { return row; });

  const uint32_t first_row = warp_index() * TILES * 16;
  Flash<D, TILES> flash;
  flash.clear();
  flash.walk(q_tile, k_tile, v_tile, first_row, true, begin, end, layout.window, scale, fetch_from(keys), fetch_from(values),
             [&](uint32_t row) { return queries.position + row; });

#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) {
    const uint32_t row = first_row + 16 * tile;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& total = flash.mass[tile][half];
      total = flash.total(tile, half);
      const uint32_t query = row + lane_index() / 4 + 8 * half;
      if (lane_index() % 4 == 0 && query < queries.rows) {
        lse[static_cast<size_t>(head) * layout.tokens + queries.row + query] = fmaf(flash.largest[tile][half], layout.scale, logf(total));
      }
    }
    bf16* to = out + (static_cast<size_t>(queries.row) + row) * layout.heads * D + head * D;
    write_rows(flash.sums[tile], 1.0f / flash.mass[tile][0], 1.0f / flash.mass[tile][1], q_tile, row, to, layout.heads * D,
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
