// Kernels for the emulation's own tests: what its instructions do, and mistakes that it must see.
#include "device.cuh"

#define PROBE(name, ...)                  \
  extern "C" __global__ void name(__VA_ARGS__); \
  EXPORT(name)                            \
  extern "C" __global__ void name(__VA_ARGS__)

/// C [16, 8] = A [16, 16] · Bᵀ, B [8, 16] as one warp, all by the layouts of the PTX manual (mma.m16n8k16, ldmatrix).
PROBE(probe_product, const bf16* a, const bf16* b, float* c) {
  SHARED_ARRAY(bf16, rows_a, 16 * 16);
  SHARED_ARRAY(bf16, rows_b, 16 * 16);
  const uint32_t lane = lane_index();
  for (uint32_t at = lane; at < 256; at += WARP) {
    rows_a[at] = a[at];
    rows_b[at] = at < 128 ? b[at] : bf16{0};
  }
  __syncwarp();
  uint32_t left[4], right[4];
  load_matrices(left, rows_a + lane % 16 * 16 + lane / 16 * 8);
  load_matrices(right, rows_b + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8);
  float sums[4] = {};
  multiply_add(sums, left, right[0], right[1]);
  for (uint32_t i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

/// C [16, 8] = A [16, 16] · B, B [16, 8].
PROBE(probe_product_transposed, const bf16* a, const bf16* b, float* c) {
  SHARED_ARRAY(bf16, rows_a, 16 * 16);
  SHARED_ARRAY(bf16, rows_b, 16 * 16);
  const uint32_t lane = lane_index();
  for (uint32_t at = lane; at < 256; at += WARP) {
    rows_a[at] = a[at];
    rows_b[at] = at % 16 < 8 ? b[at / 16 * 8 + at % 16] : bf16{0};
  }
  __syncwarp();
  uint32_t left[4], right[4];
  load_matrices(left, rows_a + lane % 16 * 16 + lane / 16 * 8);
  load_matrices_transposed(right, rows_b + lane % 16 * 16 + lane / 16 * 8);
  float sums[4] = {};
  multiply_add(sums, left, right[0], right[1]);
  for (uint32_t i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

PROBE(probe_functions, const float* x, bf16* rounded, float* exp2, float* log2, uint32_t len) {
  const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= len) return;
  rounded[at] = from_float<bf16>(x[at]);
  exp2[at] = exp2_approximate(x[at]);
  log2[at] = log2_approximate(fabsf(x[at]));
}

/// Each warp hands its number on to the next one through barriers of their own.
PROBE(probe_named_barriers, uint32_t* out) {
  SHARED_ARRAY(uint32_t, value, 1);
  if (warp_index() == 0) {
    if (lane_index() == 0) *value = 7;
    arrive_at_barrier(1, 64);
  } else {
    named_barrier(1, 64);
    out[lane_index()] = *value + lane_index();
  }
}

PROBE(probe_atomics, uint32_t* count, uint32_t* most) {
  atomicAdd(count, threadIdx.x);
  atomicMax(most, blockIdx.x * blockDim.x + threadIdx.x);
}

/// Copies come in groups: all but the last have arrived.
PROBE(probe_copies, const float* from, float* out) {
  SHARED_ARRAY(float, there, 3 * 4 * WARP);
  for (uint32_t group = 0; group < 3; ++group) {
    copy16_async(there + (group * WARP + lane_index()) * 4, from + (group * WARP + lane_index()) * 4, group != 1);
    commit_copies();
  }
  wait_copies<1>();
  __syncwarp();
  for (uint32_t at = lane_index(); at < 2 * 4 * WARP; at += WARP) out[at] = there[at];
  wait_copies<0>();
  for (uint32_t i = 0; i < 4; ++i) out[(2 * WARP + lane_index()) * 4 + i] = there[(2 * WARP + lane_index()) * 4 + i];
}

// From here on: mistakes.

PROBE(wrong_part_of_a_block_waits, uint32_t*) {
  if (warp_index() == 0) __syncthreads();
}

PROBE(wrong_lanes_part, uint32_t* out) {
  if (lane_index() < 16) out[lane_index()] = __shfl_xor_sync(ALL_LANES, lane_index(), 1);
  else out[lane_index()] = __ballot_sync(ALL_LANES, true);
}

PROBE(wrong_shuffle_from_nobody, uint32_t* out) {
  if (lane_index() < 16) out[lane_index()] = __shfl_sync(0xffffu, lane_index(), 20);
}

PROBE(wrong_neighbour_in_a_warp, uint32_t* out) {
  SHARED_ARRAY(uint32_t, values, WARP);
  values[lane_index()] = lane_index();
  const uint32_t vote = __ballot_sync(ALL_LANES, true); // orders lanes in time, not their memory
  out[lane_index()] = values[lane_index() ^ 1] + vote;
}

PROBE(wrong_blocks_meet, uint32_t* out) { out[0] = blockIdx.x; }

PROBE(wrong_read_of_another_block, uint32_t* out) {
  if (blockIdx.x == 0) out[threadIdx.x] = 1;
  else out[WARP + threadIdx.x] = out[threadIdx.x];
}

PROBE(wrong_end, uint32_t* out) { out[threadIdx.x + 1] = 1; }

PROBE(wrong_shared_end, uint32_t* out) {
  SHARED_ARRAY(uint32_t, values, WARP);
  values[lane_index() + 1] = 1;
  out[lane_index()] = 0;
}

PROBE(wrong_unwritten, uint32_t* out) {
  SHARED_ARRAY(uint32_t, values, WARP);
  if (lane_index() != 5) values[lane_index()] = 1;
  out[lane_index()] = values[lane_index()];
}

PROBE(wrong_alignment, uint32_t* out) { store16(out + 1, uint4{1, 2, 3, 4}); }

PROBE(wrong_copy_not_waited_for, uint32_t* out) {
  SHARED_ARRAY(uint32_t, values, 4 * WARP);
  copy16_async(values + 4 * lane_index(), out, false);
  commit_copies();
  out[lane_index()] = values[4 * lane_index()];
}

PROBE(wrong_host_memory, uint32_t* out) {
  static uint32_t calls = 0;
  out[lane_index()] = ++calls;
}
