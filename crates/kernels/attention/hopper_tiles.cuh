// What the kernels of attention for Hopper share: blocks of three warpgroups, the first of which fetches tiles for the other
// two, and the walk over the keys of a tile of queries.
#pragma once

#include "hopper.cuh"
#include "plan.cuh"
#include "tiles.cuh"

/// Of a block.
constexpr uint32_t THREADS = 3 * WARPGROUP;

#if HOPPER

/// Rows of one of the two warpgroups that compute.
constexpr int GROUP_ROWS = 64;
/// Registers a thread: 168 at the start, and of what the first warpgroup gives back the others take.
constexpr int FETCHING_REGISTERS = 24, COMPUTING_REGISTERS = 240;

/// The keys that a tile of queries sees, `KEYS` at a time: those of the prefix, then the segment's own. A tile is rows that follow
/// each other, so those behind `limit` are of another range: they are there, and count for nothing.
template <int KEYS> struct KeyWalk {
  uint32_t first, limit, end;
  /// The row of the range's position 0
  uint32_t origin, own_origin;

  __device__ __forceinline__ KeyWalk(const Queries& queries, uint32_t window)
      : first(first_seen(queries.position, window)), end(queries.position + queries.rows), own_origin(queries.start - queries.prefix) {
    const bool in_prefix = first < queries.prefix;
    limit = in_prefix ? queries.prefix : end;
    origin = in_prefix ? queries.stem : own_origin;
  }
  __device__ __forceinline__ uint32_t row() const { return origin + first; }
  __device__ __forceinline__ void advance() {
    first += KEYS;
    if (first < limit || limit == end) return;
    first = limit;
    limit = end;
    origin = own_origin;
  }
};

/// Rounds sums to bf16, as rows of A of the products that follow.
template <int COLUMNS> __device__ __forceinline__ void round(const Sums<COLUMNS>& sums, uint32_t (&weights)[COLUMNS / 16][4]) {
#pragma unroll
  for (int step = 0; step < COLUMNS / 16; ++step) sums.as_a(weights[step], step);
}

#endif

/// A kernel's body is for sm_90a alone; the launcher asks no other card for it.
#if HOPPER
#define ON_HOPPER(...) __VA_ARGS__
#else
#define ON_HOPPER(...) __trap()
#endif
