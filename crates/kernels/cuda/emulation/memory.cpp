#include "memory.h"

#include "machine.h"

#include <cstring>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

namespace emulation {

Memory::Memory(Machine& machine) : machine(machine), pages(ARENA / PAGE, 0) {
  void* memory = mmap(nullptr, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("emulation: device memory");
    std::abort();
  }
  arena = static_cast<char*>(memory);
}

Memory::~Memory() { munmap(arena, ARENA); }

Buffer* Memory::allocate(const std::string& name, size_t bytes, size_t element, bool shared) {
  const uintptr_t address = reserve(bytes);
  if (address == 0) {
    std::fprintf(stderr, "emulation: %zu bytes for %s are more than device memory has left\n", bytes, name.c_str());
    std::abort();
  }
  Buffer* buffer = this->name(name, address, bytes, element);
  buffer->shared = shared;
  return buffer;
}

uintptr_t Memory::reserve(size_t bytes) {
  const size_t span = (bytes + PAGE - 1) / PAGE * PAGE, start = used;
  if (start + span + PAGE > ARENA) return 0;
  used += span + PAGE;
  return reinterpret_cast<uintptr_t>(arena) + start;
}

Buffer* Memory::name(const std::string& name, uintptr_t address, size_t bytes, size_t element) {
  Buffer& buffer = buffers.emplace_back();
  buffer.name = name;
  buffer.begin = reinterpret_cast<char*>(address);
  buffer.bytes = bytes;
  buffer.element = element;
  if (WATCHED) buffer.cells.resize((bytes + element - 1) / element);
  const size_t first = (address - reinterpret_cast<uintptr_t>(arena)) / PAGE;
  for (size_t page = 0; page < (bytes + PAGE - 1) / PAGE; ++page) pages[first + page] = static_cast<uint32_t>(buffers.size());
  poison(buffer);
  return &buffer;
}

Buffer* Memory::find(uintptr_t address) const {
  const uintptr_t offset = address - reinterpret_cast<uintptr_t>(arena);
  if (offset >= ARENA) return nullptr;
  const uint32_t number = pages[offset / PAGE];
  return number == 0 ? nullptr : const_cast<Buffer*>(&buffers[number - 1]);
}

template <typename Body> void Memory::cells(Buffer& buffer, uintptr_t address, size_t bytes, Body body) {
  if (!WATCHED) return;
  const size_t offset = address - reinterpret_cast<uintptr_t>(buffer.begin);
  for (size_t index = offset / buffer.element; index * buffer.element < offset + bytes; ++index) body(index);
}

bool Memory::write(uintptr_t address, const void* from, size_t bytes) {
  Buffer* buffer = find(address);
  if (bytes == 0) return true;
  if (!buffer || address - reinterpret_cast<uintptr_t>(buffer->begin) + bytes > buffer->bytes) return false;
  std::memcpy(reinterpret_cast<void*>(address), from, bytes);
  cells(*buffer, address, bytes, [&](size_t index) { buffer->cells[index].written = true; });
  return true;
}

bool Memory::read(uintptr_t address, void* to, size_t bytes, uint64_t& unwritten) {
  Buffer* buffer = find(address);
  if (bytes == 0) return true;
  if (!buffer || address - reinterpret_cast<uintptr_t>(buffer->begin) + bytes > buffer->bytes) return false;
  std::memcpy(to, reinterpret_cast<void*>(address), bytes);
  cells(*buffer, address, bytes, [&](size_t index) { unwritten += buffer->cells[index].written ? 0 : 1; });
  return true;
}

void Memory::poison(Buffer& buffer) { std::memset(buffer.begin, 0xff, buffer.bytes); }

static std::string describe(const Buffer& buffer, uintptr_t address) {
  const long long offset = static_cast<long long>(address - reinterpret_cast<uintptr_t>(buffer.begin));
  return "'" + buffer.name + "' (" + std::to_string(buffer.bytes) + " bytes of " + (buffer.shared ? "shared" : "global") +
         " memory) at byte " + std::to_string(offset);
}

Buffer& Memory::checked(uintptr_t address, size_t bytes, size_t alignment, const char* verb) {
  Buffer* buffer = find(address);
  const bool inside = buffer && address - reinterpret_cast<uintptr_t>(buffer->begin) + bytes <= buffer->bytes;
  if (inside && address % alignment == 0) return *buffer;
  const std::string what = std::string(verb) + " " + std::to_string(bytes) + " bytes ";
  if (inside) machine.fault(what + "of " + describe(*buffer, address) + ", which is no multiple of " + std::to_string(alignment));
  if (buffer) machine.fault(what + "outside " + describe(*buffer, address));
  if (!owns(address)) machine.fault(what + "outside device memory");
  // In a stretch between buffers: tell which one was left.
  for (const Buffer& other : buffers) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(other.begin);
    if (address + PAGE >= begin && address < begin + other.bytes + PAGE) machine.fault(what + "outside " + describe(other, address));
  }
  machine.fault(what + "of device memory that belongs to nobody");
}

void Memory::access(uintptr_t address, size_t bytes, size_t alignment, Access kind) {
  if (!WATCHED) return;
  const char* verb = kind == Access::READ ? "reads" : kind == Access::WRITE ? "writes" : "updates";
  Buffer& buffer = checked(address, bytes, alignment, verb);
  if (!buffer.shared) {
    if (kind != Access::WRITE) traffic.global_read += bytes;
    if (kind != Access::READ) traffic.global_written += bytes;
    if (bytes >= 16) traffic.global_wide += bytes;
  }
  cells(buffer, address, bytes, [&](size_t index) { touch(buffer, index, kind); });
}

/// Forgets what was before this launch or block.
Cell& Memory::cell_now(Buffer& buffer, size_t index) {
  Cell& cell = buffer.cells[index];
  const uint32_t serial = buffer.shared ? block : launch;
  if (cell.serial != serial) {
    const bool written = buffer.shared ? false : cell.written;
    cell = Cell{};
    cell.serial = serial;
    cell.written = written;
  }
  return cell;
}

static std::string element(const Buffer& buffer, size_t index) {
  return describe(buffer, reinterpret_cast<uintptr_t>(buffer.begin) + index * buffer.element);
}

void Memory::race(const Buffer& buffer, size_t index, const char* verb, const char* they, uint32_t their_block, uint16_t other) {
  std::string who = other == Cell::SEVERAL ? "others" : other >= machine.thread_count() ? "a copy" : "thread " + std::to_string(other);
  if (their_block == Cell::ALL_BLOCKS) who = "other blocks";
  else if (their_block != block) who = "another block";
  machine.fault(std::string("race: ") + verb + " " + element(buffer, index) + ", which " + who + " " + they + " with no barrier between");
}

void Memory::check_writer(const Buffer& buffer, size_t index, const Cell& cell, const char* verb, bool atomic) {
  if (cell.writer == Cell::NOBODY) return;
  if (cell.kind == Cell::PENDING) {
    machine.fault(std::string(verb) + " " + element(buffer, index) + " while thread " + std::to_string(cell.writer) +
                  "'s asynchronous copy into it has not been waited for");
  }
  const bool ordered = cell.writer_block == block && machine.happened_before(cell.writer, cell.writer_clock);
  if (!(cell.kind == Cell::ATOMIC && atomic) && !ordered) race(buffer, index, verb, "wrote", cell.writer_block, cell.writer);
}

/// What a thread wrote must be published before tensor cores or the copy engine come to it.
void Memory::check_published(const Buffer& buffer, size_t index, const Cell& cell) {
  if (cell.writer == Cell::NOBODY || cell.writer >= machine.thread_count()) return;
  if (machine.thread(cell.writer).published < cell.writer_clock) {
    machine.fault("leaves " + element(buffer, index) + " to tensor cores or copies, which thread " + std::to_string(cell.writer) +
                  " wrote and has not published to them");
  }
}

void Memory::read_by_tensor_cores(uintptr_t address, size_t bytes) {
  if (!WATCHED) return;
  Buffer& buffer = checked(address, bytes, bytes, "multiplies");
  if (!buffer.shared) machine.fault("multiplies what is not in shared memory");
  cells(buffer, address, bytes, [&](size_t index) {
    Cell& cell = cell_now(buffer, index);
    check_writer(buffer, index, cell, "multiplies", false);
    if (!cell.written) machine.fault("multiplies " + element(buffer, index) + ", which nothing has written");
    check_published(buffer, index, cell);
  });
}

void Memory::add_reader(Cell& cell, uint16_t reader, uint32_t lanes, uint32_t clock) {
  if (several_block != block) several.clear();
  several_block = block;
  Readers& readers = several[&cell][reader / 32];
  readers.lanes |= lanes;
  readers.clock = clock < readers.clock ? readers.clock : clock;
}

bool Memory::all_readers_done(const Cell& cell) {
  const auto found = several.find(&cell);
  if (several_block != block || found == several.end()) return false;
  for (uint32_t warp = 0; warp < 32; ++warp) {
    const Readers& readers = found->second[warp];
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if ((readers.lanes >> lane & 1) && !machine.happened_before(static_cast<uint16_t>(warp * 32 + lane), readers.clock)) return false;
    }
  }
  several.erase(found);
  return true;
}

void Memory::touch(Buffer& buffer, size_t index, Access kind) {
  Cell& cell = cell_now(buffer, index);
  const Thread& thread = machine.current();
  const uint16_t me = thread.id;
  const char* verb = kind == Access::READ ? "reads" : kind == Access::WRITE ? "writes" : "updates";
  const bool listed = buffer.shared && machine.async.has_barriers();

  /// All readers that the cell remembers, of one warp of this block, are surely done.
  auto readers_done = [&] {
    if (cell.reader_block != block) return false;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const uint16_t reader = static_cast<uint16_t>(cell.reader / 32 * 32 + lane);
      if ((cell.reader_lanes >> lane & 1) && !machine.happened_before(reader, cell.reader_clock)) return false;
    }
    return true;
  };

  check_writer(buffer, index, cell, verb, kind == Access::ATOMIC);
  if (kind != Access::WRITE && !cell.written) machine.fault("reads " + element(buffer, index) + ", which nothing has written");
  if (kind == Access::READ) {
    const uint32_t lane = 1u << me % 32;
    if (cell.reader == Cell::NOBODY || (cell.reader != Cell::SEVERAL && readers_done())) {
      cell.reader = me;
      cell.reader_clock = thread.clock;
      cell.reader_block = block;
      cell.reader_lanes = lane;
    } else if (cell.reader != Cell::SEVERAL && cell.reader_block == block && cell.reader / 32 == me / 32) {
      cell.reader_clock = thread.clock < cell.reader_clock ? cell.reader_clock : thread.clock;
      cell.reader_lanes |= lane;
    } else {
      if (listed) {
        if (cell.reader != Cell::SEVERAL) add_reader(cell, cell.reader, cell.reader_lanes, cell.reader_clock);
        add_reader(cell, me, lane, thread.clock);
      }
      cell.reader_block = cell.reader_block == block ? block : Cell::ALL_BLOCKS;
      cell.reader = Cell::SEVERAL;
      cell.reader_clock = machine.barriers_passed();
    }
    return;
  }
  if (cell.reader != Cell::NOBODY) {
    const bool ordered = cell.reader != Cell::SEVERAL ? readers_done()
                                                      : (cell.reader_block == block && machine.barriers_passed() > cell.reader_clock) ||
                                                            (listed && all_readers_done(cell));
    if (!ordered) race(buffer, index, verb, "read", cell.reader_block, cell.reader);
  }
  if (listed) machine.async.check_overwrite(reinterpret_cast<uintptr_t>(buffer.begin) + index * buffer.element);
  cell.reader = Cell::NOBODY;
  cell.writer = me;
  cell.writer_block = block;
  cell.writer_clock = thread.clock;
  cell.kind = kind == Access::ATOMIC ? Cell::ATOMIC : Cell::PLAIN;
  cell.written = true;
}

void Memory::begin_copy(uintptr_t to, size_t bytes, bool engine) {
  if (!WATCHED) return;
  Buffer& buffer = checked(to, bytes, bytes, "copies");
  if (!buffer.shared) machine.fault("copies asynchronously into global memory");
  cells(buffer, to, bytes, [&](size_t index) {
    if (engine) check_published(buffer, index, cell_now(buffer, index));
    touch(buffer, index, Access::WRITE);
    buffer.cells[index].kind = Cell::PENDING;
  });
  std::memset(reinterpret_cast<void*>(to), 0xff, bytes);
}

void Memory::end_copy(uintptr_t to, const unsigned char* data, size_t bytes, uint16_t writer, uint32_t clock) {
  std::memcpy(reinterpret_cast<void*>(to), data, bytes);
  if (!WATCHED) return;
  Buffer& buffer = *find(to);
  cells(buffer, to, bytes, [&](size_t index) {
    buffer.cells[index].kind = Cell::PLAIN;
    buffer.cells[index].writer = writer;
    buffer.cells[index].writer_clock = clock;
  });
}

} // namespace emulation

// What g++ calls under -fsanitize=thread for each access of a kernel. The sanitizer's own library is not linked.
using emulation::Access;

#define WATCH(bytes)                                                                                                     \
  extern "C" void __tsan_read##bytes(void* address) { emulation::watch(address, bytes, bytes, Access::READ); }          \
  extern "C" void __tsan_write##bytes(void* address) { emulation::watch(address, bytes, bytes, Access::WRITE); }        \
  extern "C" void __tsan_unaligned_read##bytes(void* address) { emulation::watch(address, bytes, 1, Access::READ); }    \
  extern "C" void __tsan_unaligned_write##bytes(void* address) { emulation::watch(address, bytes, 1, Access::WRITE); }
WATCH(1)
WATCH(2)
WATCH(4)
WATCH(8)
WATCH(16)
extern "C" void __tsan_read_range(void* address, size_t bytes) { emulation::watch(address, bytes, 1, Access::READ); }
extern "C" void __tsan_write_range(void* address, size_t bytes) { emulation::watch(address, bytes, 1, Access::WRITE); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
