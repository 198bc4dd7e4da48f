// Fibres: each GPU thread runs on a stack of its own, and only one of them runs at a time.
#pragma once

#include <cstddef>

namespace emulation {

/// A stack and where its thread stands.
struct Fibre {
  void* stack_pointer = nullptr;
  char* lowest = nullptr;  // first usable byte
  char* highest = nullptr; // one past the last
};

/// Gives `fibre` a stack of `bytes` with a page below it that nobody may touch.
void allocate_stack(Fibre& fibre, size_t bytes);
void free_stack(Fibre& fibre);

/// Makes the next switch to `fibre` call `entry`, which must never return.
void prepare(Fibre& fibre, void (*entry)());

/// Leaves the running stack in `from` and goes on where `to` was left.
void switch_stack(Fibre& from, Fibre& to);

} // namespace emulation
