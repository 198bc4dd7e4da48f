// Kernels for the emulation's own tests of hopper.h: what each instruction does, and mistakes that it must see.
#include "hopper.cuh"

#define PROBE(name, ...)                        \
  extern "C" __global__ void name(__VA_ARGS__); \
  EXPORT(name)                                  \
  extern "C" __global__ void name(__VA_ARGS__)

using Left = Panels<64, 64>;
template <int D> using Right = Panels<D, 64>;

/// Shared memory of all probes: a tile of 64 rows, one of 64 rows and up to 128 columns, a barrier for each.
struct Shared {
  uint8_t* data;
  __device__ Left left() const { return Left{data}; }
  template <int D> __device__ Right<D> right() const { return Right<D>{data + Left::BYTES}; }
  __device__ uint64_t* barrier(int number) const { return reinterpret_cast<uint64_t*>(data + 3 * Left::BYTES) + number; }

  /// Makes the barriers, and asks for both tiles from row 0 and column 0 on.
  template <int D> __device__ void fetch(const TensorMap& a, const TensorMap& b) const {
    if (threadIdx.x == 0) {
      make_barrier(barrier(0), 1);
      make_barrier(barrier(1), 1);
      publish_barriers();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      arrive_expecting(barrier(0), Left::BYTES);
      left().fetch(a, 0, 0, barrier(0));
      arrive_expecting(barrier(1), Right<D>::BYTES);
      right<D>().fetch(b, 0, 0, barrier(1));
    }
  }
};

/// Sums of a warp's sixteen rows.
template <int COLUMNS> __device__ void write_sums(const float (&sums)[COLUMNS / 8][4], float* c) {
  for (uint32_t tile = 0; tile < COLUMNS / 8; ++tile) {
    for (uint32_t i = 0; i < 4; ++i) {
      c[(warp_index() * 16 + lane_index() / 4 + i / 2 * 8) * COLUMNS + tile * 8 + lane_index() % 4 * 2 + i % 2] = sums[tile][i];
    }
  }
}

/// A's fragments from global memory, by the layout of the PTX manual.
__device__ void read_operand(const bf16* a, uint32_t (&registers)[4][4]) {
  for (uint32_t step = 0; step < 4; ++step) {
    for (uint32_t word = 0; word < 4; ++word) {
      const bf16* pair = a + (warp_index() * 16 + lane_index() / 4 + word % 2 * 8) * 64 + step * 16 + lane_index() % 4 * 2 + word / 2 * 8;
      registers[step][word] = pair[0].bits | static_cast<uint32_t>(pair[1].bits) << 16;
    }
  }
}

/// C [64, 64] = A [64, 64] · Bᵀ, B [64, 64]; sums of rubbish are overwritten.
PROBE(probe_columns, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, float* c) {
  DYNAMIC_TILES(data);
  const Shared shared{data};
  shared.fetch<64>(a, b);
  float sums[8][4];
  for (auto& tile : sums) tile[0] = tile[1] = tile[2] = tile[3] = 7.0f;
  wait_for(shared.barrier(0), 0);
  wait_for(shared.barrier(1), 0);
  begin_products(sums);
  multiply_with_columns(sums, Described<64, 64>(shared.left()), 0, Described<64, 64>(shared.right<64>()));
  commit_products();
  wait_products<0>(sums);
  write_sums<64>(sums, c);
}

/// C [64, 128] = A [64, 64] · B, B [64, 128], A in registers; a second group adds it once more.
PROBE(probe_rows, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const bf16* left, float* c) {
  DYNAMIC_TILES(data);
  const Shared shared{data};
  shared.fetch<128>(a, b);
  uint32_t weights[4][4];
  read_operand(left, weights);
  float sums[16][4] = {};
  wait_for(shared.barrier(0), 0);
  wait_for(shared.barrier(1), 0);
  begin_products(sums, weights);
  add_product_with_rows<128, 64>(sums, weights, Described<128, 64>(shared.right<128>()));
  commit_products();
  add_product_with_rows<128, 64>(sums, weights, Described<128, 64>(shared.right<128>()));
  commit_products();
  wait_products<1>();
  wait_products<0>(sums);
  write_sums<128>(sums, c);
}

/// A box of 64 rows and columns from there on, as it lies: zeros for what the matrix does not have.
PROBE(probe_box, const __grid_constant__ TensorMap a, uint32_t column, uint32_t row, bf16* out) {
  DYNAMIC_TILES(data);
  const Shared shared{data};
  if (threadIdx.x == 0) {
    make_barrier(shared.barrier(0), 1);
    publish_barriers();
    arrive_expecting(shared.barrier(0), Left::BYTES);
    copy_box_async(shared.data, a, column, row, shared.barrier(0));
  }
  __syncthreads();
  wait_for(shared.barrier(0), 0);
  for (uint32_t at = threadIdx.x; at < 64 * 64; at += blockDim.x) out[at] = reinterpret_cast<bf16*>(shared.data)[at];
}

/// A warp fills one word in turn, another adds up what it reads, and both go on at once; a third counts with neither.
PROBE(probe_ring, uint32_t* out, uint32_t turns) {
  DYNAMIC_TILES(data);
  uint64_t* const barriers = reinterpret_cast<uint64_t*>(data);
  uint32_t* const words = reinterpret_cast<uint32_t*>(data + 64);
  const Ring<2> ring{barriers, barriers + 2};
  if (threadIdx.x == 0) {
    ring.make(1, 2);
    publish_barriers();
  }
  __syncthreads();
  if (warp_index() == 0) {
    if (lane_index() != 0) return;
    for (uint32_t turn = 0; turn < turns; ++turn) {
      uint64_t* full = ring.vacant(turn);
      words[turn % 2] = turn;
      arrive(full);
    }
    return;
  }
  uint32_t total = 0;
  for (uint32_t turn = 0; turn < turns; ++turn) {
    ring.wait(turn);
    total += words[turn % 2];
    ring.release(turn);
  }
  out[threadIdx.x - WARP] = total;
}

/// A matrix that threads wrote, and registers that change hands: three warpgroups of which two grow.
PROBE(probe_written_tile, const bf16* left, float* c) {
  DYNAMIC_TILES(data);
  const Shared shared{data};
  if (warpgroup_index() == 1) {
    shrink_registers<24>();
    return;
  }
  grow_registers<240>();
  if (warpgroup_index() == 2) return;
  for (uint32_t chunk = threadIdx.x; chunk < 64 * 8; chunk += WARPGROUP) store16(shared.left().at(chunk / 8, chunk % 8), load16(left + chunk * 8));
  publish_to_async();
  named_barrier(1, WARPGROUP);
  float sums[8][4];
  begin_products(sums);
  multiply_with_columns(sums, Described<64, 64>(shared.left()), 0, Described<64, 64>(shared.left()));
  commit_products();
  wait_products<0>(sums);
  write_sums<64>(sums, c);
}

// From here on: mistakes, each in the same product.

enum Mistake {
  NO_FENCE,
  REGISTERS_NOT_NAMED,
  CHANGED_AFTER_FENCE,
  NOT_COMMITTED,
  NO_WAIT,
  WAIT_WITHOUT_NAMES,
  SUMS_TOUCHED,
  OPERANDS_TOUCHED,
  TILE_OVERWRITTEN,
  TILE_OVERWRITTEN_UNORDERED,
  TILE_NOT_WAITED_FOR,
  EXPECTS_TOO_MUCH,
  EXPECTS_TOO_LITTLE,
  EXPECTS_NOTHING,
  NOT_PUBLISHED_BARRIER,
  NOT_PUBLISHED_TILE,
  PATTERN_ELSEWHERE,
  ONE_WARP_LESS,
  OTHER_OPERANDS_BY_WARP,
  BARRIER_OF_NOBODY,
  TOO_MANY_REGISTERS,
  COPY_LEFT_BEHIND,
  COPY_OVER_READERS,
  OUTSIDE,
};

template <int MISTAKE> __device__ void wrong(const TensorMap& map, float* c) {
  DYNAMIC_TILES(data);
  const Shared shared{data};
  const Left tile = MISTAKE == PATTERN_ELSEWHERE ? Left{data + 128} : MISTAKE == OUTSIDE ? Left{data + 2 * Left::BYTES + 1024} : shared.left();
  uint64_t* const barrier = shared.barrier(0);
  const bool first = threadIdx.x == 0;
  if (first) {
    make_barrier(barrier, 1);
    if (MISTAKE != NOT_PUBLISHED_BARRIER) publish_barriers();
  }
  __syncthreads();
  if (MISTAKE == TOO_MANY_REGISTERS) grow_registers<248>();
  if (MISTAKE == BARRIER_OF_NOBODY) arrive(shared.barrier(1));
  if (MISTAKE == NOT_PUBLISHED_TILE) {
    for (uint32_t chunk = threadIdx.x; chunk < 64 * 8; chunk += blockDim.x) store16(tile.at(chunk / 8, chunk % 8), uint4{0, 0, 0, 0});
    __syncthreads();
  } else {
    if (first) {
      if (MISTAKE != EXPECTS_NOTHING) arrive_expecting(barrier, MISTAKE == EXPECTS_TOO_MUCH ? 9000 : MISTAKE == EXPECTS_TOO_LITTLE ? 4096 : Left::BYTES);
      else arrive(barrier);
      tile.fetch(map, 0, 0, barrier);
    }
    __syncthreads();
    if (MISTAKE == COPY_LEFT_BEHIND) return;
    if (MISTAKE != TILE_NOT_WAITED_FOR) wait_for(barrier, 0);
  }
  if (MISTAKE == ONE_WARP_LESS && warp_index() == 3) return;
  float sums[8][4] = {}, others[8][4] = {};
  uint32_t weights[4][4] = {};
  const Described<64, 64> described(tile);
  if (MISTAKE == REGISTERS_NOT_NAMED) begin_products(others);
  else if (MISTAKE != NO_FENCE) begin_products(sums, weights);
  if (MISTAKE == CHANGED_AFTER_FENCE) sums[1][2] += 1.0f;
  if (MISTAKE == OTHER_OPERANDS_BY_WARP) multiply_shared(sums, described.columns(0, 0), described.columns(0, static_cast<int>(warp_index())), true);
  else add_product_with_rows<64, 64>(sums, weights, described);
  if (MISTAKE != NOT_COMMITTED) commit_products();
  if (MISTAKE == NO_WAIT) return;
  if (MISTAKE == SUMS_TOUCHED) sums[0][0] = 0.0f;
  if (MISTAKE == OPERANDS_TOUCHED) weights[3][3] = 1;
  if (MISTAKE == TILE_OVERWRITTEN) store16(tile.at(threadIdx.x / 2, 0), uint4{0, 0, 0, 0});
  if (MISTAKE == WAIT_WITHOUT_NAMES) wait_products<0>();
  else wait_products<0>(sums);
  if (MISTAKE == TILE_OVERWRITTEN_UNORDERED) store16(tile.at(threadIdx.x / 2, threadIdx.x % 2), uint4{0, 0, 0, 0});
  if (MISTAKE == COPY_OVER_READERS && first) {
    arrive_expecting(barrier, Left::BYTES);
    tile.fetch(map, 0, 0, barrier);
  }
  if (MISTAKE == COPY_OVER_READERS) wait_for(barrier, 1);
  write_sums<64>(sums, c);
}

#define WRONG(name, mistake) \
  PROBE(name, const __grid_constant__ TensorMap map, float* c) { wrong<mistake>(map, c); }

WRONG(wrong_no_fence, NO_FENCE)
WRONG(wrong_registers_not_named, REGISTERS_NOT_NAMED)
WRONG(wrong_changed_after_fence, CHANGED_AFTER_FENCE)
WRONG(wrong_not_committed, NOT_COMMITTED)
WRONG(wrong_no_wait, NO_WAIT)
WRONG(wrong_wait_without_names, WAIT_WITHOUT_NAMES)
WRONG(wrong_sums_touched, SUMS_TOUCHED)
WRONG(wrong_operands_touched, OPERANDS_TOUCHED)
WRONG(wrong_tile_overwritten, TILE_OVERWRITTEN)
WRONG(wrong_tile_overwritten_unordered, TILE_OVERWRITTEN_UNORDERED)
WRONG(wrong_tile_not_waited_for, TILE_NOT_WAITED_FOR)
WRONG(wrong_expects_too_much, EXPECTS_TOO_MUCH)
WRONG(wrong_expects_too_little, EXPECTS_TOO_LITTLE)
WRONG(wrong_expects_nothing, EXPECTS_NOTHING)
WRONG(wrong_not_published_barrier, NOT_PUBLISHED_BARRIER)
WRONG(wrong_not_published_tile, NOT_PUBLISHED_TILE)
WRONG(wrong_pattern_elsewhere, PATTERN_ELSEWHERE)
WRONG(wrong_one_warp_less, ONE_WARP_LESS)
WRONG(wrong_other_operands_by_warp, OTHER_OPERANDS_BY_WARP)
WRONG(wrong_barrier_of_nobody, BARRIER_OF_NOBODY)
WRONG(wrong_too_many_registers, TOO_MANY_REGISTERS)
WRONG(wrong_copy_left_behind, COPY_LEFT_BEHIND)
WRONG(wrong_copy_over_readers, COPY_OVER_READERS)
WRONG(wrong_outside, OUTSIDE)
