// What hopper.h declares.
#include "hopper.h"

#include "machine.h"
#include "rounding.h"

#include <algorithm>
#include <cstring>

namespace emulation {

constexpr uint32_t WARPGROUP = 128, REGISTERS = 64 * 1024;
/// What accumulators hold while a product has them: a NaN that no computation gives.
constexpr uint32_t TAKEN = 0xffedcba9;

void Async::begin_block(uint32_t threads, size_t shared_bytes) {
  barriers.clear();
  transfers.clear();
  warps.assign((threads + 31) / 32, Warp{});
  sequences.assign((threads + WARPGROUP - 1) / WARPGROUP, {});
  readers.assign((shared_bytes + 127) / 128, {});
  waiting_for_registers.clear();
  const uint32_t each = std::min(255u, REGISTERS / threads / 8 * 8);
  for (Warp& warp : warps) warp.registers = each;
  free_registers = REGISTERS - int64_t{each} * 32 * static_cast<int64_t>(warps.size());
  writers = 0;
  window = UNALIGNED;
}

std::string Async::end_block() const {
  if (!transfers.empty()) return "all threads have left, and copies are still on their way";
  for (auto& [at, barrier] : barriers) {
    if (barrier.writer != 0 && barrier.heard < barrier.phase) return "all threads have left, and nobody has waited for the copies of " + state(barrier);
  }
  for (size_t index = 0; index < warps.size(); ++index) {
    const Warp &warp = warps[index], &first = warps[index / 4 * 4];
    const std::string who = "warp " + std::to_string(index);
    if (warp.unfinished != warp.open || warp.products_in_open != 0) return who + " has left before its products were waited for";
    if (warp.products != first.products) return who + " has had other products than its warpgroup";
    if (warp.registers != first.registers) return who + " has another number of registers than its warpgroup";
  }
  return {};
}

uint32_t Async::in_window(uintptr_t address) const {
  const uintptr_t offset = address - reinterpret_cast<uintptr_t>(machine.shared_memory());
  if (offset >= readers.size() * 128) machine.fault("tells tensor cores or copies of memory that is not the launch's shared memory");
  return window + static_cast<uint32_t>(offset);
}

uintptr_t Async::out_of_window(uint32_t address) const {
  // What lies below is found to be outside by the watch.
  return reinterpret_cast<uintptr_t>(machine.shared_memory()) + address - window;
}

// Barriers

void Async::make_barrier(uint64_t* barrier, uint32_t arrivals) {
  machine.memory.access(reinterpret_cast<uintptr_t>(barrier), 8, 8, Access::WRITE);
  if (arrivals == 0 || arrivals >= 1u << 20) machine.fault("makes a barrier for " + std::to_string(arrivals) + " arrivals");
  if (barriers.count(barrier)) machine.fault("makes a barrier where one is");
  SharedBarrier& made = barriers[barrier];
  made.arrivals = made.missing = arrivals;
  made.maker = machine.current().id;
  made.made_at = machine.current().clock;
  made.gathering = machine.known_to_all();
  made.told = made.gathering;
}

void Async::publish_barriers() {
  for (auto& [at, barrier] : barriers) {
    if (barrier.maker == machine.current().id) barrier.published = true;
  }
}

SharedBarrier& Async::find(uint64_t* at) {
  auto found = barriers.find(at);
  if (found == barriers.end()) machine.fault("comes to a barrier in shared memory that nobody has made");
  SharedBarrier& barrier = found->second;
  if (WATCHED && !machine.happened_before(barrier.maker, barrier.made_at)) machine.fault("race: comes to a barrier that is being made");
  if (!barrier.published) machine.fault("comes to a barrier that was made and not published");
  return barrier;
}

void Async::complete(SharedBarrier& barrier) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  if (WATCHED && barrier.writer != 0) barrier.gathering[barrier.writer] = barrier.phase + 1;
  barrier.told.swap(barrier.gathering);
  barrier.gathering = machine.known_to_all();
  barrier.missing = barrier.arrivals;
  ++barrier.phase;
  for (uint16_t thread : barrier.waiting) machine.wake(thread);
  barrier.waiting.clear();
}

void Async::arrive(uint64_t* at, uint32_t bytes) {
  SharedBarrier& barrier = find(at);
  if (barrier.missing == 0) machine.fault("arrives at a barrier that has all its arrivals and waits for bytes");
  machine.tell(barrier.gathering, machine.current());
  machine.keep_pace();
  barrier.bytes += bytes;
  --barrier.missing;
  complete(barrier);
}

void Async::wait(uint64_t* at, uint32_t parity) {
  SharedBarrier& barrier = find(at);
  while (barrier.phase % 2 == parity) {
    barrier.waiting.push_back(machine.current().id);
    machine.wait("a barrier in shared memory", 0);
  }
  barrier.heard = barrier.phase;
  machine.learn(barrier.told);
}

const SharedBarrier* Async::waited_for(uint16_t thread) const {
  for (auto& [at, barrier] : barriers) {
    if (std::find(barrier.waiting.begin(), barrier.waiting.end(), thread) != barrier.waiting.end()) return &barrier;
  }
  return nullptr;
}

std::string Async::state(const SharedBarrier& barrier) const {
  size_t number = 0;
  for (auto& [at, other] : barriers) {
    if (&other == &barrier) break;
    ++number;
  }
  return "shared barrier " + std::to_string(number) + " in phase " + std::to_string(barrier.phase) + ", which lacks " + std::to_string(barrier.missing) +
         " arrivals and " + std::to_string(barrier.bytes) + " bytes";
}

// Copies

void Async::copy_box(void* shared, const TensorMap& map, uint32_t column, uint32_t row, uint64_t* at) {
  if (map.address % 16 || map.stride % 16 || map.box_columns * 2 != 128 || map.box_rows == 0 || map.box_rows > 256 || map.columns * 2 > map.stride) {
    machine.fault("copies by a tensor map that no driver makes");
  }
  SharedBarrier& barrier = find(at);
  const auto to = reinterpret_cast<uintptr_t>(shared);
  if (in_window(to) % 128 != 0) machine.fault("copies a box to shared memory that does not begin at a multiple of 128");
  if (barrier.writer == 0) {
    if (writers == COPY_WRITERS) machine.fault("more barriers for copies than the emulation can tell apart");
    barrier.writer = static_cast<uint16_t>(machine.thread_count() + writers++);
  }
  Transfer transfer{at, {}, {}};
  transfer.data.assign(size_t{128} * map.box_rows, 0);
  for (uint32_t line = 0; line < map.box_rows; ++line) {
    const uint64_t from_row = uint64_t{row} + line;
    const size_t there = from_row < map.rows && column < map.columns ? std::min<size_t>(128, (map.columns - column) * 2) : 0;
    const uintptr_t from = map.address + from_row * map.stride + uint64_t{column} * 2;
    if (there > 0) {
      machine.memory.access(from, there, 2, Access::READ);
      std::memcpy(&transfer.data[line * 128], reinterpret_cast<const void*>(from), there);
    }
    for (uint32_t chunk = 0; chunk < 8; ++chunk) {
      const uint32_t plain = in_window(to) + line * 128 + chunk * 16;
      transfer.chunks.push_back(out_of_window(plain ^ (plain >> 7 & 7) << 4));
      machine.memory.begin_copy(transfer.chunks.back(), 16, true);
    }
  }
  transfers.push_back(std::move(transfer));
}

bool Async::land(uint64_t choice) {
  if (transfers.empty()) return false;
  const auto chosen = transfers.begin() + static_cast<std::ptrdiff_t>(choice % transfers.size());
  const Transfer transfer = std::move(*chosen);
  transfers.erase(chosen);
  SharedBarrier& barrier = barriers[transfer.barrier];
  for (size_t chunk = 0; chunk < transfer.chunks.size(); ++chunk) {
    machine.memory.end_copy(transfer.chunks[chunk], &transfer.data[chunk * 16], 16, barrier.writer, barrier.phase + 1);
  }
  barrier.bytes -= static_cast<int64_t>(transfer.data.size());
  if (barrier.bytes < 0) {
    machine.end_with("a copy brings " + std::to_string(transfer.data.size()) + " bytes to " + state(barrier));
    return true;
  }
  complete(barrier);
  return true;
}

// Registers of warpgroups

static void nothing(void**, uint32_t, uint32_t) {}

void Async::shrink_registers(uint32_t count) {
  machine.collective("setmaxnreg.dec", 0xffffffff, count, nullptr, nothing);
  Warp& warp = warps[machine.current().id / 32];
  if (warp.registers == count) return; // another lane was here
  if (count % 8 != 0 || count < 24 || count > warp.registers) machine.fault("setmaxnreg.dec to " + std::to_string(count) + " from " + std::to_string(warp.registers));
  free_registers += 32 * int64_t{warp.registers - count};
  warp.registers = count;
  for (uint16_t thread : waiting_for_registers) machine.wake(thread);
  waiting_for_registers.clear();
}

void Async::grow_registers(uint32_t count) {
  machine.collective("setmaxnreg.inc", 0xffffffff, count, nullptr, nothing);
  Warp& warp = warps[machine.current().id / 32];
  while (warp.registers != count) {
    if (count % 8 != 0 || count > 256 || count < warp.registers) machine.fault("setmaxnreg.inc to " + std::to_string(count) + " from " + std::to_string(warp.registers));
    const int64_t wanted = 32 * int64_t{count - warp.registers};
    if (wanted <= free_registers) {
      free_registers -= wanted;
      warp.registers = count;
    } else {
      waiting_for_registers.push_back(machine.current().id);
      machine.wait("setmaxnreg.inc", 0);
    }
  }
}

// Products

struct Named {
  const RegisterNames* names;
  uint32_t count;
};

struct WarpProduct {
  float* sums;
  uint32_t columns;
  const uint32_t* a;
  uint64_t a_descriptor, b_descriptor;
  bool add;
};

static Thread& lane_of_warp(uint32_t lane) { return machine().thread(machine().current().id / 32 * 32 + lane); }

void Async::begin_products(void** lanes) {
  for (uint32_t lane = 0; lane < 32; ++lane) {
    auto& in_use = lane_of_warp(lane).registers;
    const auto& named = *static_cast<const Named*>(lanes[lane]);
    in_use.fenced.clear();
    for (uint32_t index = 0; index < named.count; ++index) {
      auto* words = static_cast<uint32_t*>(named.names[index].at);
      in_use.fenced.push_back({words, std::vector<uint32_t>(words, words + named.names[index].bytes / 4), 0});
    }
  }
}

void Async::commit_products() {
  Warp& warp = warps[machine.current().id / 32];
  warp.finished_at.emplace_back();
  ++warp.open;
  warp.products_in_open = 0;
}

/// Registers that a product takes must be as the last fence has found them.
static void check_fenced(const RegistersInUse& in_use, const void* at, size_t words, const char* what) {
  for (const auto& fenced : in_use.fenced) {
    const ptrdiff_t offset = static_cast<const uint32_t*>(at) - fenced.at;
    if (offset < 0 || static_cast<size_t>(offset) + words > fenced.values.size()) continue;
    if (std::memcmp(at, &fenced.values[static_cast<size_t>(offset)], words * 4) == 0) return;
    machine().fault(std::string("the ") + what + " of a product have changed since wgmma.fence");
  }
  machine().fault(std::string("the ") + what + " of a product were not named to a wgmma.fence before it");
}

/// Operand rows from a tile that is swizzled by 128 bytes. `by_rows`: row k of the tile is element k of all rows of the operand.
void Async::read_operand(float (*rows)[16], uint32_t count, uint64_t descriptor, uint32_t first, bool by_rows) {
  const auto field = [&](uint32_t bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) machine.fault("a matrix descriptor of a form that is not emulated");
  if ((start & 0x380) != 0) machine.fault("a matrix descriptor whose pattern does not begin at a multiple of 1024");
  Warp& warp = warps[machine.current().id / 32];
  const auto mark = [&](uintptr_t address) {
    const size_t line = (address - reinterpret_cast<uintptr_t>(machine.shared_memory())) / 128;
    if (line < readers.size()) readers[line][machine.current().id / 32] = static_cast<uint32_t>(warp.open) + 1;
  };
  const auto chunk = [&](uint32_t plain) {
    const uintptr_t address = out_of_window(plain ^ (plain >> 7 & 7) << 4);
    machine.memory.read_by_tensor_cores(address, 16);
    mark(address);
    return reinterpret_cast<const uint16_t*>(address);
  };
  if (by_rows) {
    for (uint32_t k = 0; k < 16; ++k) {
      for (uint32_t n = 0; n < count; n += 8) {
        const uint16_t* eight = chunk(start + n / 64 * leading + n % 64 * 2 + k % 8 * 128 + k / 8 * stride);
        for (uint32_t i = 0; i < 8; ++i) rows[n + i][k] = widen(eight[i]);
      }
    }
    return;
  }
  // No manual says which warp reads which rows of A: each may read them all.
  for (uint32_t n = 0; n < 64; ++n) mark(out_of_window(start + n / 8 * stride + n % 8 * 128));
  for (uint32_t n = first; n < first + count; ++n) {
    for (uint32_t k = 0; k < 16; k += 8) {
      const uint16_t* eight = chunk(start + n / 8 * stride + n % 8 * 128 + k * 2);
      for (uint32_t i = 0; i < 8; ++i) rows[n - first][k + i] = widen(eight[i]);
    }
  }
}

/// sums += a · b, sixteen exact products at a time and cut off.
__attribute__((optimize("O3"))) static void add_products(float (&sums)[16][128], const float (&a)[16][16], const double (&b)[16][128]) {
  for (uint32_t row = 0; row < 16; ++row) {
    double totals[128];
    for (uint32_t column = 0; column < 128; ++column) totals[column] = sums[row][column];
    for (uint32_t k = 0; k < 16; ++k) {
      for (uint32_t column = 0; column < 128; ++column) totals[column] += a[row][k] * b[k][column];
    }
    for (uint32_t column = 0; column < 128; ++column) sums[row][column] = towards_zero(totals[column]);
  }
}

void Async::multiply(void** lanes) {
  const uint32_t number = machine.current().id / 32;
  Warp& warp = warps[number];
  const WarpProduct what = *static_cast<WarpProduct*>(lanes[0]);
  if (machine.thread_count() % WARPGROUP != 0) machine.fault("a product in a block that is no whole warpgroups");
  std::vector<uint64_t>& sequence = sequences[number / 4];
  const uint64_t signature = what.a_descriptor ^ what.b_descriptor * 3 ^ uint64_t{what.columns} << 50 ^ uint64_t{what.add} << 51 ^ uint64_t{what.a != nullptr} << 52;
  if (warp.products == sequence.size()) sequence.push_back(signature);
  if (sequence[warp.products++] != signature) machine.fault("the warps of a warpgroup ask for different products");
  ++warp.products_in_open;
  ++machine.statistics.matrix_products;

  float a[16][16], rows_b[128][16];
  double b[16][128] = {};
  read_operand(rows_b, what.columns, what.b_descriptor, 0, what.a != nullptr);
  for (uint32_t column = 0; column < what.columns; ++column) {
    for (uint32_t k = 0; k < 16; ++k) b[k][column] = rows_b[column][k];
  }
  if (!what.a) read_operand(a, 16, what.a_descriptor, number % 4 * 16, false);

  float sums[16][128] = {};
  Registers<float>* shown[32];
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<WarpProduct*>(lanes[lane]);
    RegistersInUse& in_use = lane_of_warp(lane).registers;
    const uint32_t count = what.columns / 2;
    if (mine.a_descriptor != what.a_descriptor || mine.b_descriptor != what.b_descriptor || mine.columns != what.columns || mine.add != what.add) {
      machine.fault("the lanes of a warp ask for different products");
    }
    if (mine.a) {
      check_fenced(in_use, mine.a, 4, "operands");
      in_use.operands.push_back({mine.a, std::vector<uint32_t>(mine.a, mine.a + 4), warp.open});
      for (uint32_t word = 0; word < 4; ++word) {
        const uint32_t row = lane / 4 + word % 2 * 8, column = lane % 4 * 2 + word / 2 * 8;
        a[row][column] = widen(static_cast<uint16_t>(mine.a[word]));
        a[row][column + 1] = widen(static_cast<uint16_t>(mine.a[word] >> 16));
      }
    }
    const auto same = [&](const Registers<float>& other) { return other.at == mine.sums && other.values.size() == count; };
    auto found = std::find_if(in_use.sums.begin(), in_use.sums.end(), same);
    if (found == in_use.sums.end()) {
      check_fenced(in_use, mine.sums, count, "sums");
      in_use.sums.push_back({mine.sums, std::vector<float>(mine.sums, mine.sums + count), 0});
      found = in_use.sums.end() - 1;
    }
    found->group = warp.open;
    shown[lane] = &*found;
    for (uint32_t index = 0; mine.add && index < count; ++index) {
      sums[lane / 4 + index % 4 / 2 * 8][index / 4 * 8 + lane % 4 * 2 + index % 2] = found->values[index];
    }
  }
  add_products(sums, a, b);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    for (uint32_t index = 0; index < what.columns / 2; ++index) {
      shown[lane]->values[index] = sums[lane / 4 + index % 4 / 2 * 8][index / 4 * 8 + lane % 4 * 2 + index % 2];
      std::memcpy(shown[lane]->at + index, &TAKEN, 4);
    }
  }
}

void Async::wait_products(void** lanes, uint32_t pending) {
  Warp& warp = warps[machine.current().id / 32];
  if (pending == 0 && warp.products_in_open != 0) machine.fault("waits for products that it has not committed");
  const uint64_t end = warp.open > pending ? warp.open - pending : 0;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    Thread& thread = lane_of_warp(lane);
    const auto& named = *static_cast<const Named*>(lanes[lane]);
    for (uint64_t group = warp.unfinished; group < end; ++group) warp.finished_at[group][lane] = thread.clock;
    auto& operands = thread.registers.operands;
    for (size_t index = operands.size(); index-- > 0;) {
      if (operands[index].group >= end) continue;
      if (std::memcmp(operands[index].at, operands[index].values.data(), 16) != 0) machine.fault("the operands of a product were changed before it was waited for");
      operands.erase(operands.begin() + static_cast<ptrdiff_t>(index));
    }
    auto& sums = thread.registers.sums;
    for (size_t index = sums.size(); index-- > 0;) {
      const Registers<float>& done = sums[index];
      if (done.group >= end) continue;
      for (size_t word = 0; word < done.values.size(); ++word) {
        if (std::memcmp(done.at + word, &TAKEN, 4) != 0) machine.fault("the sums of a product were changed before it was waited for");
      }
      const auto names = [&](const RegisterNames& other) { return other.at == done.at && other.bytes == done.values.size() * 4; };
      if (std::none_of(named.names, named.names + named.count, names)) machine.fault("the sums of a product are not named to the wait for it");
      std::copy(done.values.begin(), done.values.end(), done.at);
      sums.erase(sums.begin() + static_cast<ptrdiff_t>(index));
    }
  }
  warp.unfinished = std::max(warp.unfinished, end);
}

void Async::check_overwrite(uintptr_t address) {
  const size_t line = (address - reinterpret_cast<uintptr_t>(machine.shared_memory())) / 128;
  if (line >= readers.size()) return;
  for (size_t number = 0; number < warps.size(); ++number) {
    if (readers[line][number] == 0) continue;
    const uint64_t group = readers[line][number] - 1;
    const std::string what = "of warp " + std::to_string(number) + " read what is to be overwritten";
    if (group >= warps[number].unfinished) machine.fault("products " + what + " and have not been waited for");
    bool ordered = false;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      ordered = ordered || machine.happened_before(static_cast<uint16_t>(number * 32 + lane), warps[number].finished_at[group][lane]);
    }
    if (!ordered) machine.fault("race: products " + what + " with no barrier between");
  }
}

void* tiles_memory() {
  machine().async.window = Async::ALIGNED;
  return machine().shared_memory();
}
void shrink_registers(uint32_t count) { machine().async.shrink_registers(count); }
void grow_registers(uint32_t count) { machine().async.grow_registers(count); }
void begin_products(const RegisterNames* names, uint32_t count) {
  Named mine{names, count};
  machine().collective("wgmma.fence", 0xffffffff, 0, &mine, [](void** lanes, uint32_t, uint32_t) { machine().async.begin_products(lanes); });
}
void wait_products(uint32_t pending, const RegisterNames* names, uint32_t count) {
  Named mine{names, count};
  machine().collective("wgmma.wait_group", 0xffffffff, pending, &mine,
                       [](void** lanes, uint32_t, uint32_t pending) { machine().async.wait_products(lanes, pending); });
}
void multiply(float* sums, uint32_t columns, const uint32_t* a, uint64_t a_descriptor, uint64_t b_descriptor, bool add) {
  WarpProduct mine{sums, columns, a, a_descriptor, b_descriptor, add};
  machine().collective("wgmma.mma_async", 0xffffffff, columns, &mine, [](void** lanes, uint32_t, uint32_t) { machine().async.multiply(lanes); });
}

} // namespace emulation

using emulation::machine;

uint32_t shared_address(const void* pointer) { return machine().async.in_window(reinterpret_cast<uintptr_t>(pointer)); }
void make_barrier(uint64_t* barrier, uint32_t arrivals) { machine().async.make_barrier(barrier, arrivals); }
void publish_barriers() { machine().async.publish_barriers(); }
void arrive(uint64_t* barrier) { machine().async.arrive(barrier, 0); }
void arrive_expecting(uint64_t* barrier, uint32_t bytes) { machine().async.arrive(barrier, bytes); }
void wait_for(uint64_t* barrier, uint32_t parity) { machine().async.wait(barrier, parity); }
void copy_box_async(void* shared, const TensorMap& map, uint32_t column, uint32_t row, uint64_t* barrier) {
  machine().async.copy_box(shared, map, column, row, barrier);
}
void publish_to_async() { machine().publish_to_async(); }
void commit_products() {
  machine().collective("wgmma.commit_group", 0xffffffff, 0, nullptr, [](void**, uint32_t, uint32_t) { machine().async.commit_products(); });
}
