// The first kernel of the backward pass in bf16.
#pragma once

#include "device.cuh"

/// Δ = rowsum(dO ∘ O) for each row and head: a warp a head, its lanes the packs.
template <int D> __device__ void row_sums(const bf16* d_out, const bf16* out, float* delta, uint32_t tokens, uint32_t heads) {
  for (uint32_t head = warp_index(); head < heads; head += blockDim.x / WARP) {
    const size_t at = (static_cast<size_t>(blockIdx.x) * heads + head) * D + lane_index() * 8;
    float sum = 0.0f;
    if (lane_index() < D / 8) {
      float a[8], b[8];
      load(d_out + at, a);
      load(out + at, b);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum = fmaf(a[i], b[i], sum);
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) delta[static_cast<size_t>(head) * tokens + blockIdx.x] = sum;
  }
}
