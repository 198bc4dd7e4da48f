// Lookup, and its gradient without atomics: the block of an id's first token adds up the rows of all its tokens in their
// order. A block looks through all ids, which are few bytes beside the rows.
#include "device.cuh"

constexpr int HELD = 4;
constexpr uint32_t MOST_WARPS = 16;

template <typename T, int N> __device__ void copy_row(const T* table, const uint32_t* ids, T* out, uint32_t width) {
  const T* from = table + static_cast<size_t>(ids[blockIdx.x]) * width;
  T* to = out + static_cast<size_t>(blockIdx.x) * width;
  for (uint32_t column = threadIdx.x * N; column < width; column += blockDim.x * N) {
    float values[N];
    load(from + column, values);
    store(to + column, values);
  }
}

template <typename T, int N>
__device__ void add_rows(const T* d_out, const uint32_t* ids, T* d_table, uint32_t tokens, uint32_t width) {
  SHARED_ARRAY(uint32_t, votes, MOST_WARPS);
  const uint32_t id = ids[blockIdx.x];
  T* row = d_table + static_cast<size_t>(id) * width;
  float sums[HELD][N];
  bool first = true;
  for (uint32_t start = 0; start < tokens; start += blockDim.x) {
    const uint32_t token = start + threadIdx.x;
    const uint32_t vote = __ballot_sync(ALL_LANES, token < tokens && ids[token] == id);
    if (lane_index() == 0) votes[warp_index()] = vote;
    __syncthreads();
    for (uint32_t warp = 0; warp < blockDim.x / WARP; ++warp) {
      for (uint32_t left = votes[warp]; left != 0; left &= left - 1) {
        const uint32_t match = start + warp * WARP + static_cast<uint32_t>(__ffs(static_cast<int>(left))) - 1;
        if (first && match != blockIdx.x) return; // an earlier token's block does it
#pragma unroll
        for (int held = 0; held < HELD; ++held) {
          const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
          if (column >= width) continue;
          if (first) load(row + column, sums[held]);
          float values[N];
          load(d_out + static_cast<size_t>(match) * width + column, values);
#pragma unroll
          for (int i = 0; i < N; ++i) sums[held][i] += values[i];
        }
        first = false;
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int held = 0; held < HELD; ++held) {
    const uint32_t column = (held * blockDim.x + threadIdx.x) * N;
    if (column < width) store(row + column, sums[held]);
  }
}

#define FOR_TYPE(T, suffix)                                                                                                   \
  extern "C" __global__ void __launch_bounds__(512) embedding_forward_##suffix(const T* table, const uint32_t* ids, T* out,   \
                                                                               uint32_t width) {                              \
    if (width % PACK<T> == 0) copy_row<T, PACK<T>>(table, ids, out, width);                                                   \
    else copy_row<T, 1>(table, ids, out, width);                                                                              \
  }                                                                                                                           \
  EXPORT(embedding_forward_##suffix)                                                                                          \
  extern "C" __global__ void __launch_bounds__(512)                                                                           \
      embedding_backward_##suffix(const T* d_out, const uint32_t* ids, T* d_table, uint32_t tokens, uint32_t width) {         \
    if (width % PACK<T> == 0) add_rows<T, PACK<T>>(d_out, ids, d_table, tokens, width);                                    \
    else add_rows<T, 1>(d_out, ids, d_table, tokens, width);                                                               \
  }                                                                                                                           \
  EXPORT(embedding_backward_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
