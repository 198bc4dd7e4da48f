// FlashAttention-2 (Dao 2023) backwards, for sm_80 and later, without atomics: one kernel has a tile of keys and walks over
// the queries that see them, for dK and dV; another has a tile of queries and walks over their keys, for dQ. The
// probabilities are computed twice, and every sum has one owner and one order. mod.rs has the mathematics, tiles.cuh the
// tiles, plan.cuh the work list. P and dS are rounded to bf16 for their products; everything else is f32.
#include "plan.cuh"
#include "row_sums.cuh"
#include "tiles.cuh"

/// Keys, and queries, of a tile: sixteen for each of four warps.
constexpr int ROWS = 64, HALF = ROWS / 2, THREADS = 128;

template <int D>
__device__ void key_gradients(const bf16* qkv, const bf16* d_out, const float* lse, const float* delta, const uint32_t* tiles,
                              const uint32_t* readers, bf16* d_qkv, const Layout& layout) {
  DYNAMIC_SHARED(bf16, shared);
  constexpr int SIZE = ROWS * D;
  const Tile<D> k_tile{shared}, v_tile{shared + SIZE}, d_out_tile{shared + 4 * SIZE};
  const auto q_tile = [&](uint32_t turn) { return Tile<D>{shared + (2 + turn % 2) * SIZE}; };
  float* const tile_lse = reinterpret_cast<float*>(shared + 5 * SIZE);
  float* const tile_delta = tile_lse + ROWS;

  const Keys keys = Keys::read(tiles, blockIdx.y);
  const uint32_t kv_head = blockIdx.x, group = layout.heads / layout.kv_heads, stride = layout.row<D>(), out_stride = layout.heads * D;
  const size_t k_column = static_cast<size_t>(layout.heads + kv_head) * D, v_column = k_column + layout.kv_heads * D;
  const bf16* own = qkv + static_cast<size_t>(keys.row) * stride;
  const float scale = layout.scale * LOG2_E;
  const uint32_t first_row = warp_index() * 16;
  const auto same_row = [](uint32_t row) { return row; };

  Walk<ROWS> walk(readers, keys, group);
  const auto fetch_queries = [&](const Walk<ROWS>& at, uint32_t turn) {
    const bf16* from = qkv + static_cast<size_t>(at.row()) * stride + (kv_head * group + at.head) * D;
    fetch<ROWS, THREADS>(q_tile(turn), from, stride, at.rows(), same_row);
    commit_copies();
  };
  fetch<ROWS, THREADS>(k_tile, own + k_column, stride, keys.rows, same_row);
  fetch<ROWS, THREADS>(v_tile, own + v_column, stride, keys.rows, same_row);
  fetch_queries(walk, 0);

  Sums<D> d_k, d_v;
  d_k.clear();
  d_v.clear();
  for (uint32_t turn = 0; !walk.done(); ++turn) {
    const uint32_t head = kv_head * group + walk.head, row = walk.row(), rows = walk.rows(), position = walk.position(), visible = walk.reader.keys;
    wait_copies<0>();
    __syncthreads(); // these queries are there, and nobody needs the last ones' dO, lse and Δ any more
    fetch<ROWS, THREADS>(d_out_tile, d_out + static_cast<size_t>(row) * out_stride + head * D, out_stride, rows, same_row);
    commit_copies();
    if (threadIdx.x < ROWS) {
      const size_t at = static_cast<size_t>(head) * layout.tokens + row + threadIdx.x;
      const bool there = threadIdx.x < rows;
      // dO of queries that are not there is 0, and so is what they add.
      tile_lse[threadIdx.x] = there ? lse[at] * LOG2_E : 0.0f;
      tile_delta[threadIdx.x] = there ? delta[at] : 0.0f;
    }
    // By halves of the queries: whole, P and dS would not fit the registers.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t first_query = half * HALF, first_key = keys.position + first_row;
      Sums<HALF> p;
      p.clear();
      add_product_with_columns(p, k_tile, first_row, q_tile(turn), first_query);
      if (half == 0) {
        walk.advance();
        wait_copies<0>();
        __syncthreads(); // dO, lse and Δ are there, and nobody needs the queries before these any more
        if (!walk.done()) fetch_queries(walk, turn + 1);
      }
      const bool masked = !sees(position + first_query, first_key + 15, layout.window) ||
                          !sees(position + first_query + HALF - 1, first_key, layout.window) || visible < first_row + 16;
#pragma unroll
      for (int column = 0; column < HALF / 8; ++column) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t query = first_query + column * 8 + lane_index() % 4 * 2 + i % 2, key = first_row + lane_index() / 4 + i / 2 * 8;
          const bool hidden = masked && (!sees(position + query, keys.position + key, layout.window) || key >= visible);
          p.at[column][i] = hidden ? 0.0f : exp2_approximate(fmaf(p.at[column][i], scale, -tile_lse[query]));
        }
      }
      add_product_with_rows(d_v, p, d_out_tile, first_query);
      Sums<HALF> d_s;
      d_s.clear();
      add_product_with_columns(d_s, v_tile, first_row, d_out_tile, first_query);
#pragma unroll
      for (int column = 0; column < HALF / 8; ++column) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t query = first_query + column * 8 + lane_index() % 4 * 2 + i % 2;
          d_s.at[column][i] = p.at[column][i] * (d_s.at[column][i] - tile_delta[query]);
        }
      }
      add_product_with_rows(d_k, d_s, q_tile(turn), first_query);
    }
  }

  const uint32_t valid = keys.rows > first_row ? keys.rows - first_row : 0;
  bf16* to = d_qkv + static_cast<size_t>(keys.row + first_row) * stride;
  write_rows(d_k, layout.scale, layout.scale, k_tile, first_row, to + k_column, stride, valid);
  write_rows(d_v, 1.0f, 1.0f, v_tile, first_row, to + v_column, stride, valid);
}

template <int D>
__device__ void query_gradients(const bf16* qkv, const bf16* d_out, const float* lse, const float* delta, const uint32_t* tiles, bf16* d_qkv,
                                const Layout& layout) {
  DYNAMIC_SHARED(bf16, shared);
  constexpr int SIZE = ROWS * D;
  const Tile<D> q_tile{shared}, d_out_tile{shared + SIZE}, v_tile{shared + 4 * SIZE};
  const auto k_tile = [&](uint32_t turn) { return Tile<D>{shared + (2 + turn % 2) * SIZE}; };

  const Queries queries = Queries::read(tiles, blockIdx.y);
  const uint32_t head = blockIdx.x, kv_head = head / (layout.heads / layout.kv_heads), stride = layout.row<D>(), out_stride = layout.heads * D;
  const bf16* keys = qkv + (layout.heads + kv_head) * D;
  const bf16* values = keys + layout.kv_heads * D;
  const float scale = layout.scale * LOG2_E;
  const uint32_t first_row = warp_index() * 16;

  const uint32_t begin = first_seen(queries.position, layout.window), end = queries.position + queries.rows;
  const auto fetch_keys = [&](Tile<D> tile, const bf16* from, uint32_t first) {
    fetch<ROWS, THREADS>(tile, from, stride, end - first, [&](uint32_t row) { return queries.key_row(first + row); });
    commit_copies();
  };
  const auto same_row = [](uint32_t row) { return row; };
  fetch<ROWS, THREADS>(q_tile, qkv + static_cast<size_t>(queries.row) * stride + head * D, stride, queries.rows, same_row);
  fetch<ROWS, THREADS>(d_out_tile, d_out + static_cast<size_t>(queries.row) * out_stride + head * D, out_stride, queries.rows, same_row);
  fetch_keys(k_tile(0), keys, begin);

  // The lane's two rows.
  float row_lse[2], row_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t row = first_row + lane_index() / 4 + 8 * half;
    const size_t at = static_cast<size_t>(head) * layout.tokens + queries.row + row;
    row_lse[half] = row < queries.rows ? lse[at] * LOG2_E : 0.0f;
    row_delta[half] = row < queries.rows ? delta[at] : 0.0f;
  }
  Sums<D> d_q;
  d_q.clear();
  uint32_t turn = 0;
  for (uint32_t first = begin; first < end; first += ROWS, ++turn) {
    wait_copies<0>();
    __syncthreads(); // these keys are there, and nobody needs the last values any more
    fetch_keys(v_tile, values, first);
    Sums<ROWS> p;
    p.clear();
    add_product_with_columns(p, q_tile, first_row, k_tile(turn));
    wait_copies<0>();
    __syncthreads(); // the values are there, and nobody needs the keys before these any more
    if (first + ROWS < end) fetch_keys(k_tile(turn + 1), keys, first + ROWS);

    Sums<ROWS> d_s;
    d_s.clear();
    add_product_with_columns(d_s, d_out_tile, first_row, v_tile);
    const uint32_t position = queries.position + first_row;
    const bool masked = !sees(position, first + ROWS - 1, layout.window) || !sees(position + 15, first, layout.window);
#pragma unroll
    for (int column = 0; column < ROWS / 8; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t query = position + lane_index() / 4 + i / 2 * 8, key = first + column * 8 + lane_index() % 4 * 2 + i % 2;
        const bool hidden = masked && !sees(query, key, layout.window);
        const float probability = hidden ? 0.0f : exp2_approximate(fmaf(p.at[column][i], scale, -row_lse[i / 2]));
        d_s.at[column][i] = probability * (d_s.at[column][i] - row_delta[i / 2]);
      }
    }
    add_product_with_rows(d_q, d_s, k_tile(turn));
  }
  bf16* to = d_qkv + (static_cast<size_t>(queries.row) + first_row) * stride + head * D;
  write_rows(d_q, layout.scale, layout.scale, q_tile, first_row, to, stride, queries.rows > first_row ? queries.rows - first_row : 0);
}

#define FOR_HEAD(D)                                                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) attention_row_sums_##D(const bf16* d_out, const bf16* out, float* delta,               \
                                                                           uint32_t tokens, uint32_t heads) {                              \
    row_sums<D>(d_out, out, delta, tokens, heads);                                                                                         \
  }                                                                                                                                        \
  EXPORT(attention_row_sums_##D)                                                                                                           \
  extern "C" __global__ void __launch_bounds__(128)                                                                                        \
      attention_key_gradients_##D(const bf16* qkv, const bf16* d_out, const float* lse, const float* delta, const uint32_t* tiles,         \
                                  const uint32_t* readers, bf16* d_qkv, uint32_t tokens, uint32_t heads, uint32_t kv_heads,                \
                                  uint32_t window, float scale) {                                                                          \
    key_gradients<D>(qkv, d_out, lse, delta, tiles, readers, d_qkv, Layout{tokens, heads, kv_heads, window, scale});                       \
  }                                                                                                                                        \
  EXPORT(attention_key_gradients_##D)                                                                                                      \
  extern "C" __global__ void __launch_bounds__(128)                                                                                        \
      attention_query_gradients_##D(const bf16* qkv, const bf16* d_out, const float* lse, const float* delta, const uint32_t* tiles,       \
                                    bf16* d_qkv, uint32_t tokens, uint32_t heads, uint32_t kv_heads, uint32_t window, float scale) {       \
    query_gradients<D>(qkv, d_out, lse, delta, tiles, d_qkv, Layout{tokens, heads, kv_heads, window, scale});                              \
  }                                                                                                                                        \
  EXPORT(attention_query_gradients_##D)

FOR_HEAD(16)
FOR_HEAD(32)
FOR_HEAD(64)
FOR_HEAD(96)
FOR_HEAD(128)
