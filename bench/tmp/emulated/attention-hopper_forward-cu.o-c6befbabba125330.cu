// Attention forwards on Hopper, as FlashAttention-3 (Shah et al. 2024) does it: a warpgroup fetches keys and values, two compute
// with 64 queries each, and the scores of the next keys are on their way while the probabilities of these are made. mod.rs
// has the mathematics, plan.cuh the work list; the arithmetic of the softmax is that of forward.cu.
#include "hopper_tiles.cuh"

#if HOPPER

constexpr int ROWS = 2 * GROUP_ROWS, KEYS = 128, STAGES = 2;

template <int D> struct Shared {
  using Q = Panels<D, ROWS>;
  using K = Panels<D, KEYS>;
  static constexpr uint32_t BARRIERS = Q::BYTES + 2 * STAGES * K::BYTES;

  uint8_t* data;

  __device__ __forceinline__ Q q() const { return Q{data}; }
  __device__ __forceinline__ K keys(uint32_t stage) const { return K{data + Q::BYTES + stage * K::BYTES}; }
  __device__ __forceinline__ K values(uint32_t stage) const { return keys(STAGES + stage); }
  __device__ __forceinline__ uint64_t* barriers() const { return reinterpret_cast<uint64_t*>(data + BARRIERS); }
  __device__ __forceinline__ uint64_t* queries_there() const { return barriers() + 4 * STAGES; }
  __device__ __forceinline__ Ring<STAGES> key_ring() const { return {barriers(), barriers() + STAGES}; }
  __device__ __forceinline__ Ring<STAGES> value_ring() const { return {barriers() + 2 * STAGES, barriers() + 3 * STAGES}; }
};

template <int D>
__device__ __forceinline__ void fetch_all(const Shared<D>& shared, const TensorMap& qkv, const Queries& queries, const Layout& layout) {
  const uint32_t head = blockIdx.x, kv_head = head / (layout.heads / layout.kv_heads);
  const uint32_t key_column = (layout.heads + kv_head) * D, value_column = key_column + layout.kv_heads * D;
  const Ring<STAGES> keys = shared.key_ring(), values = shared.value_ring();
  arrive_expecting(shared.queries_there(), Shared<D>::Q::BYTES);
  shared.q().fetch(qkv, head * D, queries.row, shared.queries_there());
  KeyWalk<KEYS> walk(queries, layout.window);
  for (uint32_t turn = 0; walk.first < walk.end; ++turn, walk.advance()) {
    const uint32_t stage = turn % STAGES;
    uint64_t* barrier = keys.vacant(turn);
    arrive_expecting(barrier, Shared<D>::K::BYTES);
    shared.keys(stage).fetch(qkv, key_column, walk.row(), barrier);
    barrier = values.vacant(turn);
    arrive_expecting(barrier, Shared<D>::K::BYTES);
    shared.values(stage).fetch(qkv, value_column, walk.row(), barrier);
  }
}

/// Of the lane's two rows: the largest score so far, and the sum of what lies below it.
struct Softmax {
  float largest[2] = {LOWEST, LOWEST}, mass[2] = {0.0f, 0.0f};

  /// Scores to probabilities; `factors` are for what has been added up before.
  __device__ __forceinline__ void step(Sums<KEYS>& scores, float scale, float (&factors)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float best = largest[half];
#pragma unroll
      for (int column = 0; column < KEYS / 8; ++column) best = fmaxf(best, fmaxf(scores.at[column][2 * half], scores.at[column][2 * half + 1]));
      best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 1));
      best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 2));
      // A row that has seen no key yet keeps −∞; against 0 its probabilities come out as 0.
      const float reference = best == LOWEST ? 0.0f : best * scale;
      factors[half] = exp2_approximate(fmaf(largest[half], scale, -reference));
      float total = 0.0f;
#pragma unroll
      for (int column = 0; column < KEYS / 8; ++column) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          float& score = scores.at[column][i];
          score = exp2_approximate(fmaf(score, scale, -reference));
          total += score;
        }
      }
      mass[half] = fmaf(mass[half], factors[half], total);
      largest[half] = best;
    }
  }
};

/// Scores of keys that a query does not see, or that are not of the range, become −∞. `position`: of the warp's first query.
__device__ __forceinline__ void mask(Sums<KEYS>& scores, uint32_t position, const KeyWalk<KEYS>& walk, uint32_t window) {
  if (sees(position, walk.first + KEYS - 1, window) && sees(position + 15, walk.first, window) && walk.first + KEYS <= walk.limit) return;
#pragma unroll
  for (int column = 0; column < KEYS / 8; ++column) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t query = position + lane_index() / 4 + i / 2 * 8, key = walk.first + column * 8 + lane_index() % 4 * 2 + i % 2;
      if (!sees(query, key, window) || key >= walk.limit) scores.at[column][i] = LOWEST;
    }
  }
}

template <int D>
__device__ __forceinline__ void compute(const Shared<D>& shared, const Queries& queries, bf16* out, float* lse, const Layout& layout) {
  const uint32_t head = blockIdx.x, group = warpgroup_index() - 1;
  const uint32_t group_row = group * GROUP_ROWS, first_row = group_row + warp_index() % 4 * 16;
  if (group_row >= queries.rows) return; // nobody waits for it
  const Ring<STAGES> keys = shared.key_ring(), values = shared.value_ring();
  const Described<D, ROWS> q(shared.q());
  const float scale = layout.scale * LOG2_E;
  const uint32_t position = queries.position + first_row;
  // The last keys that one of the warpgroup's queries sees; of what the block fetches after them it needs no more.
  const uint32_t end = min(queries.position + queries.rows, queries.position + group_row + GROUP_ROWS);

  Softmax softmax;
  Sums<D> sums;
  sums.clear();
  Sums<KEYS> scores;
  uint32_t weights[KEYS / 16][4];
  float factors[2];
  KeyWalk<KEYS> walk(queries, layout.window);

  wait_for(shared.queries_there(), 0);
  keys.wait(0);
  begin_products(scores.at);
  multiply_with_columns(scores.at, q, group_row, Described<D, KEYS>(shared.keys(0)));
  commit_products();
  wait_products<0>(scores.at);
  keys.release(0);
  mask(scores, position, walk, layout.window);
  softmax.step(scores, scale, factors);
  round(scores, weights);

  uint32_t turn = 0;
  walk.advance();
  if (walk.first < end) keys.wait(1);
  while (walk.first < end) {
    const uint32_t next = turn + 1;
    begin_products(scores.at);
    multiply_with_columns(scores.at, q, group_row, Described<D, KEYS>(shared.keys(next % STAGES)));
    commit_products();
    values.wait(turn);
    begin_products(sums.at, weights);
    add_product_with_rows<D, KEYS>(sums.at, weights, Described<D, KEYS>(shared.values(turn % STAGES)));
    commit_products();
    wait_products<1>(scores.at);
    keys.release(next);
    mask(scores, position, walk, layout.window);
    softmax.step(scores, scale, factors);
    walk.advance();
    pin(scores.at);
    // This wait could come later, but the compiler moves nothing across it: the exponentials stay beside the products.
    if (walk.first < end) keys.wait(next + 1);
    wait_products<0>(sums.at);
    values.release(turn);
#pragma unroll
    for (int column = 0; column < D / 8; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums.at[column][i] *= factors[i / 2];
    }
    round(scores, weights);
    turn = next;
  }
  values.wait(turn);
  begin_products(sums.at, weights);
  add_product_with_rows<D, KEYS>(sums.at, weights, Described<D, KEYS>(shared.values(turn % STAGES)));
  commit_products();
  wait_products<0>(sums.at);

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // Each lane of four has the sum of its own columns.
    float& total = softmax.mass[half];
    total += __shfl_xor_sync(ALL_LANES, total, 1);
    total += __shfl_xor_sync(ALL_LANES, total, 2);
    const uint32_t query = first_row + lane_index() / 4 + 8 * half;
    if (lane_index() % 4 == 0 && query < queries.rows) {
      lse[static_cast<size_t>(head) * layout.tokens + queries.row + query] = fmaf(softmax.largest[half], layout.scale, logf(total));
    }
  }
  named_barrier(1 + group, WARPGROUP); // no warp's products read these queries any more
  bf16* to = out + (static_cast<size_t>(queries.row) + first_row) * layout.heads * D + head * D;
  write_rows(sums, 1.0f / softmax.mass[0], 1.0f / softmax.mass[1], shared.q(), first_row, to, layout.heads * D,
             queries.rows > first_row ? queries.rows - first_row : 0);
}

template <int D> __device__ __forceinline__ void forward(const TensorMap& qkv, const uint32_t* tiles, bf16* out, float* lse, const Layout& layout) {
  DYNAMIC_TILES(data);
  const Shared<D> shared{data};
  const Queries queries = Queries::read(tiles, blockIdx.y);
  if (threadIdx.x == 0) {
    const uint32_t warps = queries.rows > GROUP_ROWS ? 8 : 4;
    make_barrier(shared.queries_there(), 1);
    shared.key_ring().make(1, warps);
    shared.value_ring().make(1, warps);
    publish_barriers();
  }
  __syncthreads();
  if (warpgroup_index() == 0) {
    shrink_registers<FETCHING_REGISTERS>();
    if (threadIdx.x == 0) fetch_all(shared, qkv, queries, layout);
  } else {
    grow_registers<COMPUTING_REGISTERS>();
    compute(shared, queries, out, lse, layout);
  }
}

#endif

#define FOR_HEAD(D)                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                                \
      attention_forward_hopper_##D(const __grid_constant__ TensorMap qkv, const uint32_t* tiles, bf16* out, float* lse, uint32_t tokens,  \
                                   uint32_t heads, uint32_t kv_heads, uint32_t window, float scale) {                                     \
    ON_HOPPER(forward<D>(qkv, tiles, out, lse, Layout{tokens, heads, kv_heads, window, scale}));                                          \
  }                                                                                                                                       \
  EXPORT(attention_forward_hopper_##D)

FOR_HEAD(64)
FOR_HEAD(128)
