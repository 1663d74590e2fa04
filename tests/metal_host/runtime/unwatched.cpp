// In place of memory.cpp in the modes that do not watch memory.
#include "memory.h"
#include "scheduler.h"

namespace host {
void watch(Buffer*, char**, uint32_t) {}
void forget() {}
void on_threadgroup() {}
void on_threadgroup_array(char*, size_t, const char*) {}
void on_barrier(uint32_t) {}
void on_simdgroup_barrier(uint32_t, uint32_t) {}
void check_atomic(const volatile void*, uint32_t) {}
}  // namespace host
