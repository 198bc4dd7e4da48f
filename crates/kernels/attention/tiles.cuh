// Tiles of bf16 rows in shared memory, and how the tensor cores take them.
//
// A product C[m, n] += A[m, k]·B[k, n] of a warp is made of mma.m16n8k16. The three ways to read a tile stored by rows:
// its rows as rows of A; its rows as columns of B (A·tileᵀ); its rows as rows of B (A·tile).
#pragma once

#include "device.cuh"

constexpr float LOG2_E = 1.44269504f;
constexpr float LOWEST = -INFINITY;

/// Rows of `D` elements in chunks of 16 bytes. Chunks of a row change places with the row's number, so that the eight rows
/// that ldmatrix reads at a time lie in different banks.
template <int D> struct Tile {
  static_assert(D % 16 == 0, "whole steps of the tensor cores");
  static constexpr uint32_t CHUNKS = D / 8;

  bf16* data;

  static __device__ __forceinline__ uint32_t swizzle(uint32_t row) {
    return CHUNKS % 8 == 0 ? row % 8 : CHUNKS % 4 == 0 ? row / 2 % 4 : row / 4 % 2;
  }
  __device__ __forceinline__ bf16* at(uint32_t row, uint32_t chunk) const { return data + (row * CHUNKS + (chunk ^ swizzle(row))) * 8; }

  /// A of rows [first, first + 16), elements [16 step, 16 step + 16).
  __device__ __forceinline__ void as_a(uint32_t (&a)[4], uint32_t first, uint32_t step) const {
    load_matrices(a, at(first + lane_index() % 16, 2 * step + lane_index() / 16));
  }
  /// B whose columns are rows [first, first + 16): two mma's, b[0], b[1] for the first eight and b[2], b[3] for the others.
  __device__ __forceinline__ void as_columns(uint32_t (&b)[4], uint32_t first, uint32_t step) const {
    load_matrices(b, at(first + lane_index() % 8 + lane_index() / 16 * 8, 2 * step + lane_index() / 8 % 2));
  }
  /// B whose rows are rows [16 step, 16 step + 16), columns [16 pair, 16 pair + 16): two mma's as above.
  __device__ __forceinline__ void as_rows(uint32_t (&b)[4], uint32_t step, uint32_t pair) const {
    load_matrices_transposed(b, at(16 * step + lane_index() % 16, 2 * pair + lane_index() / 16));
  }
};

/// Asks for rows [0, ROWS) of a tile: row r from row `row_of(r)` of `from`, zeros from row `valid` on.
template <int ROWS, int THREADS, int D, typename RowOf>
__device__ __forceinline__ void fetch(Tile<D> tile, const bf16* from, uint32_t stride, uint32_t valid, RowOf row_of) {
  constexpr uint32_t CHUNKS = Tile<D>::CHUNKS;
  static_assert(ROWS * CHUNKS % THREADS == 0, "the same number of chunks for each thread");
#pragma unroll 2 // whole, the addresses would take the registers that the products need
  for (uint32_t turn = 0; turn < ROWS * CHUNKS / THREADS; ++turn) {
    const uint32_t number = turn * THREADS + threadIdx.x, row = number / CHUNKS, chunk = number % CHUNKS;
    const size_t source = row < valid ? static_cast<size_t>(row_of(row)) * stride + chunk * 8 : 0;
    copy16_async(tile.at(row, chunk), from + source, row < valid);
  }
}

/// Sums of a product with 16 rows: of each 8 columns a lane has row l / 4, columns 2·(l % 4) and the next in [0] and [1],
/// and the same of row l / 4 + 8 in [2] and [3].
template <int COLUMNS> struct Sums {
  float at[COLUMNS / 8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int tile = 0; tile < COLUMNS / 8; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) at[tile][i] = 0.0f;
    }
  }
  /// Columns [16 step, 16 step + 16) as an A for the next product, rounded to bf16.
  __device__ __forceinline__ void as_a(uint32_t (&a)[4], int step) const {
    a[0] = pack_bf16(at[2 * step][0], at[2 * step][1]);
    a[1] = pack_bf16(at[2 * step][2], at[2 * step][3]);
    a[2] = pack_bf16(at[2 * step + 1][0], at[2 * step + 1][1]);
    a[3] = pack_bf16(at[2 * step + 1][2], at[2 * step + 1][3]);
  }
};

/// += 16 rows of `left` from `first` on times the transpose of ROWS rows of `right` from `right_first` on.
template <int ROWS, int D>
__device__ __forceinline__ void add_product_with_columns(Sums<ROWS>& sums, Tile<D> left, uint32_t first, Tile<D> right, uint32_t right_first = 0) {
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    uint32_t a[4];
    left.as_a(a, first, step);
#pragma unroll
    for (int pair = 0; pair < ROWS / 16; ++pair) {
      uint32_t b[4];
      right.as_columns(b, right_first + 16 * pair, step);
      multiply_add(sums.at[2 * pair], a, b[0], b[1]);
      multiply_add(sums.at[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

/// += `weights`, rounded to bf16, times ROWS rows of `right` from `right_first` on.
template <int ROWS, int D>
__device__ __forceinline__ void add_product_with_rows(Sums<D>& sums, const Sums<ROWS>& weights, Tile<D> right, uint32_t right_first = 0) {
#pragma unroll
  for (int step = 0; step < ROWS / 16; ++step) {
    uint32_t a[4];
    weights.as_a(a, step);
#pragma unroll
    for (int pair = 0; pair < D / 16; ++pair) {
      uint32_t b[4];
      right.as_rows(b, right_first / 16 + step, pair);
      multiply_add(sums.at[2 * pair], a, b[0], b[1]);
      multiply_add(sums.at[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

/// Writes 16 rows of sums, times a factor for each of the lane's two, to `to`, the first `valid` of them. They go through
/// rows [first, first + 16) of `tile`, which only this warp has read, so that whole rows leave at once.
template <int D, typename Rows>
__device__ __forceinline__ void write_rows(const Sums<D>& sums, float factor, float factor_below, Rows tile, uint32_t first, bf16* to,
                                           uint32_t stride, uint32_t valid) {
  const uint32_t row = first + lane_index() / 4;
  __syncwarp(); // the warp is done with these rows
#pragma unroll
  for (int chunk = 0; chunk < D / 8; ++chunk) {
    const float(&values)[4] = sums.at[chunk];
    uint32_t* upper = reinterpret_cast<uint32_t*>(tile.at(row, chunk)) + lane_index() % 4;
    uint32_t* lower = reinterpret_cast<uint32_t*>(tile.at(row + 8, chunk)) + lane_index() % 4;
    *upper = pack_bf16(values[0] * factor, values[1] * factor);
    *lower = pack_bf16(values[2] * factor_below, values[3] * factor_below);
  }
  __syncwarp(); // the rows are whole
#pragma unroll
  for (uint32_t number = lane_index(); number < 16 * Rows::CHUNKS; number += WARP) {
    const uint32_t line = number / Rows::CHUNKS, chunk = number % Rows::CHUNKS;
    if (line < valid) store16(to + static_cast<size_t>(line) * stride + chunk * 8, load16(tile.at(first + line, chunk)));
  }
}
