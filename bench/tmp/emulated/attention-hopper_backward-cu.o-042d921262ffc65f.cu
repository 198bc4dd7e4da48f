// Attention backwards on Hopper: the kernels of backward.cu, with the same owners and orders of sums, on warpgroups. One
// warpgroup fetches, two compute with 64 rows each: of keys, for dK and dV, or of queries, for dQ. P and dS stay in registers.
#include "hopper_tiles.cuh"
#include "row_sums.cuh"

#if HOPPER

/// Rows of a block, and rows of a tile that it walks over.
constexpr int ROWS = 2 * GROUP_ROWS, STEP = 64, STAGES = 3;

/// Two tiles that stay, a ring of pairs of tiles, and for kernels that walk over queries their log-sum-exps and Δ.
template <int D> struct Shared {
  using Own = Panels<D, ROWS>;
  using Other = Panels<D, STEP>;
  static constexpr uint32_t STATES = 2 * Own::BYTES + 2 * STAGES * Other::BYTES, BARRIERS = STATES + STAGES * 2 * STEP * sizeof(float);

  uint8_t* data;

  __device__ __forceinline__ Own own(uint32_t which) const { return Own{data + which * Own::BYTES}; }
  __device__ __forceinline__ Other other(uint32_t turn, uint32_t which) const {
    return Other{data + 2 * Own::BYTES + (turn % STAGES * 2 + which) * Other::BYTES};
  }
  __device__ __forceinline__ float* lse(uint32_t turn) const { return reinterpret_cast<float*>(data + STATES) + turn % STAGES * 2 * STEP; }
  __device__ __forceinline__ float* delta(uint32_t turn) const { return lse(turn) + STEP; }
  __device__ __forceinline__ uint64_t* own_there() const { return reinterpret_cast<uint64_t*>(data + BARRIERS); }
  __device__ __forceinline__ Ring<STAGES> ring() const { return {own_there() + 1, own_there() + 1 + STAGES}; }
  /// Of the second tiles of the pairs, where they come by themselves.
  __device__ __forceinline__ Ring<STAGES> second_ring() const { return {own_there() + 1 + 2 * STAGES, own_there() + 1 + 3 * STAGES}; }
};

/// The columns of a head's keys and values, and of its queries.
template <int D> struct Columns {
  uint32_t query, out, key, value;

  __device__ __forceinline__ Columns(uint32_t head, uint32_t kv_head, const Layout& layout)
      : query(head * D), out(head * D), key((layout.heads + kv_head) * D), value((layout.heads + layout.kv_heads + kv_head) * D) {}
};

/// By a warp: keys and values of the block, then the queries that see them with their dO, log-sum-exps and Δ.
template <int D>
__device__ __forceinline__ void fetch_queries(const Shared<D>& shared, const TensorMap& qkv, const TensorMap& d_out, const float* lse,
                                              const float* delta, const Keys& keys, Walk<STEP> walk, const Layout& layout) {
  const uint32_t kv_head = blockIdx.x, group = layout.heads / layout.kv_heads;
  const Columns<D> own(0, kv_head, layout);
  if (lane_index() == 0) {
    arrive_expecting(shared.own_there(), 2 * Shared<D>::Own::BYTES);
    shared.own(0).fetch(qkv, own.key, keys.row, shared.own_there());
    shared.own(1).fetch(qkv, own.value, keys.row, shared.own_there());
  }
  for (uint32_t turn = 0; !walk.done(); ++turn, walk.advance()) {
    const uint32_t head = kv_head * group + walk.head, row = walk.row(), rows = walk.rows();
    uint64_t* barrier = shared.ring().vacant(turn);
    if (lane_index() == 0) {
      arrive_expecting(barrier, 2 * Shared<D>::Other::BYTES);
      shared.other(turn, 0).fetch(qkv, head * D, row, barrier);
      shared.other(turn, 1).fetch(d_out, head * D, row, barrier);
    }
#pragma unroll
    for (uint32_t query = lane_index(); query < STEP; query += WARP) {
      const size_t at = static_cast<size_t>(head) * layout.tokens + row + query;
      const bool there = query < rows;
      shared.lse(turn)[query] = there ? lse[at] * LOG2_E : 0.0f;
      shared.delta(turn)[query] = there ? delta[at] : 0.0f;
    }
    __syncwarp(); // all lanes' states are there
    if (lane_index() == 0) arrive(barrier);
  }
}

/// Scores Sᵀ to probabilities; 0 for queries that do not see a key, or are not of the reader. `first_key`: of the warp's rows.
__device__ __forceinline__ void key_probabilities(Sums<STEP>& p, const float* lse, float scale, uint32_t first_key, uint32_t first_row, uint32_t position,
                                                  uint32_t queries, uint32_t visible, uint32_t window) {
  const bool masked = !sees(position, first_key + 15, window) || !sees(position + STEP - 1, first_key, window) || visible < first_row + 16 || queries < STEP;
#pragma unroll
  for (int column = 0; column < STEP / 8; ++column) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t query = column * 8 + lane_index() % 4 * 2 + i % 2, key = lane_index() / 4 + i / 2 * 8;
      const bool hidden = masked && (!sees(position + query, first_key + key, window) || first_row + key >= visible || query >= queries);
      p.at[column][i] = hidden ? 0.0f : exp2_approximate(fmaf(p.at[column][i], scale, -lse[query]));
    }
  }
}

template <int D>
__device__ __forceinline__ void key_gradients(const Shared<D>& shared, const Keys& keys, Walk<STEP> walk, bf16* d_qkv, const Layout& layout) {
  const uint32_t group = warpgroup_index() - 1, group_row = group * GROUP_ROWS, first_row = group_row + warp_index() % 4 * 16;
  if (group_row >= keys.rows) return; // nobody waits for it
  const Described<D, ROWS> own_keys(shared.own(0)), own_values(shared.own(1));
  const float scale = layout.scale * LOG2_E;
  Sums<D> d_k, d_v;
  d_k.clear();
  d_v.clear();
  wait_for(shared.own_there(), 0);
  for (uint32_t turn = 0; !walk.done(); ++turn, walk.advance()) {
    const Described<D, STEP> queries(shared.other(turn, 0)), d_out(shared.other(turn, 1));
    const uint32_t position = walk.position(), visible = walk.reader.keys;
    shared.ring().wait(turn);
    // Not one of these queries sees one of the warpgroup's keys: those of a tile's second half at its first queries.
    if (position + STEP - 1 < keys.position + group_row || visible <= group_row) {
      shared.ring().release(turn);
      continue;
    }
    Sums<STEP> p, d_s;
    uint32_t weights[STEP / 16][4], slopes[STEP / 16][4];
    begin_products(p.at, d_s.at);
    multiply_with_columns(p.at, own_keys, group_row, queries);
    commit_products();
    multiply_with_columns(d_s.at, own_values, group_row, d_out);
    commit_products();
    wait_products<1>(p.at);
    key_probabilities(p, shared.lse(turn), scale, keys.position + first_row, first_row, position, walk.rows(), visible, layout.window);
    round(p, weights);
    begin_products(d_v.at, weights);
    add_product_with_rows<D, STEP>(d_v.at, weights, d_out);
    commit_products();
    wait_products<1>(d_s.at);
    const float* delta = shared.delta(turn);
#pragma unroll
    for (int column = 0; column < STEP / 8; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t query = column * 8 + lane_index() % 4 * 2 + i % 2;
        d_s.at[column][i] = p.at[column][i] * (d_s.at[column][i] - delta[query]);
      }
    }
    round(d_s, slopes);
    begin_products(d_k.at, slopes);
    add_product_with_rows<D, STEP>(d_k.at, slopes, queries);
    commit_products();
    wait_products<0>(d_v.at, d_k.at);
    shared.ring().release(turn);
  }

  const uint32_t stride = layout.row<D>(), valid = keys.rows > first_row ? keys.rows - first_row : 0;
  const Columns<D> columns(0, blockIdx.x, layout);
  bf16* to = d_qkv + static_cast<size_t>(keys.row + first_row) * stride;
  named_barrier(1 + group, WARPGROUP); // no warp's products read these keys and values any more
  write_rows(d_k, layout.scale, layout.scale, shared.own(0), first_row, to + columns.key, stride, valid);
  write_rows(d_v, 1.0f, 1.0f, shared.own(1), first_row, to + columns.value, stride, valid);
}

/// By a thread: queries and dO of the block, then the keys that they see with their values.
template <int D>
__device__ __forceinline__ void fetch_keys(const Shared<D>& shared, const TensorMap& qkv, const TensorMap& d_out, const Queries& queries,
                                           const Layout& layout) {
  const uint32_t head = blockIdx.x;
  const Columns<D> columns(head, head / (layout.heads / layout.kv_heads), layout);
  arrive_expecting(shared.own_there(), 2 * Shared<D>::Own::BYTES);
  shared.own(0).fetch(qkv, columns.query, queries.row, shared.own_there());
  shared.own(1).fetch(d_out, columns.out, queries.row, shared.own_there());
  KeyWalk<STEP> walk(queries, layout.window);
  for (uint32_t turn = 0; walk.first < walk.end; ++turn, walk.advance()) {
    uint64_t* barrier = shared.ring().vacant(turn);
    arrive_expecting(barrier, Shared<D>::Other::BYTES);
    shared.other(turn, 0).fetch(qkv, columns.key, walk.row(), barrier);
    barrier = shared.second_ring().vacant(turn);
    arrive_expecting(barrier, Shared<D>::Other::BYTES);
    shared.other(turn, 1).fetch(qkv, columns.value, walk.row(), barrier);
  }
}

template <int D>
__device__ __forceinline__ void query_gradients(const Shared<D>& shared, const Queries& queries, const float* lse, const float* delta, bf16* d_qkv,
                                                const Layout& layout) {
  const uint32_t group = warpgroup_index() - 1, group_row = group * GROUP_ROWS, first_row = group_row + warp_index() % 4 * 16;
  if (group_row >= queries.rows) return; // nobody waits for it
  const uint32_t head = blockIdx.x, position = queries.position + first_row;
  const uint32_t end = min(queries.position + queries.rows, queries.position + group_row + GROUP_ROWS);
  const Described<D, ROWS> own_queries(shared.own(0)), d_out(shared.own(1));
  const float scale = layout.scale * LOG2_E;
  // The lane's two rows.
  float row_lse[2], row_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t row = first_row + lane_index() / 4 + 8 * half;
    const size_t at = static_cast<size_t>(head) * layout.tokens + queries.row + row;
    row_lse[half] = row < queries.rows ? lse[at] * LOG2_E : 0.0f;
    row_delta[half] = row < queries.rows ? delta[at] : 0.0f;
  }
  const auto to_slopes = [&](Sums<STEP>& p, Sums<STEP>& d_s, const KeyWalk<STEP>& walk) {
    const bool masked = !sees(position, walk.first + STEP - 1, layout.window) || !sees(position + 15, walk.first, layout.window) ||
                        walk.first + STEP > walk.limit;
#pragma unroll
    for (int column = 0; column < STEP / 8; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t query = position + lane_index() / 4 + i / 2 * 8, key = walk.first + column * 8 + lane_index() % 4 * 2 + i % 2;
        const bool hidden = masked && (!sees(query, key, layout.window) || key >= walk.limit);
        const float probability = hidden ? 0.0f : exp2_approximate(fmaf(p.at[column][i], scale, -row_lse[i / 2]));
        d_s.at[column][i] = probability * (d_s.at[column][i] - row_delta[i / 2]);
      }
    }
  };
  const auto keys = [&](uint32_t turn) { return Described<D, STEP>(shared.other(turn, 0)); };
  const auto values = [&](uint32_t turn) { return Described<D, STEP>(shared.other(turn, 1)); };
  Sums<D> d_q;
  d_q.clear();
  Sums<STEP> p, d_s;
  uint32_t slopes[STEP / 16][4];
  KeyWalk<STEP> walk(queries, layout.window);
  wait_for(shared.own_there(), 0);
  shared.ring().wait(0);
  begin_products(p.at);
  multiply_with_columns(p.at, own_queries, group_row, keys(0));
  commit_products();
  shared.second_ring().wait(0);
  begin_products(d_s.at);
  multiply_with_columns(d_s.at, d_out, group_row, values(0));
  commit_products();
  wait_products<0>(p.at, d_s.at);
  shared.second_ring().release(0);
  to_slopes(p, d_s, walk);
  round(d_s, slopes);

  // The share of these keys is added up while the slopes of the next are made.
  uint32_t turn = 0;
  for (walk.advance(); walk.first < end; walk.advance()) {
    const uint32_t next = turn + 1;
    shared.ring().wait(next);
    begin_products(p.at);
    multiply_with_columns(p.at, own_queries, group_row, keys(next));
    shared.second_ring().wait(next);
    begin_products(d_s.at);
    multiply_with_columns(d_s.at, d_out, group_row, values(next));
    commit_products();
    begin_products(d_q.at, slopes);
    add_product_with_rows<D, STEP>(d_q.at, slopes, keys(turn));
    commit_products();
    wait_products<1>(p.at, d_s.at);
    shared.second_ring().release(next);
    to_slopes(p, d_s, walk);
    pin(d_s.at); // or they would be put off until the products are done
    wait_products<0>(d_q.at);
    shared.ring().release(turn);
    round(d_s, slopes);
    turn = next;
  }
  begin_products(d_q.at, slopes);
  add_product_with_rows<D, STEP>(d_q.at, slopes, keys(turn));
  commit_products();
  wait_products<0>(d_q.at);
  named_barrier(1 + group, WARPGROUP); // no warp's products read these queries any more
  bf16* to = d_qkv + (static_cast<size_t>(queries.row) + first_row) * layout.row<D>() + head * D;
  write_rows(d_q, layout.scale, layout.scale, shared.own(0), first_row, to, layout.row<D>(), queries.rows > first_row ? queries.rows - first_row : 0);
}

/// By all threads, before anything else.
template <int D> __device__ __forceinline__ void make_barriers(const Shared<D>& shared, uint32_t rows, uint32_t arrivals) {
  if (threadIdx.x == 0) {
    const uint32_t warps = rows > GROUP_ROWS ? 8 : 4;
    make_barrier(shared.own_there(), 1);
    shared.ring().make(arrivals, warps);
    shared.second_ring().make(1, warps);
    publish_barriers();
  }
  __syncthreads();
}

template <int D>
__device__ __forceinline__ void key_gradients(const TensorMap& qkv, const TensorMap& d_out, const float* lse, const float* delta, const uint32_t* tiles,
                                              const uint32_t* readers, bf16* d_qkv, const Layout& layout) {
  DYNAMIC_TILES(data);
  const Shared<D> shared{data};
  const Keys keys = Keys::read(tiles, blockIdx.y);
  const Walk<STEP> walk(readers, keys, layout.heads / layout.kv_heads);
  make_barriers(shared, keys.rows, 2);
  if (warpgroup_index() == 0) {
    shrink_registers<FETCHING_REGISTERS>();
    if (warp_index() == 0) fetch_queries(shared, qkv, d_out, lse, delta, keys, walk, layout);
  } else {
    grow_registers<COMPUTING_REGISTERS>();
    key_gradients(shared, keys, walk, d_qkv, layout);
  }
}

template <int D>
__device__ __forceinline__ void query_gradients(const TensorMap& qkv, const TensorMap& d_out, const float* lse, const float* delta,
                                                const uint32_t* tiles, bf16* d_qkv, const Layout& layout) {
  DYNAMIC_TILES(data);
  const Shared<D> shared{data};
  const Queries queries = Queries::read(tiles, blockIdx.y);
  make_barriers(shared, queries.rows, 1);
  if (warpgroup_index() == 0) {
    shrink_registers<FETCHING_REGISTERS>();
    if (threadIdx.x == 0) fetch_keys(shared, qkv, d_out, queries, layout);
  } else {
    grow_registers<COMPUTING_REGISTERS>();
    query_gradients(shared, queries, lse, delta, d_qkv, layout);
  }
}

#endif

#define FOR_HEAD(D)                                                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) attention_row_sums_hopper_##D(const bf16* d_out, const bf16* out, float* delta,        \
                                                                                  uint32_t tokens, uint32_t heads) {                       \
    row_sums<D>(d_out, out, delta, tokens, heads);                                                                                         \
  }                                                                                                                                        \
  EXPORT(attention_row_sums_hopper_##D)                                                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_key_gradients_hopper_##D(                                             \
      const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap d_out, const float* lse, const float* delta,                \
      const uint32_t* tiles, const uint32_t* readers, bf16* d_qkv, uint32_t tokens, uint32_t heads, uint32_t kv_heads, uint32_t window,    \
      float scale) {                                                                                                                       \
    ON_HOPPER(key_gradients<D>(qkv, d_out, lse, delta, tiles, readers, d_qkv, Layout{tokens, heads, kv_heads, window, scale}));            \
  }                                                                                                                                        \
  EXPORT(attention_key_gradients_hopper_##D)                                                                                               \
  extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_query_gradients_hopper_##D(                                           \
      const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap d_out, const float* lse, const float* delta,                \
      const uint32_t* tiles, bf16* d_qkv, uint32_t tokens, uint32_t heads, uint32_t kv_heads, uint32_t window, float scale) {              \
    ON_HOPPER(query_gradients<D>(qkv, d_out, lse, delta, tiles, d_qkv, Layout{tokens, heads, kv_heads, window, scale}));                   \
  }                                                                                                                                        \
  EXPORT(attention_query_gradients_hopper_##D)

FOR_HEAD(64)
FOR_HEAD(128)
