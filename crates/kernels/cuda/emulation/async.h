// What goes on beside the threads of a block on Hopper: copies of boxes, products of warpgroups, and the barriers in shared
// memory that tell of them. hopper.h has the rules.
#pragma once

#include "index.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

struct TensorMap;

namespace emulation {

class Machine;
struct Thread;

/// mbarrier
struct SharedBarrier {
  uint32_t arrivals = 0; // of a phase
  uint32_t missing = 0;  // of this one
  int64_t bytes = 0;     // that are expected and have not come
  uint32_t phase = 0;
  uint32_t heard = 0;    // phases whose end somebody has waited for
  bool published = false;
  uint16_t maker = 0;
  uint32_t made_at = 0; // the maker's clock
  std::vector<uint16_t> waiting;
  /// What those who have arrived in this phase knew and did; of the last phase.
  std::vector<uint32_t> gathering, told;
  /// What its copies write counts as written by a thread of their own, whose clock is the phase.
  uint16_t writer = 0;
};

/// A box on its way.
struct Transfer {
  uint64_t* barrier;
  std::vector<uintptr_t> chunks;
  std::vector<unsigned char> data; // 16 bytes a chunk
};

/// Registers of a thread and what they hold.
template <typename Word> struct Registers {
  Word* at;
  std::vector<std::remove_const_t<Word>> values;
  uint64_t group = 0;
};

/// What a thread's registers have to do with products.
struct RegistersInUse {
  /// Named by the last wgmma.fence
  std::vector<Registers<uint32_t>> fenced;
  /// Accumulators, with the sums that are not shown yet; operands, which must stay.
  std::vector<Registers<float>> sums;
  std::vector<Registers<const uint32_t>> operands;
};

struct Warp {
  /// Groups of products: number of the open one, and of the first that has not been waited for.
  uint64_t open = 0, unfinished = 0;
  uint32_t products_in_open = 0;
  size_t products = 0;
  uint32_t registers = 0;
  /// For each finished group the lanes' clocks at the wait.
  std::vector<std::array<uint32_t, 32>> finished_at;
};

class Async {
public:
  explicit Async(Machine& machine) : machine(machine) {}

  void begin_block(uint32_t threads, size_t shared_bytes);
  /// Empty, or what is left undone when all threads are gone.
  std::string end_block() const;
  /// Lets a copy arrive, if any is on its way: `choice` says which.
  bool land(uint64_t choice);
  size_t on_their_way() const { return transfers.size(); }

  // What the running thread asks for.
  void make_barrier(uint64_t* barrier, uint32_t arrivals);
  void publish_barriers();
  void arrive(uint64_t* barrier, uint32_t bytes);
  void wait(uint64_t* barrier, uint32_t parity);
  void copy_box(void* shared, const TensorMap& map, uint32_t column, uint32_t row, uint64_t* barrier);
  void shrink_registers(uint32_t count);
  void grow_registers(uint32_t count);
  // What the last lane of a warp does for all of them; `lanes` are what each handed in.
  void begin_products(void** lanes);
  void commit_products();
  void wait_products(void** lanes, uint32_t pending);
  void multiply(void** lanes);

  // What the watch on memory asks for.
  bool has_barriers() const { return !barriers.empty(); }
  /// Ends the launch if a product that the running thread cannot know to be done reads what is to be written.
  void check_overwrite(uintptr_t address);
  std::string state(const SharedBarrier& barrier) const;
  const SharedBarrier* waited_for(uint16_t thread) const;

  /// Where shared memory begins in its own address space; the system has the first 1024 bytes.
  uint32_t window = 0;
  static constexpr uint32_t ALIGNED = 1024, UNALIGNED = 1024 + 128;
  uint32_t in_window(uintptr_t address) const;

private:
  SharedBarrier& find(uint64_t* barrier);
  void complete(SharedBarrier& barrier);
  uintptr_t out_of_window(uint32_t address) const;
  void read_operand(float (*rows)[16], uint32_t count, uint64_t descriptor, uint32_t first, bool by_rows);

  Machine& machine;
  std::map<uint64_t*, SharedBarrier> barriers;
  std::deque<Transfer> transfers;
  std::vector<Warp> warps;
  /// Products of each warpgroup: all its warps must do the same.
  std::vector<std::vector<uint64_t>> sequences;
  /// For each 128 bytes of shared memory and each warp: one more than the last group of products that reads of them.
  std::vector<std::array<uint32_t, 32>> readers;
  std::vector<uint16_t> waiting_for_registers;
  int64_t free_registers = 0;
  uint16_t writers = 0;
};

/// Copies of one barrier are a thread to the vector clocks; so many can be.
constexpr uint32_t COPY_WRITERS = 12;

} // namespace emulation
