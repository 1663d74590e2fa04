// Switching between fibres: threads of the kernel, each with its own stack, of which one runs at a time.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HOST_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#endif
#ifndef HOST_ASAN
#define HOST_ASAN 0
#endif

namespace host {

struct Stack {
  void* pointer = nullptr;     // while the fibre does not run
  const void* low = nullptr;   // the rest is for AddressSanitizer
  size_t size = 0;
  void* fake = nullptr;
};

// Saves the callee-saved registers on the running stack, keeps its pointer in *save, goes on where `load` stopped.
extern "C" void host_switch(void** save, void* load);

#if defined(__x86_64__)
constexpr int SAVED_WORDS = 6;
asm(R"(
.text
.type host_switch,@function
host_switch:
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
.size host_switch, .-host_switch
)");
#elif defined(__aarch64__)
constexpr int SAVED_WORDS = 20;
asm(R"(
.text
.globl host_switch
host_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp d8, d9, [sp, #80]
  stp d10, d11, [sp, #96]
  stp d12, d13, [sp, #112]
  stp d14, d15, [sp, #128]
  stp x29, x30, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp d8, d9, [sp, #80]
  ldp d10, d11, [sp, #96]
  ldp d12, d13, [sp, #112]
  ldp d14, d15, [sp, #128]
  ldp x29, x30, [sp, #144]
  add sp, sp, #160
  ret
)");
#else
#error "write host_switch for this processor"
#endif

// Makes `stack` start with main(); `colour` bytes below the top, so that stacks do not share their cache lines.
inline void start_stack(Stack& stack, char* low, size_t size, size_t colour, void (*main)()) {
  stack.low = low;
  stack.size = size;
  stack.fake = nullptr;
  void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(low + size - colour) & ~uintptr_t(63));
#if defined(__x86_64__)
  *--top = nullptr;  // keeps the alignment that a call would leave
  *--top = reinterpret_cast<void*>(main);
#endif
  top -= SAVED_WORDS;
  for (int i = 0; i < SAVED_WORDS; ++i) top[i] = nullptr;
#if defined(__aarch64__)
  top[SAVED_WORDS - 1] = reinterpret_cast<void*>(main);  // x30
#endif
  stack.pointer = top;
#if HOST_ASAN
  __asan_unpoison_memory_region(low, size);
#endif
}

inline void switch_stacks(Stack& from, Stack& to, bool for_ever) {
#if HOST_ASAN
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &from.fake, to.low, to.size);
#else
  (void)for_ever;
#endif
  host_switch(&from.pointer, to.pointer);
#if HOST_ASAN
  __sanitizer_finish_switch_fiber(from.fake, nullptr, nullptr);
#endif
}

// The first thing that a fibre does.
inline void arrived_on_new_stack() {
#if HOST_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

}  // namespace host
