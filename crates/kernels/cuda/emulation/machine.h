// The emulated GPU: runs the blocks of a launch one after another, and the threads of a block as fibres.
//
// A thread runs until it meets a barrier or an operation of its warp, then the schedule picks another one. Order in time
// proves little, so what counts is the order that barriers make: each thread knows up to which of its own moments every
// other thread is surely done (a vector clock), and memory.cpp compares.
#pragma once

#include "async.h"
#include "fibre.h"
#include "index.h"
#include "memory.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace emulation {

/// An asynchronous copy that has been issued and not waited for.
struct Copy {
  uintptr_t to;
  size_t bytes;
  unsigned char data[16];
};

struct Thread {
  enum State : uint8_t { READY, WAITING, GONE };
  Fibre fibre;
  Index index{};
  uint16_t id = 0;
  State state = READY;
  /// At an operation of its warp, or at a barrier.
  const char* waits_for = nullptr;
  uint32_t waits_at = 0;
  /// This thread's moment: it moves on at every barrier.
  uint32_t clock = 1;
  /// What it knows of the others; empty: what the last barrier of the whole block told everybody.
  std::vector<uint32_t> known;
  std::vector<Copy> open_group;
  std::vector<std::vector<Copy>> groups;
  RegistersInUse registers;
  /// What it wrote up to this moment of it, tensor cores and copies may see.
  uint32_t published = 0;
};

struct Barrier {
  uint32_t expected = 0;
  uint32_t arrived = 0;
  std::vector<uint16_t> waiting;
  /// What those who have arrived knew and did.
  std::vector<uint32_t> known;
};

/// An operation that the lanes of a warp do together.
struct Collective {
  const char* operation = nullptr;
  uint32_t mask = 0;
  uint32_t parameter = 0;
  uint32_t arrived = 0;
  void* lanes[32] = {};
};

/// Does the operation once all lanes of `mask` are there; `lanes` are what each handed in.
using Together = void (*)(void** lanes, uint32_t mask, uint32_t parameter);

struct Kernel {
  const char* name;
  /// One letter an argument; see emulation.h.
  std::string signature;
  void (*invoke)(const void* function, const uint64_t* arguments);
  const void* function;
};

struct Launch {
  const Kernel* kernel;
  Index grid, block;
  size_t shared_bytes;
  const uint64_t* arguments;
  /// 0: threads and blocks in their order; another number: its own shuffle.
  uint32_t schedule;
};

struct Statistics {
  uint64_t global_read, global_written, global_wide;
  uint64_t barriers, matrix_products, bank_conflicts;
};

class Machine {
public:
  Machine();
  ~Machine();

  /// Empty when all went well, else what went wrong and where.
  std::string run(const Launch& launch);

  // What the running thread asks for.
  Thread& current() { return threads[running]; }
  Index block_index{}, block_size{}, grid_size{};
  void barrier(uint32_t id, uint32_t expected, bool wait);
  void collective(const char* operation, uint32_t mask, uint32_t parameter, void* lane, Together together);
  void warp_barrier(uint32_t mask);
  void* shared_memory() const { return dynamic_shared->begin; }
  void* shared_array(const void* tag, const char* name, size_t bytes, size_t element);
  void copy_async(uintptr_t to, uintptr_t from, size_t bytes, size_t valid);
  void commit_copies();
  void wait_copies(size_t pending);
  void publish_to_async();
  [[noreturn]] void fault(const std::string& what);

  // What goes on beside the threads asks for.
  uint32_t thread_count() const { return block_size.x * block_size.y * block_size.z; }
  Thread& thread(uint32_t id) { return threads[id]; }
  const std::vector<uint32_t>& known_to_all() const { return common; }
  void tell(std::vector<uint32_t>& known, Thread& thread);
  void learn(const std::vector<uint32_t>& known);
  void keep_pace();
  void wait(const char* operation, uint32_t barrier);
  void wake(uint16_t thread) { wake(threads[thread]); }
  /// Ends the launch from outside of all threads.
  void end_with(const std::string& what);

  // What the watch on memory asks for.
  bool happened_before(uint16_t thread, uint32_t clock);
  uint32_t barriers_passed() const { return full_barriers; }
  bool in_running_stack(uintptr_t address) { return address - reinterpret_cast<uintptr_t>(current().fibre.lowest) < STACK; }

  Memory memory;
  Async async;
  Statistics statistics{};

private:
  friend void thread_main();
  void use_shared(Buffer*& buffer, const char* name, size_t bytes, size_t element);
  void run_block(const Launch& launch);
  bool pick(uint32_t schedule);
  void wake(Thread& thread);
  std::string place() const;
  std::string deadlock() const;

  static constexpr size_t STACK = 256 * 1024;

  Fibre host;
  std::vector<Thread> threads;
  uint16_t running = 0;
  const Launch* launch = nullptr;
  std::vector<uint16_t> ready;
  std::vector<Barrier> barriers;
  std::vector<Collective> warps;
  /// What everybody knows since the last barrier of the whole block: of each thread, then of the copies.
  std::vector<uint32_t> common;
  uint32_t full_barriers = 0;
  uint64_t random = 1;
  std::string message;
  /// Shared memory is kept from launch to launch: by its size, and by the place in the source that asks for it.
  std::map<size_t, Buffer*> dynamic_by_size;
  std::map<const void*, Buffer*> static_by_place;
  Buffer* dynamic_shared = nullptr;
  /// What this launch uses of it.
  std::vector<Buffer*> shared_in_use;
};

/// The machine whose kernel runs on this thread of the host.
Machine& machine();

/// Called for every access of a kernel; its own stack and constants are its own business.
void watch(const void* address, size_t bytes, size_t alignment, Access kind);

/// Adds a kernel to those that a launch can name.
struct Registration {
  explicit Registration(const Kernel& kernel);
};
const Kernel* find_kernel(const std::string& name);

} // namespace emulation
