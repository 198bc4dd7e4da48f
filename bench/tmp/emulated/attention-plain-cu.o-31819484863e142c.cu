// Attention in f32 over a packed batch. The work list is that of forward.cu and backward.cu.
#include "plain.cuh"

/// Where a head's parts of the rows of q, k and v begin.
struct Columns {
  uint32_t stride, q, k, v;

  __device__ __forceinline__ Columns(uint32_t head, uint32_t dim, const Layout& layout) {
    const uint32_t kv_head = head / (layout.heads / layout.kv_heads);
    stride = (layout.heads + 2 * layout.kv_heads) * dim;
    q = head * dim;
    k = (layout.heads + kv_head) * dim;
    v = (layout.heads + layout.kv_heads + kv_head) * dim;
  }
  __device__ __forceinline__ size_t row(uint32_t row) const { return static_cast<size_t>(row) * stride; }
};

extern "C" __global__ void __launch_bounds__(128)
    attention_forward_f32(const float* qkv, const uint32_t* tiles, float* out, float* lse, uint32_t tokens, uint32_t heads, uint32_t kv_heads,
                          uint32_t window, float scale, uint32_t dim) {
  SHARED_ARRAY(float, rows, WARPS * MOST);
  SHARED_ARRAY(float, parts, WARPS * 2 * WARP);
  float *const q = rows + warp_index() * MOST, *const scores = parts + warp_index() * 2 * WARP, *const weights = scores + WARP;
  const Layout layout{tokens, heads, kv_heads, window, scale};
  const Queries queries = Queries::read(tiles, blockIdx.y);
  const Columns columns(blockIdx.x, dim, layout);
  for (uint32_t number = warp_index(); number < queries.rows; number += WARPS) {
    const uint32_t row = queries.row + number, position = queries.position + number;
    __syncwarp(); // the last row is done with
    share_row(q, qkv + columns.row(row) + columns.q, dim);
    __syncwarp(); // the query is there
    Seen seen;
    seen.walk(
        q, scores, weights, first_seen(position, window), position + 1, dim, scale,
        [&](uint32_t key) { return qkv + columns.row(queries.key_row(key)) + columns.k; },
        [&](uint32_t key) { return qkv + columns.row(queries.key_row(key)) + columns.v; });
    store_row(out + (static_cast<size_t>(row) * heads + blockIdx.x) * dim, dim, seen.sums, 1.0f / seen.mass);
    if (lane_index() == 0) lse[static_cast<size_t>(blockIdx.x) * tokens + row] = seen.largest + logf(seen.mass);
  }
}
EXPORT(attention_forward_f32)

extern "C" __global__ void __launch_bounds__(256)
    attention_row_sums_f32(const float* d_out, const float* out, float* delta, uint32_t tokens, uint32_t heads, uint32_t dim) {
  for (uint32_t head = warp_index(); head < heads; head += blockDim.x / WARP) {
    const size_t at = (static_cast<size_t>(blockIdx.x) * heads + head) * dim;
    float a[HELD], b[HELD], sum = 0.0f;
    load_row(d_out + at, dim, a);
    load_row(out + at, dim, b);
#pragma unroll
    for (int i = 0; i < HELD; ++i) sum = fmaf(a[i], b[i], sum);
    sum = warp_sum(sum);
    if (lane_index() == 0) delta[static_cast<size_t>(head) * tokens + blockIdx.x] = sum;
  }
}
EXPORT(attention_row_sums_f32)

extern "C" __global__ void __launch_bounds__(128)
    attention_key_gradients_f32(const float* qkv, const float* d_out, const float* lse, const float* delta, const uint32_t* tiles,
                                const uint32_t* readers, float* d_qkv, uint32_t tokens, uint32_t heads, uint32_t kv_heads, uint32_t window,
                                float scale, uint32_t dim) {
  SHARED_ARRAY(float, rows, WARPS * 2 * MOST);
  SHARED_ARRAY(float, parts, WARPS * 2 * WARP);
  float *const k = rows + warp_index() * 2 * MOST, *const v = k + MOST;
  float *const weights = parts + warp_index() * 2 * WARP, *const slopes = weights + WARP;
  const Layout layout{tokens, heads, kv_heads, window, scale};
  const Keys keys = Keys::read(tiles, blockIdx.y);
  const uint32_t group = heads / kv_heads;
  for (uint32_t number = warp_index(); number < keys.rows; number += WARPS) {
    const Columns own(blockIdx.x * group, dim, layout);
    __syncwarp(); // the last key is done with
    share_row(k, qkv + own.row(keys.row + number) + own.k, dim);
    share_row(v, qkv + own.row(keys.row + number) + own.v, dim);
    __syncwarp(); // key and value are there
    float d_k[HELD] = {}, d_v[HELD] = {};
    for (uint32_t head = blockIdx.x * group; head < (blockIdx.x + 1) * group; ++head) {
      const Columns columns(head, dim, layout);
      for (uint32_t at = keys.first_reader; at < keys.first_reader + keys.readers; ++at) {
        const Reader reader = Reader::read(readers, at);
        if (number >= reader.keys) continue;
        const uint32_t position = keys.position + number;
        const auto query_row = [&](uint32_t query) { return qkv + columns.row(reader.row + query) + columns.q; };
        const auto gradient_row = [&](uint32_t query) { return d_out + (static_cast<size_t>(reader.row + query) * heads + head) * dim; };
        for (uint32_t first = 0; first < reader.rows; first += WARP) {
          const uint32_t count = min(WARP, reader.rows - first), query = first + lane_index();
          const bool seen = lane_index() < count && sees(reader.position + query, position, window);
          float p = 0.0f, d_s = 0.0f;
          if (seen) {
            const size_t state = static_cast<size_t>(head) * tokens + reader.row + query;
            p = expf(dot(query_row(query), k, dim) * scale - lse[state]);
            d_s = p * (dot(gradient_row(query), v, dim) - delta[state]);
          }
          weights[lane_index()] = p;
          slopes[lane_index()] = d_s;
          __syncwarp(); // the weights are there
          for (uint32_t i = 0; i < count; ++i) {
            if (!sees(reader.position + first + i, position, window)) continue;
            float q[HELD], gradient[HELD];
            load_row(query_row(first + i), dim, q);
            load_row(gradient_row(first + i), dim, gradient);
            add(d_v, weights[i], gradient);
            add(d_k, slopes[i], q);
          }
          __syncwarp(); // the weights are done with
        }
      }
    }
    store_row(d_qkv + own.row(keys.row + number) + own.k, dim, d_k, scale);
    store_row(d_qkv + own.row(keys.row + number) + own.v, dim, d_v, 1.0f);
  }
}
EXPORT(attention_key_gradients_f32)

extern "C" __global__ void __launch_bounds__(128)
    attention_query_gradients_f32(const float* qkv, const float* d_out, const float* lse, const float* delta, const uint32_t* tiles,
                                  float* d_qkv, uint32_t tokens, uint32_t heads, uint32_t kv_heads, uint32_t window, float scale,
                                  uint32_t dim) {
  SHARED_ARRAY(float, rows, WARPS * 2 * MOST);
  SHARED_ARRAY(float, parts, WARPS * WARP);
  float *const q = rows + warp_index() * 2 * MOST, *const gradient = q + MOST, *const slopes = parts + warp_index() * WARP;
  const Layout layout{tokens, heads, kv_heads, window, scale};
  const Queries queries = Queries::read(tiles, blockIdx.y);
  const Columns columns(blockIdx.x, dim, layout);
  for (uint32_t number = warp_index(); number < queries.rows; number += WARPS) {
    const uint32_t row = queries.row + number, position = queries.position + number;
    const size_t state = static_cast<size_t>(blockIdx.x) * tokens + row;
    __syncwarp(); // the last row is done with
    share_row(q, qkv + columns.row(row) + columns.q, dim);
    share_row(gradient, d_out + (static_cast<size_t>(row) * heads + blockIdx.x) * dim, dim);
    __syncwarp(); // query and gradient are there
    float d_q[HELD] = {};
    for (uint32_t first = first_seen(position, window); first <= position; first += WARP) {
      const uint32_t count = min(WARP, position + 1 - first);
      float d_s = 0.0f;
      if (lane_index() < count) {
        const float* there = qkv + columns.row(queries.key_row(first + lane_index()));
        const float p = expf(dot(q, there + columns.k, dim) * scale - lse[state]);
        d_s = p * (dot(gradient, there + columns.v, dim) - delta[state]);
      }
      slopes[lane_index()] = d_s;
      __syncwarp(); // the slopes are there
      for (uint32_t i = 0; i < count; ++i) {
        float k[HELD];
        load_row(qkv + columns.row(queries.key_row(first + i)) + columns.k, dim, k);
        add(d_q, slopes[i], k);
      }
      __syncwarp(); // the slopes are done with
    }
    store_row(d_qkv + columns.row(row) + columns.q, dim, d_q, scale);
  }
}
EXPORT(attention_query_gradients_f32)
