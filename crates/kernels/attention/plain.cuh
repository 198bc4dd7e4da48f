// Attention in f32 without tensor cores: a warp has a row and walks over its counterparts, 32 at a time. A lane multiplies
// the row with one of them, then it has some columns of their sum. Exact to f32 and slow: for models in f32, and to check
// the others against.
#pragma once

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

/// The warp's own row in shared memory, for all lanes to read.
__device__ __forceinline__ void share_row(float* shared, const float* row, uint32_t dim) {
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    if (i * WARP + lane_index() < dim) shared[i * WARP + lane_index()] = row[i * WARP + lane_index()];
  }
}

__device__ __forceinline__ float dot(const float* a, const float* b, uint32_t dim) {
  float sum = 0.0f;
  for (uint32_t i = 0; i < dim; ++i) sum = fmaf(a[i], b[i], sum);
  return sum;
}

__device__ __forceinline__ void add(float (&sums)[HELD], float factor, const float (&values)[HELD]) {
#pragma unroll
  for (int i = 0; i < HELD; ++i) sums[i] = fmaf(factor, values[i], sums[i]);
}

constexpr int WARPS = 4, MOST = HELD * 32;

/// What a warp's query has seen so far: its values' sum, their mass against the largest score.
struct Seen {
  float sums[HELD] = {}, largest = -INFINITY, mass = 0.0f;

  /// Goes on with keys [first, end), whose rows are `key(i)` and `value(i)`. The query, 32 `scores` and as many `weights` lie in
  /// shared memory that is the warp's own.
  template <typename Key, typename Value>
  __device__ __forceinline__ void walk(const float* q, float* scores, float* weights, uint32_t first, uint32_t end, uint32_t dim, float scale,
                                       Key key, Value value) {
    for (; first < end; first += WARP) {
      const uint32_t count = min(WARP, end - first);
      scores[lane_index()] = lane_index() < count ? dot(q, key(first + lane_index()), dim) * scale : -INFINITY;
      __syncwarp(); // the scores are there, the last weights are done with
      float best = largest;
      for (uint32_t i = 0; i < count; ++i) best = fmaxf(best, scores[i]);
      weights[lane_index()] = expf(scores[lane_index()] - best);
      __syncwarp(); // the weights are there, the scores are done with
      const float factor = expf(largest - best);
      float total = 0.0f;
#pragma unroll
      for (int i = 0; i < HELD; ++i) sums[i] *= factor;
      for (uint32_t i = 0; i < count; ++i) {
        float v[HELD];
        load_row(value(first + i), dim, v);
        add(sums, weights[i], v);
        total += weights[i];
      }
      mass = fmaf(mass, factor, total);
      largest = best;
    }
  }
};
