// The squared norm in f64: each block's share, then their sum in a fixed order and what clipping makes of it.
#include "device.cuh"

/// Elements between two loads of a block.
constexpr int RUN = 8;

template <typename T> __device__ void share_of_squares(const T* x, uint64_t len, uint32_t aligned, double* shares) {
  double sum = 0.0;
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x * RUN;
  for (size_t first = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * RUN; first < len; first += stride) {
    if (aligned && first + RUN <= len) {
      float values[RUN];
      load(x + first, values);
#pragma unroll
      for (int i = 0; i < RUN; ++i) sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    } else {
      for (size_t at = first; at < len && at < first + RUN; ++at) sum += static_cast<double>(to_float(x[at])) * static_cast<double>(to_float(x[at]));
    }
  }
  const double total = block_sum(sum);
  if (threadIdx.x == 0) shares[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(256) norm_shares_f32(const float* x, uint64_t len, uint32_t aligned, double* shares) {
  share_of_squares(x, len, aligned, shares);
}
EXPORT(norm_shares_f32)
extern "C" __global__ void __launch_bounds__(256) norm_shares_bf16(const bf16* x, uint64_t len, uint32_t aligned, double* shares) {
  share_of_squares(x, len, aligned, shares);
}
EXPORT(norm_shares_bf16)

/// PyTorch's clip_grad_norm_: the gradients' factor is `scale` · min(1, most / (norm + 1e-6)), the norm being that of the
/// scaled gradients. A norm that is not finite makes a factor that is not, which AdamW takes as «leave it out».
extern "C" __global__ void __launch_bounds__(256) norm_clip(const double* shares, uint32_t count, float scale, float most, float* grad_scale,
                                                            float* norm) {
  double sum = 0.0;
  for (uint32_t at = threadIdx.x; at < count; at += blockDim.x) sum += shares[at];
  const double total = block_sum(sum);
  if (threadIdx.x != 0) return;
  const double length = sqrt(total) * static_cast<double>(scale);
  const double clip = static_cast<double>(most) / (length + 1e-6);
  // Written so that NaN stays.
  *grad_scale = static_cast<float>(static_cast<double>(scale) * (clip >= 1.0 ? 1.0 : clip) * (length - length + 1.0));
  *norm = static_cast<float>(length);
}
EXPORT(norm_clip)
