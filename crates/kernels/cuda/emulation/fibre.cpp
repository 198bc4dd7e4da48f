#include "fibre.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#error "the emulation switches stacks on x86-64 and aarch64 only"
#endif

// Saves what a call must preserve, swaps the stack pointers and returns into the other fibre.
// void emulation_switch_stack(void** from, void* to)
#if defined(__x86_64__)
asm(R"(
.text
.globl emulation_switch_stack
.hidden emulation_switch_stack
.type emulation_switch_stack, @function
emulation_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#else
asm(R"(
.text
.globl emulation_switch_stack
.hidden emulation_switch_stack
.type emulation_switch_stack, %function
emulation_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#endif

extern "C" void emulation_switch_stack(void** from, void* to);

namespace emulation {

void allocate_stack(Fibre& fibre, size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
    std::perror("emulation: a thread's stack");
    std::abort();
  }
  fibre.lowest = static_cast<char*>(memory) + page;
  fibre.highest = fibre.lowest + bytes;
}

void free_stack(Fibre& fibre) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (fibre.lowest) munmap(fibre.lowest - page, static_cast<size_t>(fibre.highest - fibre.lowest) + page);
  fibre = Fibre{};
}

void prepare(Fibre& fibre, void (*entry)()) {
  auto* top = reinterpret_cast<uintptr_t*>(fibre.highest);
#if defined(__x86_64__)
  *--top = 0;                                  // keeps the stack of `entry` as the ABI wants it: 8 below a multiple of 16
  *--top = reinterpret_cast<uintptr_t>(entry); // where `ret` goes
  for (int saved = 0; saved < 6; ++saved) *--top = 0;
#else
  top -= 20;
  for (int saved = 0; saved < 20; ++saved) top[saved] = 0;
  top[11] = reinterpret_cast<uintptr_t>(entry); // x30, where `ret` goes
#endif
  fibre.stack_pointer = top;
}

void switch_stack(Fibre& from, Fibre& to) { emulation_switch_stack(&from.stack_pointer, to.stack_pointer); }

} // namespace emulation
