// CUDA's language for a C++ compiler: the kernels' own sources, compiled by g++ against this header, run on the CPU.
//
// Blocks run one after another, the threads of a block as fibres (machine.h). Compiled with -fsanitize=thread, every
// access to memory passes a watch (memory.h) that ends the launch on an access out of bounds, misaligned, of what
// nothing has written, or in a race with another thread or block. What the GPU rounds, this rounds the same way: bf16 to
// the nearest even; tensor cores towards zero; the approximate functions are wrong by as much as NVIDIA says they may be.
//
// Hopper's own instructions are in hopper.h.
//
// Kernels are compiled by nvcc with -fmad=false, and here with -ffp-contract=off: `a * b + c` has two roundings on both.
#pragma once

#include "index.h"

#include <cmath>
#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (emulation::thread_index())
#define blockIdx (emulation::block_index())
#define blockDim (emulation::block_size())
#define gridDim (emulation::grid_size())

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};

/// The upper half of an f32.
struct alignas(2) bf16 {
  uint16_t bits;
};

namespace emulation {

// A thread's place never changes, so a kernel asks once.
Index thread_index() __attribute__((const));
uint32_t lane() __attribute__((const));
Index block_index() __attribute__((const));
Index block_size() __attribute__((const));
Index grid_size() __attribute__((const));
void barrier(uint32_t id, uint32_t threads, bool wait);
void warp_barrier(uint32_t mask);
uint32_t shuffle(uint32_t mask, uint32_t value, uint32_t lane, const char* name);
uint32_t ballot(uint32_t mask, bool vote);
void* shared_memory();
void* shared_array(const void* tag, const char* name, size_t bytes, size_t element);
uint32_t atomic_add(uint32_t* address, uint32_t value);
uint32_t atomic_max(uint32_t* address, uint32_t value);
float atomic_add(float* address, float value);

/// One letter for the type of an argument; cuda/mod.rs has the same ones.
template <typename T> struct Letter;
#define EMULATION_LETTER(type, sign) \
  template <> struct Letter<type> { static constexpr char value = sign; };
EMULATION_LETTER(bf16*, 'b')
EMULATION_LETTER(float*, 'f')
EMULATION_LETTER(double*, 'd')
EMULATION_LETTER(uint32_t*, 'u')
EMULATION_LETTER(int16_t*, 'h')
EMULATION_LETTER(uint8_t*, 'c')
EMULATION_LETTER(float, 'F')
EMULATION_LETTER(uint32_t, 'U')
EMULATION_LETTER(int32_t, 'I')
EMULATION_LETTER(uint64_t, 'L')
#undef EMULATION_LETTER
template <typename T> struct Plain { using type = T; };
template <typename T> struct Plain<const T*> { using type = T*; };

struct Export {
  Export(const char* name, const char* signature, void (*invoke)(const void*, const uint64_t*), const void* function);
};

template <typename... P> struct Caller {
  template <size_t... I> struct Order {};
  template <size_t N, size_t... I> struct Count : Count<N - 1, N - 1, I...> {};
  template <size_t... I> struct Count<0, I...> { using type = Order<I...>; };
  // The arguments lie in the host's memory, which is none of the watch's business.
  // What needs more than a slot is where the slot points.
  template <typename T> __attribute__((no_sanitize("thread"))) static T argument(const uint64_t& slot) {
    if constexpr (sizeof(T) > sizeof(slot)) return *reinterpret_cast<const T*>(slot);
    else return *reinterpret_cast<const T*>(&slot);
  }
  template <size_t... I> __attribute__((no_sanitize("thread"))) static void call(const void* function, const uint64_t* slots, Order<I...>) {
    reinterpret_cast<void (*)(P...)>(const_cast<void*>(function))(argument<P>(slots[I])...);
  }
  static void invoke(const void* function, const uint64_t* slots) { call(function, slots, typename Count<sizeof...(P)>::type{}); }
};

template <typename... P> Export export_kernel(const char* name, void (*kernel)(P...)) {
  const char letters[] = {Letter<typename Plain<P>::type>::value..., '\0'};
  return Export(name, letters, &Caller<P...>::invoke, reinterpret_cast<const void*>(kernel));
}

} // namespace emulation

/// Makes a kernel known by its name; nvcc needs no such thing.
#define EXPORT(kernel) static const emulation::Export export_##kernel = emulation::export_kernel(#kernel, kernel);

template <typename T> T min(T a, T b) { return b < a ? b : a; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }
inline void __syncthreads() { emulation::barrier(0, 0, true); }
inline void __syncwarp(uint32_t mask = 0xffffffff) { emulation::warp_barrier(mask); }
inline uint32_t __ballot_sync(uint32_t mask, bool vote) { return emulation::ballot(mask, vote); }
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline int __ffs(uint32_t bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline uint32_t __float_as_uint(float value) { return __builtin_bit_cast(uint32_t, value); }
inline float __uint_as_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t atomicAdd(uint32_t* address, uint32_t value) { return emulation::atomic_add(address, value); }
inline uint32_t atomicMax(uint32_t* address, uint32_t value) { return emulation::atomic_max(address, value); }
inline float atomicAdd(float* address, float value) { return emulation::atomic_add(address, value); }

template <typename T> T emulation_shuffle(uint32_t mask, T value, uint32_t lane, const char* name) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a value of one or two registers");
  uint32_t words[sizeof(T) / 4];
  __builtin_memcpy(words, &value, sizeof(T));
  for (uint32_t& word : words) word = emulation::shuffle(mask, word, lane, name);
  __builtin_memcpy(&value, words, sizeof(T));
  return value;
}
template <typename T> T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
  return emulation_shuffle(mask, value, emulation::lane() ^ static_cast<uint32_t>(lanes), "__shfl_xor_sync");
}
template <typename T> T __shfl_sync(uint32_t mask, T value, int lane) {
  return emulation_shuffle(mask, value, static_cast<uint32_t>(lane) % 32, "__shfl_sync");
}

/// Shared memory of a fixed size, and the memory whose size the launch gives.
#define SHARED_ARRAY(type, name, count) \
  static const char tag_of_##name = 0;  \
  type* const name = static_cast<type*>(emulation::shared_array(&tag_of_##name, #name, sizeof(type) * (count), sizeof(type)))
#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(emulation::shared_memory())

// What ptx.cuh has for nvcc.
uint4 load16(const void* address);
void store16(void* address, uint4 value);
uint2 load8(const void* address);
void store8(void* address, uint2 value);
uint32_t pack_bf16(float low, float high);
float exp2_approximate(float x);
float log2_approximate(float x);
void load_matrices(uint32_t (&registers)[4], const void* row);
void load_matrices_transposed(uint32_t (&registers)[4], const void* row);
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
inline void named_barrier(uint32_t number, uint32_t threads) { emulation::barrier(number, threads, true); }
inline void arrive_at_barrier(uint32_t number, uint32_t threads) { emulation::barrier(number, threads, false); }
void copy16_async(void* shared, const void* global, bool valid);
void commit_copies();
void wait_copies_but(int pending);
template <int PENDING> void wait_copies() { wait_copies_but(PENDING); }
