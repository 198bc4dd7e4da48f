// One block a row. A row is read once and held in registers; see mod.rs for the formulas and cuda.rs for the launches.
#include "device.cuh"

/// Packs of a row that a thread holds at most.
constexpr int HELD = 4;

template <typename T, int N, bool ADD>
__device__ void forward_row(const T* x, T* residual, const T* weight, float eps, T* out, float* rstd, uint32_t width) {
  const size_t row = static_cast<size_t>(blockIdx.x) * width;
  float values[HELD][N];
#pragma unroll
  for (int held = 0; held < HELD; ++held) {
    const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
    if (column < width) load(x + row + column, values[held]);
  }
  float squares = 0.0f;
#pragma unroll
  for (int held = 0; held < HELD; ++held) {
    const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
    if (column >= width) continue;
    if (ADD) {
      float before[N];
      load(residual + row + column, before);
#pragma unroll
      // What is normalised is the residual as it is stored.
      for (int i = 0; i < N; ++i) values[held][i] = to_float(from_float<T>(before[i] + values[held][i]));
      store(residual + row + column, values[held]);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) squares = fmaf(values[held][i], values[held][i], squares);
  }
  const float factor = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(width) + eps);
#pragma unroll
  for (int held = 0; held < HELD; ++held) {
    const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
    if (column >= width) continue;
    float scaled[N];
    load(weight + column, scaled);
#pragma unroll
    for (int i = 0; i < N; ++i) scaled[i] = scaled[i] * (values[held][i] * factor);
    store(out + row + column, scaled);
  }
  if (threadIdx.x == 0) rstd[blockIdx.x] = factor;
}

template <typename T, bool ADD>
__device__ void forward(const T* x, T* residual, const T* weight, float eps, T* out, float* rstd, uint32_t width) {
  if (width % PACK<T> == 0) forward_row<T, PACK<T>, ADD>(x, residual, weight, eps, out, rstd, width);
  else forward_row<T, 1, ADD>(x, residual, weight, eps, out, rstd, width);
}

/// `partial` [gridDim.x, width]: this block's share of the weight's gradient; null when nobody wants it.
template <typename T, int N>
__device__ void backward_rows(const T* d_out, const T* x, const T* weight, const float* rstd, T* d_x, float* partial, uint32_t rows,
                              uint32_t width) {
  float sums[HELD][N] = {};
  for (uint32_t number = blockIdx.x; number < rows; number += gridDim.x) {
    const size_t row = static_cast<size_t>(number) * width;
    float gradient[HELD][N], values[HELD][N];
#pragma unroll
    for (int held = 0; held < HELD; ++held) {
      const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
      if (column >= width) continue;
      load(d_out + row + column, gradient[held]);
      load(x + row + column, values[held]);
    }
    const float factor = rstd[number];
    float dot = 0.0f;
#pragma unroll
    for (int held = 0; held < HELD; ++held) {
      const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
      if (column >= width) continue;
      float scale[N];
      load(weight + column, scale);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sums[held][i] = fmaf(gradient[held][i], values[held][i] * factor, sums[held][i]);
        gradient[held][i] *= scale[i];
        dot = fmaf(gradient[held][i], values[held][i], dot);
      }
    }
    const float pull = -block_sum(dot) * factor * factor * factor / static_cast<float>(width);
#pragma unroll
    for (int held = 0; held < HELD; ++held) {
      const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
      if (column >= width) continue;
      float sum[N];
      load(d_x + row + column, sum);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += fmaf(gradient[held][i], factor, values[held][i] * pull);
      store(d_x + row + column, sum);
    }
  }
  if (!partial) return;
#pragma unroll
  for (int held = 0; held < HELD; ++held) {
    const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
    if (column < width) store(partial + static_cast<size_t>(blockIdx.x) * width + column, sums[held]);
  }
}

template <typename T>
__device__ void backward(const T* d_out, const T* x, const T* weight, const float* rstd, T* d_x, float* partial, uint32_t rows, uint32_t width) {
  if (width % PACK<T> == 0) backward_rows<T, PACK<T>>(d_out, x, weight, rstd, d_x, partial, rows, width);
  else backward_rows<T, 1>(d_out, x, weight, rstd, d_x, partial, rows, width);
}

/// Adds up the shares of `parts` blocks in a fixed order: 32 columns a block, each warp every eighth share.
template <typename T> __device__ void add_parts(const float* partial, uint32_t parts, T* d_weight, uint32_t width) {
  constexpr uint32_t WARPS = 8;
  SHARED_ARRAY(float, sums, WARPS * WARP);
  const uint32_t column = blockIdx.x * WARP + lane_index();
  float sum = 0.0f;
  if (column < width) {
    for (uint32_t part = warp_index(); part < parts; part += WARPS) sum += partial[static_cast<size_t>(part) * width + column];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp_index() == 0 && column < width) {
    for (uint32_t warp = 1; warp < WARPS; ++warp) sum += sums[warp * WARP + lane_index()];
    d_weight[column] = from_float<T>(to_float(d_weight[column]) + sum);
  }
}

#define FOR_TYPE(T, suffix)                                                                                                    \
  extern "C" __global__ void __launch_bounds__(512)                                                                           \
      rms_norm_forward_##suffix(const T* x, const T* weight, float eps, T* out, float* rstd, uint32_t width) {                 \
    forward<T, false>(x, nullptr, weight, eps, out, rstd, width);                                                              \
  }                                                                                                                            \
  EXPORT(rms_norm_forward_##suffix)                                                                                            \
  extern "C" __global__ void __launch_bounds__(512) rms_norm_forward_add_##suffix(const T* delta, T* residual, const T* weight, \
                                                                                   float eps, T* out, float* rstd, uint32_t width) { \
    forward<T, true>(delta, residual, weight, eps, out, rstd, width);                                                          \
  }                                                                                                                            \
  EXPORT(rms_norm_forward_add_##suffix)                                                                                        \
  extern "C" __global__ void __launch_bounds__(512) rms_norm_backward_##suffix(const T* d_out, const T* x, const T* weight, const float* rstd, T* d_x, \
                                                        float* partial, uint32_t rows, uint32_t width) {                       \
    backward(d_out, x, weight, rstd, d_x, partial, rows, width);                                                               \
  }                                                                                                                            \
  EXPORT(rms_norm_backward_##suffix)                                                                                           \
  extern "C" __global__ void rms_norm_weight_gradient_##suffix(const float* partial, uint32_t parts, T* d_weight, uint32_t width) { \
    add_parts(partial, parts, d_weight, width);                                                                                \
  }                                                                                                                            \
  EXPORT(rms_norm_weight_gradient_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
