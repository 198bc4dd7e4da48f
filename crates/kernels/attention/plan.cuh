// The work list of attention, as cuda.rs makes it: 32-bit words in global memory.
#pragma once

#include "device.cuh"

/// Neighbouring queries of a segment, and the keys that they see. Keys are counted by position: those below `prefix` are
/// rows of the segment that this one continues, the others its own.
struct Queries {
  uint32_t row, rows, position, prefix, stem, start;

  static __device__ __forceinline__ Queries read(const uint32_t* words, uint32_t number) {
    const uint4 first = load16(words + 8 * number), second = load16(words + 8 * number + 4);
    return Queries{first.x, first.y, first.z, first.w, second.x, second.y};
  }
  __device__ __forceinline__ uint32_t key_row(uint32_t key) const { return key < prefix ? stem + key : start + (key - prefix); }
};

/// Neighbouring keys of a segment, and where those who see them are listed.
struct Keys {
  uint32_t row, rows, position, first_reader, readers;

  static __device__ __forceinline__ Keys read(const uint32_t* words, uint32_t number) {
    const uint4 first = load16(words + 8 * number), second = load16(words + 8 * number + 4);
    return Keys{first.x, first.y, first.z, first.w, second.x};
  }
};

/// Neighbouring queries that see the first `keys` of a tile of keys, masks aside.
struct Reader {
  uint32_t row, rows, position, keys;

  static __device__ __forceinline__ Reader read(const uint32_t* words, uint32_t number) {
    const uint4 first = load16(words + 4 * number);
    return Reader{first.x, first.y, first.z, first.w};
  }
};

/// Where the walk over the queries of a tile of keys stands: a head of the group, a reader, a tile of `ROWS` of its queries.
template <int ROWS> struct Walk {
  const uint32_t* readers;
  uint32_t first_reader, count, heads;
  uint32_t head = 0, number = 0, first = 0;
  Reader reader;

  __device__ __forceinline__ Walk(const uint32_t* readers, const Keys& keys, uint32_t heads)
      : readers(readers), first_reader(keys.first_reader), count(keys.readers), heads(heads), reader(Reader::read(readers, keys.first_reader)) {}
  __device__ __forceinline__ bool done() const { return head == heads; }
  __device__ __forceinline__ uint32_t row() const { return reader.row + first; }
  __device__ __forceinline__ uint32_t rows() const { return reader.rows - first; }
  __device__ __forceinline__ uint32_t position() const { return reader.position + first; }
  __device__ __forceinline__ void advance() {
    first += ROWS;
    if (first < reader.rows) return;
    first = 0;
    if (++number == count) {
      number = 0;
      ++head;
    }
    if (count > 1) reader = Reader::read(readers, first_reader + number);
  }
};

/// Whether a query sees a key, both given by position; `window` is more than any position where there is none.
__device__ __forceinline__ bool sees(uint32_t query, uint32_t key, uint32_t window) { return key <= query && query - key < window; }

/// The first key that a query sees.
__device__ __forceinline__ uint32_t first_seen(uint32_t query, uint32_t window) { return query + 1 > window ? query + 1 - window : 0; }

/// What all launches have in common.
struct Layout {
  uint32_t tokens, heads, kv_heads, window;
  /// The scores' factor
  float scale;

  /// Elements of a row of q, k and v.
  template <int D> __device__ __forceinline__ uint32_t row() const { return (heads + 2 * kv_heads) * D; }
};

/// Positions of a sequence that a page of its keys and values holds.
constexpr uint32_t PAGE = 64;

/// Neighbouring tokens of a sequence whose keys and values lie in pages, and a stretch of the keys that they see.
struct CachedQueries {
  /// `first_page`: the place of the sequence's pages in the list of them
  uint32_t row, rows, position, first_page, begin, end, part;

  static __device__ __forceinline__ CachedQueries read(const uint32_t* words, uint32_t number) {
    const uint4 first = load16(words + 8 * number), second = load16(words + 8 * number + 4);
    return CachedQueries{first.x, first.y, first.z, first.w, second.x, second.y, second.z};
  }
};

/// Where a token's own key and value go, and the parts that its stretches of keys give: `parts` of them, `stride` apart.
struct CachedToken {
  uint64_t page;
  uint32_t slot, first_part, stride, parts;

  static __device__ __forceinline__ CachedToken read(const uint32_t* words, uint32_t number) {
    const uint4 first = load16(words + 8 * number), second = load16(words + 8 * number + 4);
    return CachedToken{static_cast<uint64_t>(first.y) << 32 | first.x, first.z, first.w, second.x, second.y};
  }
};

/// What all launches over pages have in common. A page is `[layers, 2 (keys, values), KV, PAGE, D]`.
struct CacheLayout {
  /// `share`: query heads of a block, which have one key/value head
  uint32_t heads, kv_heads, share, layer, window;
  float scale;

  /// Where the rows of a head begin in a page; the value heads follow the key heads.
  __device__ __forceinline__ size_t rows_of(uint32_t head, uint32_t dim) const {
    return (static_cast<size_t>(layer) * 2 * kv_heads + head) * PAGE * dim;
  }
};

/// The page that holds a position.
template <typename T> __device__ __forceinline__ const T* page_of(const uint32_t* pages, uint32_t first_page, uint32_t position) {
  const uint2 address = load8(pages + 2 * (first_page + position / PAGE));
  return reinterpret_cast<const T*>(static_cast<uint64_t>(address.y) << 32 | address.x);
}
