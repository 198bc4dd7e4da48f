// Rows along x, packs of columns along y; a pack a thread. See mod.rs for the noise, whose bits these are.
#include "device.cuh"

/// Element `index` of a splitmix64 sequence.
__device__ __forceinline__ uint64_t at(uint64_t index) { return mix((index + 1) * GAMMA); }

template <typename T, int N> __device__ void add_pack(T* embeddings, const float* reaches, uint32_t width, uint64_t key) {
  const uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  const size_t first = static_cast<size_t>(blockIdx.x) * width + column;
  const float reach = reaches[blockIdx.x];
  float values[N];
  load(embeddings + first, values);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float uniform = static_cast<float>(static_cast<uint32_t>(at(key + first + i) >> 40)) / 16777216.0f;
    values[i] += reach * (2.0f * uniform - 1.0f);
  }
  store(embeddings + first, values);
}

#define FOR_TYPE(T, suffix)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                            \
      noise_add_##suffix(T* embeddings, const float* reaches, uint32_t width, uint64_t key) {                  \
    if (width % PACK<T> == 0) add_pack<T, PACK<T>>(embeddings, reaches, width, key);                           \
    else add_pack<T, 1>(embeddings, reaches, width, key);                                                      \
  }                                                                                                            \
  EXPORT(noise_add_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
