// A libcuda.so and libcublasLt.so for tests of what calls them (stand_in.rs): device memory is the host's, a kernel is one of two
// below, and a stream does its work as late as it may, which is when somebody waits for it. So what is ordered by nothing comes
// in the wrong order. Work on memory that was given back ends the process.
//
// STAND_IN_EAGER=1 does all work when it is queued: the other end of what a card may do.
// STAND_IN_IGNORES=cuEventRecord or =cuEventRecord:2 makes that function do nothing, for all or for the second event (of
// cuStreamWaitEvent and cuStreamSynchronize: stream) that was made.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace {

struct Stream {
  size_t number;
  std::vector<std::function<void()>> work;
  size_t done = 0;

  void run(size_t until) {
    while (done < until) {
      const size_t next = done++;
      work[next]();
      work[next] = nullptr;
    }
  }
  void queue(std::function<void()> task) {
    work.push_back(std::move(task));
    if (std::getenv("STAND_IN_EAGER")) run(work.size());
  }
};

struct Event {
  size_t number;
  Stream* stream = nullptr;
  size_t position = 0;

  void wait() const {
    if (stream) stream->run(position);
  }
};

std::vector<Stream*> streams;
size_t events = 0, pinned_pieces = 0;
std::map<uintptr_t, size_t> memory, pinned;
int context;

bool ignored(const char* function, size_t number) {
  const char* wish = std::getenv("STAND_IN_IGNORES");
  return wish && (wish == std::string(function) || wish == function + (":" + std::to_string(number)));
}

bool holds(const std::map<uintptr_t, size_t>& pieces, uintptr_t address, size_t bytes) {
  auto piece = pieces.upper_bound(address);
  return piece != pieces.begin() && (--piece, address + bytes <= piece->first + piece->second);
}

void* in(const std::map<uintptr_t, size_t>& pieces, uintptr_t address, size_t bytes) {
  if (!holds(pieces, address, bytes)) {
    std::fprintf(stderr, "the stand-in: %zu bytes that are not there, or no longer\n", bytes);
    std::_Exit(3);
  }
  return reinterpret_cast<void*>(address);
}

int take(std::map<uintptr_t, size_t>& pieces, size_t bytes, uintptr_t* address) {
  void* made = std::malloc(bytes);
  std::memset(made, 0xcd, bytes);
  *address = reinterpret_cast<uintptr_t>(made);
  pieces[*address] = bytes;
  return 0;
}

/// The memory itself stays, so that nobody else gets the address.
int give_back(std::map<uintptr_t, size_t>& pieces, uintptr_t address) { return pieces.erase(address) == 1 ? 0 : 1; }

} // namespace

extern "C" {

/// What the tests ask.
size_t stand_in_pending() {
  size_t pending = 0;
  for (const Stream* stream : streams) pending += stream->work.size() - stream->done;
  return pending;
}
size_t stand_in_pinned() { return pinned_pieces; }

size_t cublasLtGetVersion() { return 130100; }
int cublasLtCreate(void** handle) { return *handle = &context, 0; }
int cublasLtDestroy(void*) { return 0; }

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGet(int* device, int) { return *device = 0, 0; }
int cuDeviceGetName(char* name, int room, int) { return std::strncpy(name, "stand-in", room), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) { return *value = attribute == 75 ? 8 : 0, 0; }
int cuDevicePrimaryCtxRetain(void** made, int) { return *made = &context, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxGetCurrent(void** current) { return *current = &context, 0; }
int cuCtxSetCurrent(void*) { return 0; }
int cuMemGetInfo_v2(size_t* available, size_t* total) { return *available = *total = size_t{1} << 34, 0; }

int cuCtxSynchronize() {
  for (Stream* stream : streams) stream->run(stream->work.size());
  return 0;
}

int cuStreamCreate(Stream** made, unsigned) {
  *made = new Stream{streams.size() + 1, {}};
  streams.push_back(*made);
  return 0;
}
/// Its work is done all the same.
int cuStreamDestroy_v2(Stream* stream) { return stream->run(stream->work.size()), 0; }
int cuStreamSynchronize(Stream* stream) {
  if (!ignored("cuStreamSynchronize", stream->number)) stream->run(stream->work.size());
  return 0;
}
int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
  // What is recorded now, whatever is recorded later.
  if (!ignored("cuStreamWaitEvent", stream->number)) stream->queue([recorded = *event] { recorded.wait(); });
  return 0;
}

int cuEventCreate(Event** made, unsigned) { return *made = new Event{++events}, 0; }
int cuEventDestroy_v2(Event* event) { return delete event, 0; }
int cuEventRecord(Event* event, Stream* stream) {
  if (!ignored("cuEventRecord", event->number)) *event = Event{event->number, stream, stream->work.size()};
  return 0;
}
int cuEventSynchronize(Event* event) {
  if (!ignored("cuEventSynchronize", event->number)) event->wait();
  return 0;
}

int cuMemAlloc_v2(uintptr_t* address, size_t bytes) { return take(memory, bytes, address); }
int cuMemFree_v2(uintptr_t address) { return give_back(memory, address); }
int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  ++pinned_pieces;
  return take(pinned, bytes, reinterpret_cast<uintptr_t*>(address));
}
int cuMemFreeHost(void* address) { return give_back(pinned, reinterpret_cast<uintptr_t>(address)); }

int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, Stream* stream) {
  const auto source = reinterpret_cast<uintptr_t>(from);
  if (!holds(pinned, source, bytes)) return 1; // it might wait for the stream, and nobody here wants that
  stream->queue([=] { std::memcpy(in(memory, to, bytes), in(pinned, source, bytes), bytes); });
  return 0;
}
int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, Stream* stream) {
  const auto target = reinterpret_cast<uintptr_t>(to);
  if (!holds(pinned, target, bytes)) return 1;
  stream->queue([=] { std::memcpy(in(pinned, target, bytes), in(memory, from, bytes), bytes); });
  return 0;
}
int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, Stream* stream) {
  stream->queue([=] { std::memcpy(in(memory, to, bytes), in(memory, from, bytes), bytes); });
  return 0;
}
int cuMemsetD8Async(uintptr_t at, unsigned char value, size_t bytes, Stream* stream) {
  stream->queue([=] { std::memset(in(memory, at, bytes), value, bytes); });
  return 0;
}

int cuModuleLoadData(void** module, const void*) { return *module = &context, 0; }
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(char** function, void*, const char* name) {
  return *function = strdup(name), 0;
}
int cuFuncSetAttribute(void*, int, int) { return 0; }

/// A map is its address here. It must be aligned, as the card's is.
int cuTensorMapEncodeTiled(uint64_t* map, int, unsigned, void* address, const uint64_t*, const uint64_t*, const uint32_t*, const uint32_t*, int, int,
                           int, int) {
  if (reinterpret_cast<uintptr_t>(map) % 64 != 0) return 1;
  for (int word = 0; word < 16; ++word) map[word] = reinterpret_cast<uint64_t>(address) + word;
  return 0;
}

/// stand_in_slots writes its 19 last arguments of eight bytes to its first; stand_in_maps (out, scalar, map, map) the first and the
/// last word of its maps. Arguments are taken now, as a driver takes them.
int cuLaunchKernel(const char* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream* stream, void** arguments,
                   void**) {
  const auto out = *static_cast<uintptr_t*>(arguments[0]);
  std::vector<uint64_t> words;
  if (std::strcmp(function, "stand_in_slots") == 0) {
    for (int slot = 1; slot < 20; ++slot) words.push_back(*static_cast<uint64_t*>(arguments[slot]));
  } else if (std::strcmp(function, "stand_in_maps") == 0) {
    for (int map = 2; map < 4; ++map) {
      const auto* encoded = static_cast<uint64_t*>(arguments[map]);
      if (reinterpret_cast<uintptr_t>(encoded) % 64 != 0) return 1;
      words.insert(words.end(), {encoded[0], encoded[15]});
    }
  } else {
    return 500; // not found
  }
  stream->queue([=] { std::memcpy(in(memory, out, words.size() * 8), words.data(), words.size() * 8); });
  return 0;
}

} // extern "C"
