// Attention in f32 without tensor cores: a warp has a row and walks over its counterparts one by one. Exact to f32 and slow:
// for models in f32, and to check the others against. The work list is that of forward.cu and backward.cu.
#include "plan.cuh"

/// Elements of a head that a lane holds at most.
constexpr int HELD = 4;

/// The lane's elements of a row of `dim`, zeros beyond it.
__device__ __forceinline__ void load_row(const float* row, uint32_t dim, float (&values)[HELD]) {
#pragma unroll
  for (int i = 0; i < HELD; ++i) values[i] = i * WARP + lane_index() < dim ? row[i * WARP + lane_index()] : 0.0f;
}

__device__ __forceinline__ void store_row(float* row, uint32_t dim, const float (&values)[HELD], float factor) {
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    if (i * WARP + lane_index() < dim) row[i * WARP + lane_index()] = values[i] * factor;
  }
}

__device__ __forceinline__ float dot(const float (&a)[HELD], const float (&b)[HELD]) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < HELD; ++i) sum = fmaf(a[i], b[i], sum);
  return warp_sum(sum);
}

__device__ __forceinline__ void add(float (&sums)[HELD], float factor, const float (&values)[HELD]) {
#pragma unroll
  for (int i = 0; i < HELD; ++i) sums[i] = fmaf(factor, values[i], sums[i]);
}

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
  const Layout layout{tokens, heads, kv_heads, window, scale};
  const Queries queries = Queries::read(tiles, blockIdx.y);
  const Columns columns(blockIdx.x, dim, layout);
  for (uint32_t number = warp_index(); number < queries.rows; number += blockDim.x / WARP) {
    const uint32_t row = queries.row + number, position = queries.position + number;
    float q[HELD], sums[HELD] = {};
    load_row(qkv + columns.row(row) + columns.q, dim, q);
    float largest = -INFINITY, mass = 0.0f;
    for (uint32_t key = first_seen(position, window); key <= position; ++key) {
      const float* there = qkv + columns.row(queries.key_row(key));
      float k[HELD], v[HELD];
      load_row(there + columns.k, dim, k);
      load_row(there + columns.v, dim, v);
      const float score = dot(q, k) * scale, best = fmaxf(largest, score);
      const float factor = expf(largest - best), weight = expf(score - best);
      mass = fmaf(mass, factor, weight);
#pragma unroll
      for (int i = 0; i < HELD; ++i) sums[i] *= factor;
      add(sums, weight, v);
      largest = best;
    }
    store_row(out + (static_cast<size_t>(row) * heads + blockIdx.x) * dim, dim, sums, 1.0f / mass);
    if (lane_index() == 0) lse[static_cast<size_t>(blockIdx.x) * tokens + row] = largest + logf(mass);
  }
}
EXPORT(attention_forward_f32)

extern "C" __global__ void __launch_bounds__(256)
    attention_row_sums_f32(const float* d_out, const float* out, float* delta, uint32_t tokens, uint32_t heads, uint32_t dim) {
  for (uint32_t head = warp_index(); head < heads; head += blockDim.x / WARP) {
    const size_t at = (static_cast<size_t>(blockIdx.x) * heads + head) * dim;
    float a[HELD], b[HELD];
    load_row(d_out + at, dim, a);
    load_row(out + at, dim, b);
    const float sum = dot(a, b);
    if (lane_index() == 0) delta[static_cast<size_t>(head) * tokens + blockIdx.x] = sum;
  }
}
EXPORT(attention_row_sums_f32)

extern "C" __global__ void __launch_bounds__(128)
    attention_key_gradients_f32(const float* qkv, const float* d_out, const float* lse, const float* delta, const uint32_t* tiles,
                                const uint32_t* readers, float* d_qkv, uint32_t tokens, uint32_t heads, uint32_t kv_heads, uint32_t window,
                                float scale, uint32_t dim) {
  const Layout layout{tokens, heads, kv_heads, window, scale};
  const Keys keys = Keys::read(tiles, blockIdx.y);
  const uint32_t group = heads / kv_heads;
  for (uint32_t number = warp_index(); number < keys.rows; number += blockDim.x / WARP) {
    float k[HELD], v[HELD], d_k[HELD] = {}, d_v[HELD] = {};
    const Columns own(blockIdx.x * group, dim, layout);
    load_row(qkv + own.row(keys.row + number) + own.k, dim, k);
    load_row(qkv + own.row(keys.row + number) + own.v, dim, v);
    for (uint32_t head = blockIdx.x * group; head < (blockIdx.x + 1) * group; ++head) {
      const Columns columns(head, dim, layout);
      for (uint32_t at = keys.first_reader; at < keys.first_reader + keys.readers; ++at) {
        const Reader reader = Reader::read(readers, at);
        for (uint32_t query = 0; query < reader.rows; ++query) {
          if (number >= reader.keys || !sees(reader.position + query, keys.position + number, window)) continue;
          const uint32_t row = reader.row + query;
          float q[HELD], gradient[HELD];
          load_row(qkv + columns.row(row) + columns.q, dim, q);
          load_row(d_out + (static_cast<size_t>(row) * heads + head) * dim, dim, gradient);
          const size_t state = static_cast<size_t>(head) * tokens + row;
          const float p = expf(dot(q, k) * scale - lse[state]);
          const float d_s = p * (dot(gradient, v) - delta[state]);
          add(d_v, p, gradient);
          add(d_k, d_s, q);
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
  const Layout layout{tokens, heads, kv_heads, window, scale};
  const Queries queries = Queries::read(tiles, blockIdx.y);
  const Columns columns(blockIdx.x, dim, layout);
  for (uint32_t number = warp_index(); number < queries.rows; number += blockDim.x / WARP) {
    const uint32_t row = queries.row + number, position = queries.position + number;
    const size_t state = static_cast<size_t>(blockIdx.x) * tokens + row;
    float q[HELD], gradient[HELD], d_q[HELD] = {};
    load_row(qkv + columns.row(row) + columns.q, dim, q);
    load_row(d_out + (static_cast<size_t>(row) * heads + blockIdx.x) * dim, dim, gradient);
    for (uint32_t key = first_seen(position, window); key <= position; ++key) {
      const float* there = qkv + columns.row(queries.key_row(key));
      float k[HELD], v[HELD];
      load_row(there + columns.k, dim, k);
      load_row(there + columns.v, dim, v);
      const float p = expf(dot(q, k) * scale - lse[state]);
      add(d_q, p * (dot(gradient, v) - delta[state]), k);
    }
    store_row(d_qkv + columns.row(row) + columns.q, dim, d_q, scale);
  }
}
EXPORT(attention_query_gradients_f32)
