// FlashAttention-2's walk over keys (Dao 2023): a warp keeps scores and sums of its queries in registers.
#pragma once

#include "plan.cuh"
#include "tiles.cuh"

/// Keys that a block looks at in one step.
constexpr int KEYS = 64;

/// What a warp's `TILES` times 16 queries have seen so far.
template <int D, int TILES> struct Flash {
  Sums<D> sums[TILES];
  float largest[TILES][2], mass[TILES][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
      sums[tile].clear();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        largest[tile][half] = LOWEST;
        mass[tile][half] = 0.0f;
      }
    }
  }

  /// The block walks over keys [begin, end), which `fetch_keys` and `fetch_values` bring, a tile from a key on at a time;
  /// the queries' own copies may be on their way. The warp's queries are the rows of `q_tile` from `first_row` on, at positions
  /// `position(row)`, which do not fall; with `busy` false it fetches for the others.
  template <typename FetchKeys, typename FetchValues, typename Position>
  __device__ __forceinline__ void walk(Tile<D> q_tile, Tile<D> k_tile, Tile<D> v_tile, uint32_t first_row, bool busy, uint32_t begin, uint32_t end,
                                       uint32_t window, float scale, FetchKeys fetch_keys, FetchValues fetch_values, Position position) {
    fetch_keys(k_tile, begin);
    commit_copies();
    for (uint32_t first = begin; first < end; first += KEYS) {
      wait_copies<0>();
      __syncthreads(); // these keys are there, and nobody needs the last values any more
      fetch_values(v_tile, first);
      commit_copies();
      Sums<KEYS> scores[TILES];
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) scores[tile].clear();
      if (busy) {
#pragma unroll
        for (int step = 0; step < D / 16; ++step) {
          uint32_t a[TILES][4];
#pragma unroll
          for (int tile = 0; tile < TILES; ++tile) q_tile.as_a(a[tile], first_row + 16 * tile, step);
#pragma unroll
          for (int pair = 0; pair < KEYS / 16; ++pair) {
            uint32_t b[4];
            k_tile.as_columns(b, 16 * pair, step);
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile) {
              multiply_add(scores[tile].at[2 * pair], a[tile], b[0], b[1]);
              multiply_add(scores[tile].at[2 * pair + 1], a[tile], b[2], b[3]);
            }
          }
        }
      }
      wait_copies<0>();
      __syncthreads(); // the values are there, and nobody needs these keys any more
      if (first + KEYS < end) {
        fetch_keys(k_tile, first + KEYS);
        commit_copies();
      }
      if (!busy) continue;

#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) {
        const uint32_t row = first_row + 16 * tile;
        if (!sees(position(row), first + KEYS - 1, window) || !sees(position(row + 15), first, window)) {
#pragma unroll
          for (int column = 0; column < KEYS / 8; ++column) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const uint32_t query = position(row + lane_index() / 4 + i / 2 * 8), key = first + column * 8 + lane_index() % 4 * 2 + i % 2;
              if (!sees(query, key, window)) scores[tile].at[column][i] = LOWEST;
            }
          }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float best = largest[tile][half];
#pragma unroll
          for (int column = 0; column < KEYS / 8; ++column) {
            best = fmaxf(best, fmaxf(scores[tile].at[column][2 * half], scores[tile].at[column][2 * half + 1]));
          }
          best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 1));
          best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 2));
          // A row that has seen no key yet keeps −∞; against 0 its probabilities come out as 0.
          const float reference = best == LOWEST ? 0.0f : best * scale;
          const float factor = exp2_approximate(fmaf(largest[tile][half], scale, -reference));
          float total = 0.0f;
#pragma unroll
          for (int column = 0; column < KEYS / 8; ++column) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
              float& score = scores[tile].at[column][i];
              score = exp2_approximate(fmaf(score, scale, -reference));
              total += score;
            }
          }
          mass[tile][half] = fmaf(mass[tile][half], factor, total);
          largest[tile][half] = best;
#pragma unroll
          for (int column = 0; column < D / 8; ++column) {
            sums[tile].at[column][2 * half] *= factor;
            sums[tile].at[column][2 * half + 1] *= factor;
          }
        }
      }
#pragma unroll
      for (int step = 0; step < KEYS / 16; ++step) {
        uint32_t a[TILES][4];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) scores[tile].as_a(a[tile], step);
#pragma unroll
        for (int pair = 0; pair < D / 16; ++pair) {
          uint32_t b[4];
          v_tile.as_rows(b, step, pair);
#pragma unroll
          for (int tile = 0; tile < TILES; ++tile) {
            multiply_add(sums[tile].at[2 * pair], a[tile], b[0], b[1]);
            multiply_add(sums[tile].at[2 * pair + 1], a[tile], b[2], b[3]);
          }
        }
      }
    }
  }

  /// The mass of a row, of which each lane of four has that of its own columns.
  __device__ __forceinline__ float total(int tile, int half) const {
    float total = mass[tile][half];
    total += __shfl_xor_sync(ALL_LANES, total, 1);
    total += __shfl_xor_sync(ALL_LANES, total, 2);
    return total;
  }
};
