// What all kernels share. The same sources go through nvcc (ptx.cuh) and, for the CPU, through g++ (emulation/).
#pragma once

#ifdef __CUDACC__
#include "ptx.cuh"
#else
#include "emulation/emulation.h"
#endif

constexpr uint32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffff;

__device__ __forceinline__ uint32_t lane_index() { return threadIdx.x % WARP; }
__device__ __forceinline__ uint32_t warp_index() { return threadIdx.x / WARP; }

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bf16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }
__device__ __forceinline__ float low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/// The nearest `T`, ties to even.
template <typename T> __device__ __forceinline__ T from_float(float value);
template <> __device__ __forceinline__ float from_float<float>(float value) { return value; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float value) { return bf16{static_cast<uint16_t>(pack_bf16(value, 0.0f))}; }

/// splitmix64's step and its finaliser (../splitmix.rs).
constexpr uint64_t GAMMA = 0x9e3779b97f4a7c15ull;
__device__ __forceinline__ uint64_t mix(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
  return bits ^ (bits >> 31);
}

/// Elements that one access of 16 bytes moves.
template <typename T> constexpr int PACK = 16 / sizeof(T);

/// `N` neighbours as f32: one element, or whole packs from an address that is a multiple of 16.
template <int N> __device__ __forceinline__ void load(const float* from, float (&values)[N]) {
  if constexpr (N == 1) {
    values[0] = *from;
  } else {
#pragma unroll
    for (int first = 0; first + 4 <= N; first += 4) {
      const uint4 pack = load16(from + first);
      values[first] = __uint_as_float(pack.x);
      values[first + 1] = __uint_as_float(pack.y);
      values[first + 2] = __uint_as_float(pack.z);
      values[first + 3] = __uint_as_float(pack.w);
    }
  }
}
template <int N> __device__ __forceinline__ void load(const bf16* from, float (&values)[N]) {
  if constexpr (N == 1) {
    values[0] = to_float(*from);
  } else {
#pragma unroll
    for (int first = 0; first + 8 <= N; first += 8) {
      const uint4 pack = load16(from + first);
      const uint32_t words[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
      for (int word = 0; word < 4; ++word) {
        values[first + 2 * word] = low_half(words[word]);
        values[first + 2 * word + 1] = high_half(words[word]);
      }
    }
  }
}

/// The opposite of `load`; rounds.
template <int N> __device__ __forceinline__ void store(float* to, const float (&values)[N]) {
  if constexpr (N == 1) {
    *to = values[0];
  } else {
#pragma unroll
    for (int first = 0; first + 4 <= N; first += 4) {
      store16(to + first, uint4{__float_as_uint(values[first]), __float_as_uint(values[first + 1]), __float_as_uint(values[first + 2]),
                                __float_as_uint(values[first + 3])});
    }
  }
}
template <int N> __device__ __forceinline__ void store(bf16* to, const float (&values)[N]) {
  if constexpr (N == 1) {
    *to = from_float<bf16>(values[0]);
  } else {
#pragma unroll
    for (int first = 0; first + 8 <= N; first += 8) {
      store16(to + first, uint4{pack_bf16(values[first], values[first + 1]), pack_bf16(values[first + 2], values[first + 3]),
                                pack_bf16(values[first + 4], values[first + 5]), pack_bf16(values[first + 6], values[first + 7])});
    }
  }
}

/// `N` neighbours of 16 bits as they are.
template <int N> __device__ __forceinline__ void load_bits(const uint16_t* from, uint32_t (&values)[N]) {
  if constexpr (N == 1) {
    values[0] = *from;
  } else {
    static_assert(N == 8, "a pack");
    const uint4 pack = load16(from);
    const uint32_t words[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = i % 2 == 0 ? words[i / 2] & 0xffffu : words[i / 2] >> 16;
  }
}
/// The lower halves of `values`; what lies above must be 0.
template <int N> __device__ __forceinline__ void store_bits(uint16_t* to, const uint32_t (&values)[N]) {
  if constexpr (N == 1) {
    *to = static_cast<uint16_t>(values[0]);
  } else {
    static_assert(N == 8, "a pack");
    store16(to, uint4{values[0] | values[1] << 16, values[2] | values[3] << 16, values[4] | values[5] << 16, values[6] | values[7] << 16});
  }
}

/// Sum over the lanes of a warp, the same bits in each.
template <typename T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
  return value;
}

/// Sum over the threads of a block of whole warps, the same bits in each. A barrier for the block.
template <typename T> __device__ __forceinline__ T block_sum(T value) {
  SHARED_ARRAY(T, sums, 32);
  value = warp_sum(value);
  if (blockDim.x == WARP) return value;
  if (lane_index() == 0) sums[warp_index()] = value;
  __syncthreads();
  const T total = warp_sum(lane_index() < blockDim.x / WARP ? sums[lane_index()] : T(0));
  __syncthreads();
  return total;
}
