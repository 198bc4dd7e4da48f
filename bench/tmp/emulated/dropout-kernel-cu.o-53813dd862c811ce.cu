// Rows along x, packs of columns along y; a pack a thread. See mod.rs for the mask, whose bits these are.
#include "device.cuh"

/// A mask's factor of an element, by its place in the array.
struct Mask {
  uint64_t key;
  uint32_t threshold;
  float scale;

  __device__ __forceinline__ float factor(uint64_t index) const {
    return static_cast<uint32_t>(mix(key + index * GAMMA) >> 40) < threshold ? 0.0f : scale;
  }
};

/// `to` = mask ∘ x, or that added to it.
template <typename T, int N, bool ADD> __device__ void mask_pack(const T* x, T* to, uint32_t width, const Mask& mask) {
  const uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  const size_t at = static_cast<size_t>(blockIdx.x) * width + column;
  float values[N], sums[N];
  load(x + at, values);
  if (ADD) load(to + at, sums);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float value = values[i] * mask.factor(at + i);
    sums[i] = ADD ? sums[i] + value : value;
  }
  store(to + at, sums);
}

#define FOR_TYPE(T, suffix)                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                                                              \
      dropout_apply_##suffix(const T* x, T* out, uint32_t width, uint64_t key, uint32_t threshold, float scale) {                \
    const Mask mask{key, threshold, scale};                                                                                      \
    if (width % PACK<T> == 0) mask_pack<T, PACK<T>, false>(x, out, width, mask);                                                 \
    else mask_pack<T, 1, false>(x, out, width, mask);                                                                            \
  }                                                                                                                              \
  EXPORT(dropout_apply_##suffix)                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256)                                                                              \
      dropout_add_##suffix(const T* x, T* sum, uint32_t width, uint64_t key, uint32_t threshold, float scale) {                  \
    const Mask mask{key, threshold, scale};                                                                                      \
    if (width % PACK<T> == 0) mask_pack<T, PACK<T>, true>(x, sum, width, mask);                                                  \
    else mask_pack<T, 1, true>(x, sum, width, mask);                                                                             \
  }                                                                                                                              \
  EXPORT(dropout_add_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
