// Unpacks NF4: `quantile[code] · (dynamic[q] · absmax₂ + offset)`, each operation rounded as on the CPU. Sixteen values a
// thread, so that a block's absmax is worked out four times. The table of quantiles lies in shared memory, where sixteen
// words never share a bank.
#include "device.cuh"

constexpr int RUN = 16;
constexpr uint32_t BLOCK = 64, NESTED = 256;

template <typename T>
__device__ void dequantise(const uint8_t* packed, const uint8_t* absmax, const float* nested_absmax, float offset, const float* tables,
                           uint64_t start, uint64_t count, T* out) {
  SHARED_ARRAY(float, quantiles, 16);
  if (threadIdx.x < 16) quantiles[threadIdx.x] = tables[threadIdx.x];
  __syncthreads();
  const float* dynamic = tables + 16;
  const uint64_t first = (static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * RUN;
  if (first >= count) return;
  const uint64_t block = (start + first) / BLOCK;
  const float scale = dynamic[absmax[block]] * nested_absmax[block / NESTED] + offset;
  if (first + RUN <= count) {
    const uint2 bytes = load8(packed + (start + first) / 2);
    float values[RUN];
#pragma unroll
    for (int i = 0; i < RUN; ++i) {
      const uint32_t byte = (i < 8 ? bytes.x : bytes.y) >> (i % 8 / 2 * 8);
      values[i] = quantiles[i % 2 == 0 ? byte >> 4 & 15u : byte & 15u] * scale;
    }
    store(out + first, values);
  } else {
    for (uint64_t at = first; at < count; ++at) {
      const uint32_t byte = packed[(start + at) / 2];
      out[at] = from_float<T>(quantiles[at % 2 == 0 ? byte >> 4 : byte & 15u] * scale);
    }
  }
}

#define FOR_TYPE(T, suffix)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                                                      \
      nf4_dequantise_##suffix(const uint8_t* packed, const uint8_t* absmax, const float* nested_absmax, float offset, const float* tables, \
                              uint64_t start, uint64_t count, T* out) {                                                                  \
    dequantise(packed, absmax, nested_absmax, offset, tables, start, count, out);                                                        \
  }                                                                                                                                      \
  EXPORT(nf4_dequantise_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
