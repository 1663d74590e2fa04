// The entry of the shared objects (modes fast and check).  Every buffer is copied to memory of its own that ends at
// an unmapped page, so that even the fast mode notices most accesses beyond it.
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

#include "memory.h"
#include "scheduler.h"

extern "C" void host_kernel(void** buffers);
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[];

namespace host {
namespace {

constexpr size_t PAGE = 4096, GUARD = 64 * PAGE, ALIGNMENT = 16;

struct Guarded {
  char* room;
  size_t room_size;
  char* data;
  const Buffer* buffer;
};

std::vector<Guarded> guarded;
sigjmp_buf escape;
char fault[700];

Guarded guard(const Buffer& b) {
  size_t pages = (b.size + PAGE - 1) / PAGE * PAGE, room_size = pages + 2 * GUARD;
  char* room = static_cast<char*>(
      mmap(nullptr, room_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  mprotect(room + GUARD, pages, PROT_READ | PROT_WRITE);
  char* data = room + GUARD + (pages - b.size) / ALIGNMENT * ALIGNMENT;
  memcpy(data, b.data, b.size);
  return {room, room_size, data, &b};
}

uintptr_t faulting_instruction(void* context) {
  auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  return uintptr_t(machine.gregs[REG_RIP]);
#else
  return uintptr_t(machine.pc);
#endif
}

void on_fault(int, siginfo_t* info, void* context) {
  const char* address = static_cast<const char*>(info->si_addr);
  char who[160] = "", what[200] = "outside every buffer (or a stack overflow)";
  if (current_thread) describe_thread(who, sizeof who);
  for (const Guarded& g : guarded) {
    if (address < g.room || address >= g.room + g.room_size) continue;
    snprintf(what, sizeof what, "out-of-bounds access to %s, byte %ld of %zu", g.buffer->name, long(address - g.data),
             size_t(g.buffer->size));
  }
  unsigned pc = unsigned(faulting_instruction(context) - reinterpret_cast<uintptr_t>(__ehdr_start));
  snprintf(fault, sizeof fault, "memory fault: %s, @pc%x\n  by %s", what, pc, who);
  siglongjmp(escape, 1);
}

// Catches memory faults while it lives.
struct FaultHandler {
  struct sigaction old_action;
  stack_t old_stack;
  FaultHandler() {
    static char room[1 << 16];  // of its own: the fault may be an overflow of a fibre's stack
    stack_t stack = {};
    stack.ss_sp = room;
    stack.ss_size = sizeof room;
    sigaltstack(&stack, &old_stack);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &old_action);
  }
  ~FaultHandler() {
    sigaction(SIGSEGV, &old_action, nullptr);
    sigaltstack(&old_stack, nullptr);
  }
};

}  // namespace
}  // namespace host

// 0, or 1 with a report.
extern "C" int host_launch(host::Buffer* buffers, uint32_t count, const uint32_t* grid, const uint32_t* threadgroup,
                           const host::Options* options, host::Statistics* statistics, char* report, size_t size) {
  using namespace host;
  std::vector<char*> copies;
  guarded.clear();
  for (uint32_t i = 0; i < count; ++i) {
    guarded.push_back(guard(buffers[i]));
    copies.push_back(guarded.back().data);
  }
  watch(buffers, copies.data(), count);
  const char* said;
  {
    FaultHandler handler;
    said = sigsetjmp(escape, 1) ? fault
                                : run(host_kernel, reinterpret_cast<void**>(copies.data()), grid, threadgroup, *options,
                                      *statistics);
  }
  current_thread = nullptr;
  if (said) snprintf(report, size, "%s", said);
  for (Guarded& g : guarded) {
    if (g.buffer->written) memcpy(g.buffer->data, g.data, g.buffer->size);
    munmap(g.room, g.room_size);
  }
  forget();
  return said != nullptr;
}
