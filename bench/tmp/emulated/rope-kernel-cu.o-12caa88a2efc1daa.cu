// One block a row of the batch: its position's cosines and sines serve all heads. In place; see mod.rs.
#include "device.cuh"

template <typename T, int N>
__device__ void rotate_row(T* x, uint32_t stride, uint32_t heads, uint32_t half, const uint32_t* positions, const float* cos, const float* sin,
                           float sign) {
  const size_t angles = static_cast<size_t>(positions[blockIdx.x]) * half;
  T* row = x + static_cast<size_t>(blockIdx.x) * stride;
  const uint32_t packs = half / N;
  for (uint32_t number = threadIdx.x; number < heads * packs; number += blockDim.x) {
    const uint32_t pair = number % packs * N;
    T* low = row + number / packs * 2 * half + pair;
    float a[N], b[N], cosine[N], sine[N];
    load(low, a);
    load(low + half, b);
    load(cos + angles + pair, cosine);
    load(sin + angles + pair, sine);
    float turned_a[N], turned_b[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float s = sine[i] * sign;
      turned_a[i] = fmaf(a[i], cosine[i], -(b[i] * s));
      turned_b[i] = fmaf(b[i], cosine[i], a[i] * s);
    }
    store(low, turned_a);
    store(low + half, turned_b);
  }
}

#define FOR_TYPE(T, suffix)                                                                                                            \
  extern "C" __global__ void __launch_bounds__(256) rope_##suffix(T* x, uint32_t stride, uint32_t heads, uint32_t half,                \
                                                                  const uint32_t* positions, const float* cos, const float* sin,       \
                                                                  float sign) {                                                        \
    if (half % PACK<T> == 0 && stride % PACK<T> == 0) rotate_row<T, PACK<T>>(x, stride, heads, half, positions, cos, sin, sign);       \
    else rotate_row<T, 1>(x, stride, heads, half, positions, cos, sin, sign);                                                          \
  }                                                                                                                                    \
  EXPORT(rope_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
