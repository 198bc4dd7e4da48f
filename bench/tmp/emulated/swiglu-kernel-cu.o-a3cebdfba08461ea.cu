// Rows along x, packs of columns along y; a pack a thread. See mod.rs for the formulas.
#include "device.cuh"

template <typename T, int N> __device__ void forward_pack(const T* gate_up, T* out, uint32_t width) {
  const uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  const T* row = gate_up + static_cast<size_t>(blockIdx.x) * 2 * width;
  float gate[N], up[N];
  load(row + column, gate);
  load(row + width + column, up);
#pragma unroll
  for (int i = 0; i < N; ++i) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
  store(out + static_cast<size_t>(blockIdx.x) * width + column, gate);
}

/// In place: the gradient takes the place of what it is of.
template <typename T, int N> __device__ void backward_pack(const T* d_out, T* gate_up, uint32_t width) {
  const uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  T* row = gate_up + static_cast<size_t>(blockIdx.x) * 2 * width;
  float gate[N], up[N], gradient[N];
  load(row + column, gate);
  load(row + width + column, up);
  load(d_out + static_cast<size_t>(blockIdx.x) * width + column, gradient);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float sigmoid = 1.0f / (1.0f + expf(-gate[i]));
    const float silu = gate[i] * sigmoid;
    const float slope = fmaf(silu, 1.0f - sigmoid, sigmoid);
    gate[i] = gradient[i] * up[i] * slope;
    up[i] = gradient[i] * silu;
  }
  store(row + column, gate);
  store(row + width + column, up);
}

#define FOR_TYPE(T, suffix)                                                                                                     \
  extern "C" __global__ void __launch_bounds__(256) swiglu_forward_##suffix(const T* gate_up, T* out, uint32_t width) {         \
    if (width % PACK<T> == 0) forward_pack<T, PACK<T>>(gate_up, out, width);                                                    \
    else forward_pack<T, 1>(gate_up, out, width);                                                                               \
  }                                                                                                                             \
  EXPORT(swiglu_forward_##suffix)                                                                                               \
  extern "C" __global__ void __launch_bounds__(256) swiglu_backward_##suffix(const T* d_out, T* gate_up, uint32_t width) {      \
    if (width % PACK<T> == 0) backward_pack<T, PACK<T>>(d_out, gate_up, width);                                                 \
    else backward_pack<T, 1>(d_out, gate_up, width);                                                                            \
  }                                                                                                                             \
  EXPORT(swiglu_backward_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
