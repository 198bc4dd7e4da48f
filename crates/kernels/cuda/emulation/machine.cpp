#include "machine.h"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <numeric>

namespace emulation {

static thread_local Machine* running_machine = nullptr;

Machine& machine() { return *running_machine; }

static std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}
Registration::Registration(const Kernel& kernel) { kernels().emplace(kernel.name, kernel); }
const Kernel* find_kernel(const std::string& name) {
  auto found = kernels().find(name);
  return found == kernels().end() ? nullptr : &found->second;
}

Machine::Machine() : memory(*this), async(*this) {}
Machine::~Machine() {
  for (Thread& thread : threads) free_stack(thread.fibre);
}

/// SplitMix64
static uint64_t next(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// The first function of every fibre.
void thread_main() {
  Machine& machine = *running_machine;
  machine.launch->kernel->invoke(machine.launch->kernel->function, machine.launch->arguments);
  machine.current().state = Thread::GONE;
  switch_stack(machine.current().fibre, machine.host);
}

std::string Machine::run(const Launch& wanted) {
  launch = &wanted;
  message.clear();
  statistics = Statistics{};
  memory.traffic = Traffic{};
  ++memory.launch;
  grid_size = wanted.grid;
  block_size = wanted.block;
  const size_t count = size_t{block_size.x} * block_size.y * block_size.z;
  const size_t blocks = size_t{grid_size.x} * grid_size.y * grid_size.z;
  if (count == 0 || count > 1024) return "a block of " + std::to_string(count) + " threads";
  if (blocks == 0 || grid_size.y > 65535 || grid_size.z > 65535) return "a grid that no GPU takes";
  while (threads.size() < count) {
    threads.emplace_back();
    allocate_stack(threads.back().fibre, STACK);
  }
  shared_in_use.clear();
  use_shared(dynamic_by_size[wanted.shared_bytes], "dynamic shared memory", wanted.shared_bytes, 2);
  dynamic_shared = shared_in_use[0];
  std::vector<size_t> order(blocks);
  std::iota(order.begin(), order.end(), size_t{0});
  random = wanted.schedule;
  if (wanted.schedule != 0) {
    for (size_t i = blocks - 1; i > 0; --i) std::swap(order[i], order[next(random) % (i + 1)]);
  }
  running_machine = this;
  for (size_t number : order) {
    block_index = Index{static_cast<uint32_t>(number % grid_size.x), static_cast<uint32_t>(number / grid_size.x % grid_size.y),
                        static_cast<uint32_t>(number / grid_size.x / grid_size.y)};
    run_block(wanted);
    if (!message.empty()) break;
  }
  running_machine = nullptr;
  statistics.global_read = memory.traffic.global_read;
  statistics.global_written = memory.traffic.global_written;
  statistics.global_wide = memory.traffic.global_wide;
  return message;
}

/// The buffer, made at its first use.
void Machine::use_shared(Buffer*& buffer, const char* name, size_t bytes, size_t element) {
  if (!buffer) buffer = memory.allocate(name, bytes, element, true);
  if (std::find(shared_in_use.begin(), shared_in_use.end(), buffer) != shared_in_use.end()) return;
  memory.poison(*buffer);
  shared_in_use.push_back(buffer);
}

void Machine::run_block(const Launch& wanted) {
  const uint32_t count = block_size.x * block_size.y * block_size.z;
  ++memory.block;
  for (Buffer* buffer : shared_in_use) memory.poison(*buffer);
  full_barriers = 0;
  common.assign(count + COPY_WRITERS, 0);
  async.begin_block(count, wanted.shared_bytes);
  barriers.assign(16, Barrier{});
  warps.assign((count + 31) / 32, Collective{});
  ready.resize(count);
  for (uint32_t id = 0; id < count; ++id) {
    Thread& thread = threads[id];
    thread.id = static_cast<uint16_t>(id);
    thread.index = Index{id % block_size.x, id / block_size.x % block_size.y, id / block_size.x / block_size.y};
    thread.state = Thread::READY;
    thread.clock = 1;
    thread.known.clear();
    thread.open_group.clear();
    thread.groups.clear();
    thread.registers = RegistersInUse{};
    thread.published = 0;
    prepare(thread.fibre, thread_main);
    ready[id] = thread.id;
  }
  uint32_t gone = 0;
  while (gone < count) {
    // Copies come when nobody can do without them, or in a shuffle at any time.
    if (ready.empty() || (wanted.schedule != 0 && async.on_their_way() > 0 && next(random) % 4 == 0)) {
      const bool landed = async.land(wanted.schedule == 0 ? 0 : next(random));
      if (message.empty() && !landed) message = deadlock();
      if (!message.empty()) return;
      continue;
    }
    const size_t chosen = wanted.schedule == 0 ? 0 : next(random) % ready.size();
    running = ready[chosen];
    if (wanted.schedule == 0) ready.erase(ready.begin());
    else { ready[chosen] = ready.back(); ready.pop_back(); }
    switch_stack(host, threads[running].fibre);
    if (!message.empty()) return;
    gone += threads[running].state == Thread::GONE ? 1 : 0;
  }
  if (const std::string undone = async.end_block(); !undone.empty()) end_with(undone);
}

std::string Machine::deadlock() const {
  std::map<std::string, int> waiting;
  const uint32_t count = block_size.x * block_size.y * block_size.z;
  for (uint32_t id = 0; id < count; ++id) {
    const Thread& thread = threads[id];
    if (thread.state == Thread::GONE) ++waiting["have left the kernel"];
    else if (const SharedBarrier* barrier = async.waited_for(thread.id)) ++waiting["wait at " + async.state(*barrier)];
    else if (thread.waits_for) ++waiting[std::string("wait at ") + thread.waits_for];
    else ++waiting["wait at barrier " + std::to_string(thread.waits_at) + " of " + std::to_string(barriers[thread.waits_at].expected) + " threads"];
  }
  std::string text = place() + ": no thread can go on:";
  for (auto& [what, number] : waiting) text += " " + std::to_string(number) + " " + what + ";";
  return text;
}

std::string Machine::place() const {
  return std::string(launch->kernel->name) + ", block (" + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) + ", " +
         std::to_string(block_index.z) + ")";
}

void Machine::end_with(const std::string& what) { message = place() + ": " + what; }

void Machine::fault(const std::string& what) {
  const Thread& thread = current();
  message = place() + ", thread (" + std::to_string(thread.index.x) + ", " + std::to_string(thread.index.y) + ", " + std::to_string(thread.index.z) +
            "): " + what;
  Fibre abandoned;
  switch_stack(abandoned, host);
  std::abort();
}

void Machine::wait(const char* operation, uint32_t barrier) {
  Thread& thread = current();
  thread.state = Thread::WAITING;
  thread.waits_for = operation;
  thread.waits_at = barrier;
  switch_stack(thread.fibre, host);
}

bool Machine::happened_before(uint16_t thread, uint32_t clock) {
  const Thread& me = current();
  if (thread == me.id) return true;
  return clock <= (me.known.empty() ? common[thread] : me.known[thread]);
}

/// Adds `known` to what the running thread knows.
void Machine::learn(const std::vector<uint32_t>& known) {
  if (!WATCHED) return;
  std::vector<uint32_t>& mine = current().known;
  if (mine.empty()) mine = common;
  for (size_t other = 0; other < mine.size(); ++other) mine[other] = std::max(mine[other], known[other]);
}

void Machine::publish_to_async() {
  current().published = current().clock++;
  keep_pace();
}

/// What one lane does alone must not leave its warp behind: the watch knows the readers of a warp by the last one's clock.
void Machine::keep_pace() {
  const uint32_t first = current().id / 32 * 32, clock = current().clock;
  for (uint32_t lane = first; lane < std::min(first + 32, thread_count()); ++lane) threads[lane].clock = std::max(threads[lane].clock, clock);
}

/// Adds what the thread knows and did to `known`, and moves it on to its next moment.
void Machine::tell(std::vector<uint32_t>& known, Thread& thread) {
  if (!WATCHED) return;
  for (size_t other = 0; other < thread.known.size(); ++other) known[other] = std::max(known[other], thread.known[other]);
  known[thread.id] = std::max(known[thread.id], thread.clock++);
}

void Machine::wake(Thread& thread) {
  if (thread.state != Thread::WAITING) return;
  thread.state = Thread::READY;
  ready.push_back(thread.id);
}

void Machine::barrier(uint32_t id, uint32_t expected, bool wait_for_others) {
  const uint32_t count = thread_count();
  if (id >= 16) fault("names barrier " + std::to_string(id) + " of 16");
  if (expected % 32 != 0) fault("a barrier of " + std::to_string(expected) + " threads, which are no whole warps");
  expected = expected == 0 ? count : std::min(expected, count);
  Barrier& barrier = barriers[id];
  if (barrier.arrived == 0) {
    barrier.expected = expected;
    barrier.known = common;
  } else if (barrier.expected != expected) {
    fault("comes to barrier " + std::to_string(id) + " of " + std::to_string(expected) + " threads, others to one of " +
          std::to_string(barrier.expected));
  }
  Thread& thread = current();
  tell(barrier.known, thread);
  if (wait_for_others) barrier.waiting.push_back(thread.id);
  if (++barrier.arrived < barrier.expected) {
    if (wait_for_others) wait(nullptr, id);
    return;
  }
  ++statistics.barriers;
  const bool everybody = barrier.waiting.size() == count;
  if (everybody) {
    common = barrier.known;
    ++full_barriers;
  }
  for (uint16_t other : barrier.waiting) {
    if (everybody) threads[other].known.clear();
    else threads[other].known = barrier.known;
    wake(threads[other]);
  }
  barrier.waiting.clear();
  barrier.arrived = 0;
}

void Machine::collective(const char* operation, uint32_t mask, uint32_t parameter, void* lane, Together together) {
  Thread& thread = current();
  Collective& warp = warps[thread.id / 32];
  const uint32_t first = thread.id / 32 * 32, bit = 1u << (thread.id % 32);
  const uint32_t lanes = std::min<uint32_t>(32, thread_count() - first);
  if (!(mask & bit)) fault(std::string(operation) + " by a lane that its own mask leaves out");
  if (lanes < 32 && mask >> lanes != 0) fault(std::string(operation) + " with lanes that the block does not have");
  if (warp.arrived == 0) {
    warp.operation = operation;
    warp.mask = mask;
    warp.parameter = parameter;
  } else if (std::strcmp(warp.operation, operation) != 0 || warp.mask != mask || warp.parameter != parameter) {
    fault(std::string("the lanes of a warp part: this one comes to ") + operation + ", others wait at " + warp.operation);
  }
  warp.arrived |= bit;
  warp.lanes[thread.id % 32] = lane;
  if (warp.arrived != mask) return wait(operation, 0);
  warp.arrived = 0;
  if (together) together(warp.lanes, mask, parameter);
  for (uint32_t other = 0; other < lanes; ++other) {
    if (mask >> other & 1) wake(threads[first + other]);
  }
}

void Machine::warp_barrier(uint32_t mask) {
  collective("__syncwarp", mask, 0, nullptr, [](void**, uint32_t mask, uint32_t) {
    Machine& machine = emulation::machine();
    std::vector<uint32_t> known = machine.common;
    Thread* first = &machine.threads[machine.current().id / 32 * 32];
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if (mask >> lane & 1) machine.tell(known, first[lane]);
    }
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if (mask >> lane & 1) first[lane].known = known;
    }
  });
}

void* Machine::shared_array(const void* tag, const char* name, size_t bytes, size_t element) {
  Buffer*& buffer = static_by_place[tag];
  use_shared(buffer, name, bytes, element);
  return buffer->begin;
}

void Machine::copy_async(uintptr_t to, uintptr_t from, size_t bytes, size_t valid) {
  Copy copy{to, bytes, {}};
  if (valid > 0) {
    memory.access(from, valid, 1, Access::READ);
    if (from % bytes != 0) fault("copies " + std::to_string(bytes) + " bytes from an address that is no multiple of that");
    std::memcpy(copy.data, reinterpret_cast<const void*>(from), valid);
    if (bytes >= 16) memory.traffic.global_wide += valid == 16 ? 0 : valid;
  }
  memory.begin_copy(to, bytes, false);
  current().open_group.push_back(copy);
}

void Machine::commit_copies() {
  Thread& thread = current();
  thread.groups.emplace_back();
  thread.groups.back().swap(thread.open_group);
}

void Machine::wait_copies(size_t pending) {
  Thread& thread = current();
  while (thread.groups.size() > pending) {
    for (const Copy& copy : thread.groups.front()) memory.end_copy(copy.to, copy.data, copy.bytes, thread.id, thread.clock);
    thread.groups.erase(thread.groups.begin());
  }
}

/// The parts of this library that nobody can write: constants.
static bool is_constant(uintptr_t address) {
  struct Question { uintptr_t address; bool constant; } question{address, false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& question = *static_cast<Question*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& header = info->dlpi_phdr[i];
          const bool inside = question.address - (info->dlpi_addr + header.p_vaddr) < header.p_memsz;
          if ((header.p_type == PT_LOAD && inside && !(header.p_flags & PF_W)) || (header.p_type == PT_GNU_RELRO && inside)) question.constant = true;
        }
        return question.constant ? 1 : 0;
      },
      &question);
  return question.constant;
}

void watch(const void* pointer, size_t bytes, size_t alignment, Access kind) {
  Machine* machine = running_machine;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (!machine || machine->in_running_stack(address)) return;
  if (!machine->memory.owns(address) && kind == Access::READ && is_constant(address)) return;
  machine->memory.access(address, bytes, alignment, kind);
}

} // namespace emulation
