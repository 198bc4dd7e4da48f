// Device memory that is watched: every access of a kernel is checked for bounds, alignment, initialisation and races.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

namespace emulation {

/// Without the watch kernels just run, and buffers only answer the host.
#ifdef EMULATION_UNWATCHED
constexpr bool WATCHED = false;
#else
constexpr bool WATCHED = true;
#endif

struct Thread;
class Machine;

/// The last accesses to one element, in the launch (global memory) or block (shared memory) with number `serial`.
struct Cell {
  enum Kind : uint8_t { PLAIN, ATOMIC, PENDING };
  static constexpr uint16_t NOBODY = 0xffff;  // thread
  static constexpr uint16_t SEVERAL = 0xfffe; // readers of several warps
  static constexpr uint32_t ALL_BLOCKS = 0xffffffff;

  uint32_t serial = 0;
  uint32_t writer_block = 0;
  uint32_t writer_clock = 0;
  uint32_t reader_block = 0;
  uint32_t reader_clock = 0; // of `SEVERAL` readers: the number of block barriers before the last one
  uint32_t reader_lanes = 0; // those of the reader's warp who read, the last of them at `reader_clock`
  uint16_t writer = NOBODY;
  uint16_t reader = NOBODY;
  Kind kind = PLAIN;
  bool written = false;
};

/// A piece of global or shared memory.
struct Buffer {
  std::string name;
  char* begin = nullptr;
  size_t bytes = 0;
  /// Bytes of an element: what two threads may write side by side.
  size_t element = 1;
  bool shared = false;
  std::vector<Cell> cells;
};

/// How a kernel touches memory.
enum class Access { READ, WRITE, ATOMIC };

/// What a launch moved.
struct Traffic {
  uint64_t global_read = 0;
  uint64_t global_written = 0;
  /// The part of both that went by accesses of 16 bytes.
  uint64_t global_wide = 0;
};

/// The memory of one machine. Addresses are those of this process, so that kernels use plain pointers.
class Memory {
public:
  explicit Memory(Machine& machine);
  ~Memory();
  Memory(const Memory&) = delete;

  /// New memory that nothing has written (ends the program when there is no more), between stretches that belong to nobody. Aligned to 256 bytes.
  Buffer* allocate(const std::string& name, size_t bytes, size_t element, bool shared);
  /// Memory that belongs to nobody yet, aligned to 256 bytes, and a buffer of it (at a multiple of 256). 0: there is no more.
  uintptr_t reserve(size_t bytes);
  Buffer* name(const std::string& name, uintptr_t address, size_t bytes, size_t element);
  /// From the host. False when the range is not inside one buffer.
  bool write(uintptr_t address, const void* from, size_t bytes);
  /// Reads also what nothing has written; `unwritten` counts such elements.
  bool read(uintptr_t address, void* to, size_t bytes, uint64_t& unwritten);
  /// What memory holds before anybody writes it: NaN, and −1.
  void poison(Buffer& buffer);

  bool owns(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(arena) < ARENA; }
  /// An access of the running thread: counts it, and ends the launch if it is wrong.
  void access(uintptr_t address, size_t bytes, size_t alignment, Access kind);
  /// The two ends of an asynchronous copy into shared memory: from the first to the second nobody may touch it.
  /// `engine`: by the copy engine, which sees what threads have written only when they have published it.
  void begin_copy(uintptr_t to, size_t bytes, bool engine);
  void end_copy(uintptr_t to, const unsigned char* data, size_t bytes, uint16_t writer, uint32_t clock);
  /// Tensor cores read on behalf of the running thread.
  void read_by_tensor_cores(uintptr_t address, size_t bytes);

  Traffic traffic;
  /// Numbers of the running launch and block.
  uint32_t launch = 0;
  uint32_t block = 0;

private:
  Buffer* find(uintptr_t address) const;
  Buffer& checked(uintptr_t address, size_t bytes, size_t alignment, const char* verb);
  template <typename Body> void cells(Buffer& buffer, uintptr_t address, size_t bytes, Body body);
  Cell& cell_now(Buffer& buffer, size_t index);
  void check_writer(const Buffer& buffer, size_t index, const Cell& cell, const char* verb, bool atomic);
  void check_published(const Buffer& buffer, size_t index, const Cell& cell);
  [[noreturn]] void race(const Buffer& buffer, size_t index, const char* verb, const char* they, uint32_t their_block, uint16_t other);
  void touch(Buffer& buffer, size_t index, Access kind);
  void add_reader(Cell& cell, uint16_t reader, uint32_t lanes, uint32_t clock);
  bool all_readers_done(const Cell& cell);

  static constexpr size_t ARENA = size_t{1} << 28;
  static constexpr size_t PAGE = 256;

  Machine& machine;
  char* arena;
  size_t used = PAGE;
  std::vector<uint32_t> pages; // number of the buffer + 1
  std::deque<Buffer> buffers;
  /// Of shared memory that barriers of its own hand around: the readers of several warps, by cell. A warp's lanes, and the last
  /// one's clock.
  struct Readers {
    uint32_t lanes = 0, clock = 0;
  };
  std::unordered_map<const Cell*, std::array<Readers, 32>> several;
  uint32_t several_block = 0;
};

} // namespace emulation
