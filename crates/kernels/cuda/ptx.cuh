// The instructions that CUDA C++ has no words for, for nvcc. emulation/ has the same functions for the CPU: these few
// lines are all of a kernel that the emulated tests cannot see, so they hold one instruction each and no arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

/// The upper half of an f32.
struct __align__(2) bf16 {
  uint16_t bits;
};

/// Only the emulation needs to know kernels by name.
#define EXPORT(kernel)
/// Shared memory of a fixed size, and the memory whose size the launch gives.
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)                          \
  extern __shared__ __align__(128) uint8_t dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(dynamic_shared)

__device__ __forceinline__ uint4 load16(const void* address) { return *static_cast<const uint4*>(address); }

__device__ __forceinline__ void store16(void* address, uint4 value) { *static_cast<uint4*>(address) = value; }

__device__ __forceinline__ uint2 load8(const void* address) { return *static_cast<const uint2*>(address); }

__device__ __forceinline__ void store8(void* address, uint2 value) { *static_cast<uint2*>(address) = value; }

/// Two f32 to the nearest bf16 (ties to even), `low` in the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/// 2^x within 2^-22 of it.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float log2_approximate(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

/// Four 8×8 matrices of bf16 from shared memory: lane l names row l % 8 of matrix l / 8, and gets of each matrix the
/// elements 2·(l % 4) and the next of row l / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

/// As above with each matrix turned: of column l / 4 the rows 2·(l % 4) and the next.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

/// D[16, 8] += A[16, 16] · B[16, 8] by a warp: f32 sums of bf16 products.
__device__ __forceinline__ void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// A barrier of `threads` threads of the block, by number: 0 is __syncthreads' own.
__device__ __forceinline__ void named_barrier(uint32_t number, uint32_t threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
/// Counts for such a barrier without waiting at it.
__device__ __forceinline__ void arrive_at_barrier(uint32_t number, uint32_t threads) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

/// 16 bytes from global to shared memory in the background; zeros when not `valid`, and then nothing is read.
__device__ __forceinline__ void copy16_async(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0) : "memory");
}

/// Closes a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits for this thread's copies but those of the last `PENDING` groups.
template <int PENDING> __device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }
