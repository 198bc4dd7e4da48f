// What rows of logits say about their targets, in one pass over them, and the logits' gradient. The logits come from a
// matrix product, a chunk of rows at a time; f32 ones keep a log-probability's digits, bf16 ones take half the memory.
#include "device.cuh"

constexpr float LOG2_E = 1.44269504f;

__device__ __forceinline__ float exponential(float x) { return exp2_approximate(x * LOG2_E); }

/// A part of a row: its largest logit and where it stands first, and the sums of e^(x − largest), of that times
/// (x − largest), of its square, and of x.
struct Part {
  float largest, mass, moment, squares, total;
  uint32_t place;
};

/// Takes the sums to another, larger `largest`.
__device__ __forceinline__ void raise(Part& part, float largest) {
  if (part.largest == largest || part.mass == 0.0f) {
    part.largest = largest;
    return;
  }
  const float shift = part.largest - largest, factor = exponential(shift);
  part.moment = factor * fmaf(part.mass, shift, part.moment);
  part.mass *= factor;
  part.squares *= factor * factor;
  part.largest = largest;
}

__device__ __forceinline__ void merge(Part& part, Part other) {
  const bool theirs = other.largest > part.largest || (other.largest == part.largest && other.place < part.place);
  const uint32_t place = theirs ? other.place : part.place;
  const float largest = fmaxf(part.largest, other.largest);
  raise(part, largest);
  raise(other, largest);
  part.mass += other.mass;
  part.moment += other.moment;
  part.squares += other.squares;
  part.total += other.total;
  part.place = place;
}

__device__ __forceinline__ Part from_lane(const Part& part, int distance) {
  return Part{__shfl_xor_sync(ALL_LANES, part.largest, distance), __shfl_xor_sync(ALL_LANES, part.mass, distance),
              __shfl_xor_sync(ALL_LANES, part.moment, distance),  __shfl_xor_sync(ALL_LANES, part.squares, distance),
              __shfl_xor_sync(ALL_LANES, part.total, distance),   __shfl_xor_sync(ALL_LANES, part.place, distance)};
}

template <typename T, int N> __device__ Part read_row(const T* row, uint32_t vocabulary) {
  Part part{-INFINITY, 0.0f, 0.0f, 0.0f, 0.0f, 0xffffffffu};
  for (uint32_t column = threadIdx.x * N; column < vocabulary; column += blockDim.x * N) {
    float values[N];
    load(row + column, values);
    float largest = values[0];
#pragma unroll
    for (int i = 1; i < N; ++i) largest = fmaxf(largest, values[i]);
    if (largest > part.largest) {
      raise(part, largest);
#pragma unroll
      for (int i = N - 1; i >= 0; --i) part.place = values[i] == largest ? column + i : part.place;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float shifted = values[i] - part.largest, mass = exponential(shifted);
      part.mass += mass;
      part.moment = fmaf(mass, shifted, part.moment);
      part.squares = fmaf(mass, mass, part.squares);
      part.total += values[i];
    }
  }
  return part;
}

/// A block a row.
template <typename T>
__device__ void statistics(const T* logits, const uint32_t* targets, uint32_t vocabulary, float* logp, float* lse, float* entropy,
                           float* log_collision, float* logit_mean, uint8_t* correct) {
  const T* row = logits + static_cast<size_t>(blockIdx.x) * vocabulary;
  Part part = vocabulary % PACK<T> == 0 ? read_row<T, PACK<T>>(row, vocabulary) : read_row<T, 1>(row, vocabulary);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) merge(part, from_lane(part, distance));
  SHARED_ARRAY(Part, parts, 32);
  if (lane_index() == 0) parts[warp_index()] = part;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (uint32_t warp = 1; warp < blockDim.x / WARP; ++warp) merge(part, parts[warp]);
  const uint32_t target = targets[blockIdx.x];
  const float log_mass = logf(part.mass);
  const float row_lse = part.largest + log_mass;
  lse[blockIdx.x] = row_lse;
  logp[blockIdx.x] = to_float(row[target]) - row_lse;
  entropy[blockIdx.x] = log_mass - part.moment / part.mass;
  log_collision[blockIdx.x] = logf(part.squares) - 2.0f * log_mass;
  logit_mean[blockIdx.x] = part.total / static_cast<float>(vocabulary);
  correct[blockIdx.x] = part.place == target ? 1 : 0;
}

/// `coefficient · (onehot − softmax)` in the type of the products to come; rows along x, columns along y. It may take the
/// place of logits of its own type.
template <typename T, typename D, int N>
__device__ void gradient_pack(const T* logits, const uint32_t* targets, const float* lse, const float* coefficient, uint32_t vocabulary,
                              D* d_logits) {
  const uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * N;
  if (column >= vocabulary) return;
  const size_t at = static_cast<size_t>(blockIdx.x) * vocabulary + column;
  const uint32_t target = targets[blockIdx.x];
  const float row_lse = lse[blockIdx.x], factor = coefficient[blockIdx.x];
  float values[N];
  load(logits + at, values);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    values[i] = -factor * exponential(values[i] - row_lse);
    if (column + i == target) values[i] += factor;
  }
  store(d_logits + at, values);
}

#define FOR_TYPE(T, suffix)                                                                                                            \
  extern "C" __global__ void __launch_bounds__(512)                                                                                    \
      head_statistics_##suffix(const T* logits, const uint32_t* targets, uint32_t vocabulary, float* logp, float* lse, float* entropy, \
                               float* log_collision, float* logit_mean, uint8_t* correct) {                                            \
    statistics(logits, targets, vocabulary, logp, lse, entropy, log_collision, logit_mean, correct);                                   \
  }                                                                                                                                    \
  EXPORT(head_statistics_##suffix)

/// head_gradient_<logits>_<gradient>
#define FOR_TYPES(T, D, suffix)                                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) head_gradient_##suffix(const T* logits, const uint32_t* targets, const float* lse, \
                                                                           const float* coefficient, uint32_t vocabulary,              \
                                                                           D* d_logits) {                                              \
    if (vocabulary % 8 == 0) gradient_pack<T, D, 8>(logits, targets, lse, coefficient, vocabulary, d_logits);                          \
    else gradient_pack<T, D, 1>(logits, targets, lse, coefficient, vocabulary, d_logits);                                              \
  }                                                                                                                                    \
  EXPORT(head_gradient_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
FOR_TYPES(float, float, f32_f32)
FOR_TYPES(float, bf16, f32_bf16)
FOR_TYPES(bf16, bf16, bf16_bf16)
