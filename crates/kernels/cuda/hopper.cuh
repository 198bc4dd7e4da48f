// Tiles and rings of kernels for Hopper (sm_90a): the copy engine fills a tile of shared memory, the tensor cores read it
// where it lies, and barriers in shared memory hand it from one to the other and back.
#pragma once

#include "device.cuh"

#ifdef __CUDACC__
#include "hopper_ptx.cuh"
#else
#include "emulation/hopper.h"
#endif

constexpr uint32_t WARPGROUP = 128;
/// Columns and rows of the boxes of all tensor maps: 128 bytes is the widest row that is swizzled.
constexpr int BOX_COLUMNS = 64, BOX_ROWS = 64;

__device__ __forceinline__ uint32_t warpgroup_index() { return threadIdx.x / WARPGROUP; }

#if HOPPER

/// ROWS rows of `D` bf16 as panels of 64 columns, each row of a panel 128 bytes: how copies of boxes leave them, the chunks of 16
/// bytes in each 1024 bytes changing places by the row's number. Begins at a multiple of 1024.
template <int D, int ROWS> struct Panels {
  static_assert(D % BOX_COLUMNS == 0 && ROWS % BOX_ROWS == 0, "whole boxes");
  static constexpr uint32_t CHUNKS = D / 8, ROW_BYTES = BOX_COLUMNS * 2, PANEL_BYTES = ROWS * ROW_BYTES, BYTES = D / BOX_COLUMNS * PANEL_BYTES;

  uint8_t* data;

  __device__ __forceinline__ bf16* at(uint32_t row, uint32_t chunk) const {
    return reinterpret_cast<bf16*>(data + chunk / 8 * PANEL_BYTES + row * ROW_BYTES + (chunk % 8 ^ row % 8) * 16);
  }
  /// Asks for all its boxes.
  __device__ __forceinline__ void fetch(const TensorMap& map, uint32_t column, uint32_t row, uint64_t* barrier) const {
#pragma unroll
    for (int panel = 0; panel < D / BOX_COLUMNS; ++panel) {
#pragma unroll
      for (int box = 0; box < ROWS / BOX_ROWS; ++box) {
        copy_box_async(data + panel * PANEL_BYTES + box * BOX_ROWS * ROW_BYTES, map, column + panel * BOX_COLUMNS, row + box * BOX_ROWS, barrier);
      }
    }
  }
};

/// A tile as the tensor cores are told of it (PTX manual, matrix descriptors): in units of 16 bytes the start, from bit 16 on the
/// way from panel to panel, from bit 32 on that from eight rows to the next; bit 62: swizzled by 128 bytes.
template <int D, int ROWS> struct Described {
  using Tile = Panels<D, ROWS>;
  uint64_t start;

  __device__ __forceinline__ explicit Described(Tile tile)
      : start(static_cast<uint64_t>(shared_address(tile.data) >> 4) | static_cast<uint64_t>(Tile::PANEL_BYTES >> 4) << 16 |
              static_cast<uint64_t>(8 * Tile::ROW_BYTES >> 4) << 32 | uint64_t{1} << 62) {}
  /// Elements [16 step, 16 step + 16) of the rows from `first` on, a multiple of 8: as rows of A, or as columns of B.
  __device__ __forceinline__ uint64_t columns(uint32_t first, int step) const {
    return start + ((step / 4 * Tile::PANEL_BYTES + first * Tile::ROW_BYTES + step % 4 * 32) >> 4);
  }
  /// Rows [16 step, 16 step + 16): as rows of B.
  __device__ __forceinline__ uint64_t rows(int step) const { return start + (step * 16 * Tile::ROW_BYTES >> 4); }
};

/// sums = `left`, rows from `first` on, times the transpose of `right`.
template <int D, int LEFT, int RIGHT>
__device__ __forceinline__ void multiply_with_columns(float (&sums)[RIGHT / 8][4], Described<D, LEFT> left, uint32_t first, Described<D, RIGHT> right) {
#pragma unroll
  for (int step = 0; step < D / 16; ++step) multiply_shared(sums, left.columns(first, step), right.columns(0, step), step > 0);
}

/// sums += `weights` times `right`.
template <int D, int ROWS>
__device__ __forceinline__ void add_product_with_rows(float (&sums)[D / 8][4], const uint32_t (&weights)[ROWS / 16][4], Described<D, ROWS> right) {
#pragma unroll
  for (int step = 0; step < ROWS / 16; ++step) multiply_registers(sums, weights[step], right.rows(step));
}

/// Tiles that are filled and emptied in turn. `full` opens when a tile has come, `empty` when all warps that read it are done.
template <int STAGES> struct Ring {
  uint64_t *full, *empty;

  __device__ __forceinline__ void make(uint32_t arrivals, uint32_t warps) const {
    for (int stage = 0; stage < STAGES; ++stage) {
      make_barrier(full + stage, arrivals);
      make_barrier(empty + stage, warps);
    }
  }
  static __device__ __forceinline__ uint32_t parity(uint32_t turn) { return turn / STAGES % 2; }
  /// By who fills: the tile of this turn may be overwritten; the barrier that is to hear of what comes.
  __device__ __forceinline__ uint64_t* vacant(uint32_t turn) const {
    wait_for(empty + turn % STAGES, parity(turn) ^ 1);
    return full + turn % STAGES;
  }
  /// By who reads: the tile of this turn is there.
  __device__ __forceinline__ void wait(uint32_t turn) const { wait_for(full + turn % STAGES, parity(turn)); }
  /// By each warp that has read it, once its products are waited for.
  __device__ __forceinline__ void release(uint32_t turn) const {
    __syncwarp();
    if (lane_index() == 0) arrive(empty + turn % STAGES);
  }
};

#endif
