// Attention of new tokens over keys and values that lie in pages. `append` puts the new ones there; `attend` gives for tiles
// of tokens and stretches of keys a part of the result each, so that one long sequence has work for the whole card;
// `combine` adds the parts up. A block has all the query heads that share keys (as many as fit), so that the keys of a
// decoded token are read once.
#include "flash.cuh"
#include "plain.cuh"

/// Rows of queries of a block, four warps of 16: heads of the first token, heads of the second …
constexpr int QUERY_ROWS = 64;
static_assert(PAGE == KEYS, "a tile of keys is a page of a head");

template <typename T, int N>
__device__ void append(const T* qkv, const uint32_t* tokens, uint32_t heads, uint32_t kv_heads, uint32_t layer, uint32_t dim) {
  const CachedToken token = CachedToken::read(tokens, blockIdx.x);
  const CacheLayout layout{heads, kv_heads, 1, layer, 0, 0.0f};
  const T* row = qkv + (static_cast<size_t>(blockIdx.x) * (heads + 2 * kv_heads) + heads) * dim;
  T* page = reinterpret_cast<T*>(token.page);
  const uint32_t packs = dim / N;
  for (uint32_t number = threadIdx.x; number < 2 * kv_heads * packs; number += blockDim.x) {
    float values[N];
    load(row + number * N, values);
    store(page + layout.rows_of(number / packs, dim) + token.slot * dim + number % packs * N, values);
  }
}

template <int D>
__device__ void attend(const bf16* qkv, const uint32_t* tiles, const uint32_t* pages, float* parts, float* lse, const CacheLayout& layout) {
  constexpr int THREADS = 128;
  DYNAMIC_SHARED(bf16, shared);
  const Tile<D> q_tile{shared}, k_tile{shared + QUERY_ROWS * D}, v_tile{shared + (QUERY_ROWS + KEYS) * D};
  const CachedQueries queries = CachedQueries::read(tiles, blockIdx.y);
  const uint32_t head = blockIdx.x * layout.share, kv_head = head / (layout.heads / layout.kv_heads), rows = queries.rows * layout.share;
  const auto fetch_from = [&](uint32_t kv_head) {
    return [&, kv_head](Tile<D> tile, uint32_t first) {
      // A stretch begins with a page.
      const bf16* page = page_of<bf16>(pages, queries.first_page, first) + layout.rows_of(kv_head, D);
      fetch<KEYS, THREADS>(tile, page, D, queries.end - first, [](uint32_t row) { return row; });
    };
  };
  fetch<QUERY_ROWS, THREADS>(q_tile, qkv, D, rows, [&](uint32_t row) {
    return (queries.row + row / layout.share) * (layout.heads + 2 * layout.kv_heads) + head + row % layout.share;
  });

  const uint32_t first_row = warp_index() * 16;
  Flash<D, 1> flash;
  flash.clear();
  flash.walk(q_tile, k_tile, v_tile, first_row, first_row < rows, queries.begin, queries.end, layout.window, layout.scale * LOG2_E,
             fetch_from(kv_head), fetch_from(layout.kv_heads + kv_head),
             [&](uint32_t row) { return queries.position + row / layout.share; });

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float mass = flash.total(0, half);
    const uint32_t row = first_row + lane_index() / 4 + 8 * half;
    if (row >= rows) continue;
    const size_t to = (static_cast<size_t>(queries.part) + row / layout.share) * layout.heads + head + row % layout.share;
    // A token may see none of this stretch.
    const float factor = mass > 0.0f ? 1.0f / mass : 0.0f;
#pragma unroll
    for (int column = 0; column < D / 8; ++column) {
      const float(&values)[4] = flash.sums[0].at[column];
      store8(parts + to * D + column * 8 + lane_index() % 4 * 2,
             uint2{__float_as_uint(values[2 * half] * factor), __float_as_uint(values[2 * half + 1] * factor)});
    }
    if (lane_index() % 4 == 0) lse[to] = mass > 0.0f ? fmaf(flash.largest[0][half], layout.scale, logf(mass)) : LOWEST;
  }
}

template <typename T> __device__ void combine(const float* parts, const float* lse, const uint32_t* tokens, T* out, uint32_t heads, uint32_t dim) {
  const CachedToken token = CachedToken::read(tokens, blockIdx.x);
  for (uint32_t head = warp_index(); head < heads; head += blockDim.x / WARP) {
    const auto part = [&](uint32_t number) { return (static_cast<size_t>(token.first_part) + number * token.stride) * heads + head; };
    float largest = LOWEST;
    for (uint32_t number = 0; number < token.parts; ++number) largest = fmaxf(largest, lse[part(number)]);
    float sums[HELD] = {}, mass = 0.0f;
    for (uint32_t number = 0; number < token.parts; ++number) {
      const float weight = expf(lse[part(number)] - largest);
      float values[HELD];
      load_row(parts + part(number) * dim, dim, values);
      add(sums, weight, values);
      mass += weight;
    }
    T* row = out + (static_cast<size_t>(blockIdx.x) * heads + head) * dim;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      if (i * WARP + lane_index() < dim) row[i * WARP + lane_index()] = from_float<T>(sums[i] / mass);
    }
  }
}

extern "C" __global__ void __launch_bounds__(128)
    attention_cached_f32(const float* qkv, const uint32_t* tiles, const uint32_t* pages, float* parts, float* lse, uint32_t heads,
                         uint32_t kv_heads, uint32_t share, uint32_t layer, uint32_t window, float scale, uint32_t dim) {
  SHARED_ARRAY(float, rows, WARPS * MOST);
  SHARED_ARRAY(float, held, WARPS * 2 * WARP);
  float *const q = rows + warp_index() * MOST, *const scores = held + warp_index() * 2 * WARP, *const weights = scores + WARP;
  const CacheLayout layout{heads, kv_heads, share, layer, window, scale};
  const CachedQueries queries = CachedQueries::read(tiles, blockIdx.y);
  const uint32_t kv_head = blockIdx.x * share / (heads / kv_heads);
  const auto row_of = [&](uint32_t kv_head) {
    return [&, kv_head](uint32_t key) {
      return page_of<float>(pages, queries.first_page, key) + layout.rows_of(kv_head, dim) + key % PAGE * dim;
    };
  };
  for (uint32_t number = warp_index(); number < queries.rows * share; number += WARPS) {
    const uint32_t token = number / share, head = blockIdx.x * share + number % share, position = queries.position + token;
    __syncwarp(); // the last row is done with
    share_row(q, qkv + (static_cast<size_t>(queries.row + token) * (heads + 2 * kv_heads) + head) * dim, dim);
    __syncwarp(); // the query is there
    Seen seen;
    seen.walk(q, scores, weights, max(queries.begin, first_seen(position, window)), min(queries.end, position + 1), dim, scale,
              row_of(kv_head), row_of(kv_heads + kv_head));
    const size_t to = (static_cast<size_t>(queries.part) + token) * heads + head;
    store_row(parts + to * dim, dim, seen.sums, seen.mass > 0.0f ? 1.0f / seen.mass : 0.0f);
    if (lane_index() == 0) lse[to] = seen.mass > 0.0f ? seen.largest + logf(seen.mass) : LOWEST;
  }
}
EXPORT(attention_cached_f32)

#define FOR_TYPE(T, suffix)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) cache_append_##suffix(const T* qkv, const uint32_t* tokens, uint32_t heads,          \
                                                                          uint32_t kv_heads, uint32_t layer, uint32_t dim) {             \
    if (dim % PACK<T> == 0) append<T, PACK<T>>(qkv, tokens, heads, kv_heads, layer, dim);                                                \
    else append<T, 1>(qkv, tokens, heads, kv_heads, layer, dim);                                                                         \
  }                                                                                                                                      \
  EXPORT(cache_append_##suffix)                                                                                                          \
  extern "C" __global__ void __launch_bounds__(256) attention_combine_##suffix(const float* parts, const float* lse,                     \
                                                                               const uint32_t* tokens, T* out, uint32_t heads,           \
                                                                               uint32_t dim) {                                           \
    combine(parts, lse, tokens, out, heads, dim);                                                                                        \
  }                                                                                                                                      \
  EXPORT(attention_combine_##suffix)

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)

#define FOR_HEAD(D)                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(128)                                                                                      \
      attention_cached_##D(const bf16* qkv, const uint32_t* tiles, const uint32_t* pages, float* parts, float* lse, uint32_t heads,      \
                           uint32_t kv_heads, uint32_t share, uint32_t layer, uint32_t window, float scale) {                            \
    attend<D>(qkv, tiles, pages, parts, lse, CacheLayout{heads, kv_heads, share, layer, window, scale});                                 \
  }                                                                                                                                      \
  EXPORT(attention_cached_##D)

FOR_HEAD(16)
FOR_HEAD(32)
FOR_HEAD(64)
FOR_HEAD(96)
FOR_HEAD(128)
