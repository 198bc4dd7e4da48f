// Hopper's own instructions (sm_90a), for nvcc; emulation/hopper.h has the same functions for the CPU. One instruction each.
// Other targets of a fatbin get an empty body, and `HOPPER` is 0 there.
#pragma once

#include "ptx.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1
#else
#define HOPPER 0
#endif

/// A matrix in global memory, as the driver encodes it (CUtensorMap). A kernel's parameter, `__grid_constant__`.
struct __align__(128) TensorMap {
  uint64_t opaque[16];
};

/// Dynamic shared memory that begins at a multiple of 1024, where the pattern of swizzled tiles begins.
#define DYNAMIC_TILES(name)                               \
  extern __shared__ __align__(1024) uint8_t tiles_shared[]; \
  uint8_t* const name = tiles_shared

#if HOPPER

/// Makes a barrier in shared memory that opens when `arrivals` threads have arrived and all bytes that they expect.
__device__ __forceinline__ void make_barrier(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
/// Lets the copy engine see the barriers that this thread has made.
__device__ __forceinline__ void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
/// Arrives, and tells how many bytes will come by copies.
__device__ __forceinline__ void arrive_expecting(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
/// Waits until the phase of that parity is over; of a new barrier the one with parity 1 is.
__device__ __forceinline__ void wait_for(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@!over bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// The map's box from (`row`, `column`) on into shared memory, its chunks of 16 bytes swizzled, zeros for what the matrix does
/// not have. `barrier` hears of its bytes.
__device__ __forceinline__ void copy_box_async(void* shared, const TensorMap& map, uint32_t column, uint32_t row, uint64_t* barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
                   shared_address(shared)),
               "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row)
               : "memory");
}

/// What this thread has written to shared memory is there for copy engine and tensor cores, once they are told.
__device__ __forceinline__ void publish_to_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Registers a thread from here on, by whole warpgroups: fewer, or more when others have given theirs.
template <int COUNT> __device__ __forceinline__ void shrink_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT> __device__ __forceinline__ void grow_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }

/// No instruction: the compiler may move no use of these registers across it.
template <int TILES> __device__ __forceinline__ void pin(float (&sums)[TILES][4]) {
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) asm volatile("" : "+f"(sums[tile][0]), "+f"(sums[tile][1]), "+f"(sums[tile][2]), "+f"(sums[tile][3])::"memory");
}
template <int STEPS> __device__ __forceinline__ void pin(uint32_t (&a)[STEPS][4]) {
#pragma unroll
  for (int step = 0; step < STEPS; ++step) asm volatile("" : "+r"(a[step][0]), "+r"(a[step][1]), "+r"(a[step][2]), "+r"(a[step][3])::"memory");
}

/// Before products whose registers other instructions have used.
template <typename... Registers> __device__ __forceinline__ void begin_products(Registers&... registers) {
  (pin(registers), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
/// Closes a group of products.
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits for all groups but the last `PENDING`; `registers` are those that may be used then.
template <int PENDING, typename... Registers> __device__ __forceinline__ void wait_products(Registers&... registers) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
  (pin(registers), ...);
}

#define SUMS_4(t) "+f"(sums[t][0]), "+f"(sums[t][1]), "+f"(sums[t][2]), "+f"(sums[t][3])
#define SUMS_32 SUMS_4(0), SUMS_4(1), SUMS_4(2), SUMS_4(3), SUMS_4(4), SUMS_4(5), SUMS_4(6), SUMS_4(7)
#define SUMS_64 \
  SUMS_32, SUMS_4(8), SUMS_4(9), SUMS_4(10), SUMS_4(11), SUMS_4(12), SUMS_4(13), SUMS_4(14), SUMS_4(15)
#define NAMES_32                                                                                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "   \
  "%26, %27, %28, %29, %30, %31"
#define NAMES_64                                                                                                               \
  NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
           "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/// D[64, N] (+)= A[64, 16] · B[16, N] by a warpgroup: f32 sums of bf16 products, A by rows and B by columns, both in shared memory.
template <int TILES> __device__ __forceinline__ void multiply_shared(float (&sums)[TILES][4], uint64_t a, uint64_t b, bool add) {
  static_assert(TILES == 8 || TILES == 16, "64 or 128 columns");
  if constexpr (TILES == 8) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32 "}, %32, %33, add, 1, 1, 0, 0;\n}"
                 : SUMS_32
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)));
  } else {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64 "}, %64, %65, add, 1, 1, 0, 0;\n}"
                 : SUMS_64
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)));
  }
}

/// D[64, N] += A[64, 16] · B[16, N]: A in registers, sixteen rows a warp as mma.sync has them; B by rows in shared memory.
template <int TILES> __device__ __forceinline__ void multiply_registers(float (&sums)[TILES][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(TILES == 8 || TILES == 16, "64 or 128 columns");
  if constexpr (TILES == 8) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : SUMS_32
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : SUMS_64
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
}

#undef SUMS_4
#undef SUMS_32
#undef SUMS_64
#undef NAMES_32
#undef NAMES_64

#endif
