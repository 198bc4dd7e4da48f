// Casts of flat arrays, and copies of rows between arrays of different strides.
#include "device.cuh"

constexpr int RUN = 8;

template <typename From, typename To> __device__ void cast_run(const From* from, To* to, uint64_t len, uint32_t aligned) {
  const size_t first = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * RUN;
  if (aligned && first + RUN <= len) {
    float values[RUN];
    load(from + first, values);
    store(to + first, values);
  } else {
    for (size_t at = first; at < len && at < first + RUN; ++at) to[at] = from_float<To>(to_float(from[at]));
  }
}

extern "C" __global__ void __launch_bounds__(256) cast_f32(const bf16* from, float* to, uint64_t len, uint32_t aligned) {
  cast_run(from, to, len, aligned);
}
EXPORT(cast_f32)
extern "C" __global__ void __launch_bounds__(256) cast_bf16(const float* from, bf16* to, uint64_t len, uint32_t aligned) {
  cast_run(from, to, len, aligned);
}
EXPORT(cast_bf16)

/// Rows along x, columns along y.
template <typename T, int N, bool ADD> __device__ void move_pack(const T* from, uint32_t from_stride, T* to, uint32_t to_stride, uint32_t width) {
  const uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  T* target = to + static_cast<size_t>(blockIdx.x) * to_stride + column;
  float values[N];
  load(from + static_cast<size_t>(blockIdx.x) * from_stride + column, values);
  if (ADD) {
    float sum[N];
    load(target, sum);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = sum[i] + values[i];
  }
  store(target, values);
}

template <typename T, bool ADD>
__device__ void move_rows(const T* from, uint32_t from_stride, T* to, uint32_t to_stride, uint32_t width, uint32_t aligned) {
  if (aligned) move_pack<T, PACK<T>, ADD>(from, from_stride, to, to_stride, width);
  else move_pack<T, 1, ADD>(from, from_stride, to, to_stride, width);
}

#define FOR_TYPE(T, suffix)                                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) copy_rows_##suffix(const T* from, uint32_t from_stride, T* to,                 \
                                                                       uint32_t to_stride, uint32_t width, uint32_t aligned) {     \
    move_rows<T, false>(from, from_stride, to, to_stride, width, aligned);                                                         \
  }                                                                                                                                \
  EXPORT(copy_rows_##suffix)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(256) add_rows_##suffix(const T* from, uint32_t from_stride, T* to,                  \
                                                                      uint32_t to_stride, uint32_t width, uint32_t aligned) {      \
    move_rows<T, true>(from, from_stride, to, to_stride, width, aligned);                                                          \
  }                                                                                                                                \
  EXPORT(add_rows_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
