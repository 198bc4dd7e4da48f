// Hopper's own instructions for the CPU: what hopper_ptx.cuh has for nvcc.
//
// Products of a warpgroup are those of its four warps, which are held to the same sequence and to nothing more. Accumulators
// are NaN from a product to the wait for it; operands, in registers or in shared memory, must stay as they are as long.
// Copies come when the schedule likes, as late as all threads waiting; each warns the barrier in shared memory that it was
// given. What threads write for tensor cores or copies needs a fence, and barriers carry the order that the watch on memory
// asks for, as __syncthreads does. Descriptors are decoded, and tiles read, by the bits of addresses.
#pragma once

#include "emulation.h"

#define HOPPER 1

/// A matrix of bf16 in global memory and the box that is copied of it; cuda/mod.rs has the same.
struct TensorMap {
  uint64_t address, rows, columns, stride;
  uint32_t box_rows, box_columns;
};

namespace emulation {

template <> struct Letter<TensorMap> { static constexpr char value = 'T'; };

void* tiles_memory();
void shrink_registers(uint32_t count);
void grow_registers(uint32_t count);
/// Registers of the calling thread, as a kernel names them to a fence or a wait.
struct RegisterNames {
  void* at;
  size_t bytes;
};
void begin_products(const RegisterNames* names, uint32_t count);
void wait_products(uint32_t pending, const RegisterNames* names, uint32_t count);
/// `a` null: both operands are in shared memory.
void multiply(float* sums, uint32_t columns, const uint32_t* a, uint64_t a_descriptor, uint64_t b_descriptor, bool add);

} // namespace emulation

#define DYNAMIC_TILES(name) uint8_t* const name = static_cast<uint8_t*>(emulation::tiles_memory())

uint32_t shared_address(const void* pointer);
void make_barrier(uint64_t* barrier, uint32_t arrivals);
void publish_barriers();
void arrive(uint64_t* barrier);
void arrive_expecting(uint64_t* barrier, uint32_t bytes);
void wait_for(uint64_t* barrier, uint32_t parity);
void copy_box_async(void* shared, const TensorMap& map, uint32_t column, uint32_t row, uint64_t* barrier);
void publish_to_async();
template <typename Registers> void pin(Registers&) {}
template <int COUNT> void shrink_registers() { emulation::shrink_registers(COUNT); }
template <int COUNT> void grow_registers() { emulation::grow_registers(COUNT); }
template <typename... Registers> void begin_products(Registers&... registers) {
  const emulation::RegisterNames names[] = {{&registers, sizeof(registers)}...};
  emulation::begin_products(names, sizeof...(registers));
}
void commit_products();
template <int PENDING, typename... Registers> void wait_products(Registers&... registers) {
  const emulation::RegisterNames names[] = {{&registers, sizeof(registers)}...};
  emulation::wait_products(PENDING, names, sizeof...(registers));
}
template <int TILES> void multiply_shared(float (&sums)[TILES][4], uint64_t a, uint64_t b, bool add) {
  static_assert(TILES == 8 || TILES == 16, "64 or 128 columns");
  emulation::multiply(&sums[0][0], 8 * TILES, nullptr, a, b, add);
}
template <int TILES> void multiply_registers(float (&sums)[TILES][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(TILES == 8 || TILES == 16, "64 or 128 columns");
  emulation::multiply(&sums[0][0], 8 * TILES, a, 0, b, true);
}
