// What emulation.h declares: the language on the machine, its tensor cores and its approximations.
#include "emulation.h"

#include "machine.h"
#include "rounding.h"

#include <cstring>

using emulation::Access;

namespace emulation {

Index thread_index() { return machine().current().index; }
uint32_t lane() { return machine().current().id % 32; }
Index block_index() { return machine().block_index; }
Index block_size() { return machine().block_size; }
Index grid_size() { return machine().grid_size; }
void barrier(uint32_t id, uint32_t threads, bool wait) { machine().barrier(id, threads, wait); }
void warp_barrier(uint32_t mask) { machine().warp_barrier(mask); }

void* shared_memory() { return machine().shared_memory(); }

void* shared_array(const void* tag, const char* name, size_t bytes, size_t element) {
  return machine().shared_array(tag, name, bytes, element);
}

Export::Export(const char* name, const char* signature, void (*invoke)(const void*, const uint64_t*), const void* function) {
  Registration{Kernel{name, signature, invoke, function}};
}

struct Shuffled {
  uint32_t value, lane, result;
};

uint32_t shuffle(uint32_t mask, uint32_t value, uint32_t lane, const char* name) {
  Shuffled mine{value, lane, 0};
  machine().collective(name, mask, 0, &mine, [](void** lanes, uint32_t mask, uint32_t) {
    for (uint32_t to = 0; to < 32; ++to) {
      if (!(mask >> to & 1)) continue;
      auto& asking = *static_cast<Shuffled*>(lanes[to]);
      if (!(mask >> asking.lane & 1)) machine().fault("a shuffle from lane " + std::to_string(asking.lane) + ", which takes no part");
      asking.result = static_cast<Shuffled*>(lanes[asking.lane])->value;
    }
  });
  return mine.result;
}

uint32_t ballot(uint32_t mask, bool vote) {
  uint32_t mine = vote;
  machine().collective("__ballot_sync", mask, 0, &mine, [](void** lanes, uint32_t mask, uint32_t) {
    uint32_t votes = 0;
    for (uint32_t lane = 0; lane < 32; ++lane) votes |= (mask >> lane & 1) && *static_cast<uint32_t*>(lanes[lane]) ? 1u << lane : 0;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if (mask >> lane & 1) *static_cast<uint32_t*>(lanes[lane]) = votes;
    }
  });
  return mine;
}

template <typename T, typename Update> static T atomic(T* address, Update update) {
  machine().memory.access(reinterpret_cast<uintptr_t>(address), sizeof(T), sizeof(T), Access::ATOMIC);
  const T before = *address;
  *address = update(before);
  return before;
}
uint32_t atomic_add(uint32_t* address, uint32_t value) {
  return atomic(address, [&](uint32_t before) { return before + value; });
}
uint32_t atomic_max(uint32_t* address, uint32_t value) {
  return atomic(address, [&](uint32_t before) { return before < value ? value : before; });
}
float atomic_add(float* address, float value) {
  return atomic(address, [&](float before) { return before + value; });
}

static uint16_t round_to_bf16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if (value != value) return 0x7fff; // cvt.rn.bf16.f32 has one NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// `exact · (1 + e)`, |e| ≤ `error`: e is a hash of the input, so that tests meet both signs and every size.
static float perturbed(double exact, float input, double error) {
  uint32_t hash = __float_as_uint(input) * 0x9e3779b1u;
  hash ^= hash >> 15;
  hash *= 0x85ebca77u;
  hash ^= hash >> 13;
  return static_cast<float>(exact * (1.0 + error * (hash / 2147483648.0 - 1.0)));
}

struct Product {
  float* sums;
  uint32_t a[4], b[2];
};

/// D += A·B, A [16, 16] by rows, B [16, 8] by columns. Ampere and Hopper add eight exact products at a time to the sum
/// and cut off (Fasi et al. 2021, Numerical behavior of NVIDIA tensor cores).
static void multiply_together(void** lanes, uint32_t, uint32_t) {
  float a[16][16], b[8][16];
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const auto& product = *static_cast<Product*>(lanes[lane]);
    const uint32_t group = lane / 4, pair = lane % 4 * 2;
    for (uint32_t half = 0; half < 2; ++half) {
      const auto element = [&](uint32_t word) { return widen(static_cast<uint16_t>(half ? word >> 16 : word)); };
      a[group][pair + half] = element(product.a[0]);
      a[group + 8][pair + half] = element(product.a[1]);
      a[group][pair + 8 + half] = element(product.a[2]);
      a[group + 8][pair + 8 + half] = element(product.a[3]);
      b[group][pair + half] = element(product.b[0]);
      b[group][pair + 8 + half] = element(product.b[1]);
    }
  }
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const auto& product = *static_cast<Product*>(lanes[lane]);
    for (uint32_t value = 0; value < 4; ++value) {
      const float* row = a[lane / 4 + value / 2 * 8];
      const float* column = b[lane % 4 * 2 + value % 2];
      float sum = product.sums[value];
      for (uint32_t first = 0; first < 16; first += 8) {
        double total = sum;
        for (uint32_t k = first; k < first + 8; ++k) total += static_cast<double>(row[k]) * column[k];
        sum = towards_zero(total);
      }
      product.sums[value] = sum;
    }
  }
  ++machine().statistics.matrix_products;
}

struct Matrices {
  uintptr_t row;
  uint32_t* registers;
};

template <bool TRANSPOSED> static void load_together(void** lanes, uint32_t, uint32_t) {
  uint16_t rows[32][8];
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uintptr_t row = static_cast<Matrices*>(lanes[lane])->row;
    std::memcpy(rows[lane], reinterpret_cast<const void*>(row), 16);
  }
  // The eight rows of a matrix leave shared memory at once if they lie in different groups of four banks.
  for (uint32_t matrix = 0; matrix < 4; ++matrix) {
    uint32_t taken = 0;
    for (uint32_t row = 0; row < 8; ++row) {
      const uint32_t banks = 1u << (static_cast<Matrices*>(lanes[matrix * 8 + row])->row / 16 % 8);
      machine().statistics.bank_conflicts += taken & banks ? 1 : 0;
      taken |= banks;
    }
  }
  for (uint32_t lane = 0; lane < 32; ++lane) {
    for (uint32_t matrix = 0; matrix < 4; ++matrix) {
      const auto element = [&](uint32_t half) -> uint32_t {
        return TRANSPOSED ? rows[matrix * 8 + lane % 4 * 2 + half][lane / 4] : rows[matrix * 8 + lane / 4][lane % 4 * 2 + half];
      };
      static_cast<Matrices*>(lanes[lane])->registers[matrix] = element(0) | element(1) << 16;
    }
  }
}

template <bool TRANSPOSED> static void load(uint32_t (&registers)[4], const void* row, const char* name) {
  const auto address = reinterpret_cast<uintptr_t>(row);
  machine().memory.access(address, 16, 16, Access::READ);
  Matrices mine{address, registers};
  machine().collective(name, 0xffffffff, 0, &mine, load_together<TRANSPOSED>);
}

} // namespace emulation

template <typename T> static T load_vector(const void* address) {
  emulation::machine().memory.access(reinterpret_cast<uintptr_t>(address), sizeof(T), sizeof(T), Access::READ);
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}
template <typename T> static void store_vector(void* address, T value) {
  emulation::machine().memory.access(reinterpret_cast<uintptr_t>(address), sizeof(T), sizeof(T), Access::WRITE);
  std::memcpy(address, &value, sizeof(T));
}

uint4 load16(const void* address) { return load_vector<uint4>(address); }
void store16(void* address, uint4 value) { store_vector(address, value); }
uint2 load8(const void* address) { return load_vector<uint2>(address); }
void store8(void* address, uint2 value) { store_vector(address, value); }

uint32_t pack_bf16(float low, float high) {
  return emulation::round_to_bf16(low) | static_cast<uint32_t>(emulation::round_to_bf16(high)) << 16;
}

// ex2.approx.ftz.f32: relative error 2^-22. Numbers too small for a normal f32 become 0.
float exp2_approximate(float x) {
  const float value = emulation::perturbed(std::exp2(static_cast<double>(x)), x, 0x1p-22);
  return std::fabs(value) < 0x1p-126f ? 0.0f : value;
}

// lg2.approx.ftz.f32: absolute error 2^-22 near 1, relative error 2^-22 elsewhere.
float log2_approximate(float x) {
  if (x >= 0.5f && x <= 2.0f) return static_cast<float>(std::log2(static_cast<double>(x)) + (emulation::perturbed(1.0, x, 0x1p-22) - 1.0));
  return emulation::perturbed(std::log2(static_cast<double>(x)), x, 0x1p-22);
}

void load_matrices(uint32_t (&registers)[4], const void* row) { emulation::load<false>(registers, row, "ldmatrix"); }
void load_matrices_transposed(uint32_t (&registers)[4], const void* row) { emulation::load<true>(registers, row, "ldmatrix.trans"); }

void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::Product mine{sums, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulation::machine().collective("mma.sync", 0xffffffff, 0, &mine, emulation::multiply_together);
}

void copy16_async(void* shared, const void* global, bool valid) {
  emulation::machine().copy_async(reinterpret_cast<uintptr_t>(shared), reinterpret_cast<uintptr_t>(global), 16, valid ? 16 : 0);
}
void commit_copies() { emulation::machine().commit_copies(); }
void wait_copies_but(int pending) { emulation::machine().wait_copies(static_cast<size_t>(pending)); }

// The face to crates/emulator.
using emulation::Machine;

extern "C" Machine* emulation_open() { return new Machine(); }
extern "C" void emulation_close(Machine* machine) { delete machine; }

extern "C" uint64_t emulation_allocate(Machine* machine, const char* name, uint64_t bytes, uint32_t element) {
  return reinterpret_cast<uint64_t>(machine->memory.allocate(name, bytes, element, false)->begin);
}
/// 0 when there is no more.
extern "C" uint64_t emulation_reserve(Machine* machine, uint64_t bytes) { return machine->memory.reserve(bytes); }
extern "C" void emulation_name(Machine* machine, const char* name, uint64_t address, uint64_t bytes, uint32_t element) {
  machine->memory.name(name, address, bytes, element);
}
extern "C" bool emulation_write(Machine* machine, uint64_t address, const void* from, uint64_t bytes) {
  return machine->memory.write(address, from, bytes);
}
extern "C" bool emulation_read(Machine* machine, uint64_t address, void* to, uint64_t bytes, uint64_t* unwritten) {
  *unwritten = 0;
  return machine->memory.read(address, to, bytes, *unwritten);
}

/// Null when all went well, else what went wrong; the text lives until the next launch.
extern "C" const char* emulation_launch(Machine* machine, const char* name, const char* signature, const uint32_t* grid, const uint32_t* block,
                                        uint64_t shared_bytes, const uint64_t* arguments, uint32_t schedule, emulation::Statistics* statistics) {
  static thread_local std::string message;
  const emulation::Kernel* kernel = emulation::find_kernel(name);
  if (!kernel) {
    message = std::string("no kernel is called ") + name;
    return message.c_str();
  }
  if (kernel->signature != signature) {
    message = std::string(name) + " takes " + kernel->signature + ", not " + signature;
    return message.c_str();
  }
  message = machine->run(emulation::Launch{kernel, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes, arguments, schedule});
  *statistics = machine->statistics;
  return message.empty() ? nullptr : message.c_str();
}
