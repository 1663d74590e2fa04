// Between the scheduler, the memory checks and the entry points.
#pragma once
#include <stddef.h>

#include "host.h"

namespace host {

enum Order : int32_t { FORWARD, REVERSE, SHUFFLED };

struct Options {
  int32_t order;
  uint32_t seed;
  uint32_t threadgroup_limit;  // bytes of threadgroup memory
};

struct Statistics {
  uint64_t threads, switches, threadgroup_bytes;
};

typedef void (*Kernel)(void** buffers);

// Runs all threadgroups, one after another.  The report, or nullptr.
const char* run(Kernel kernel, void** buffers, const uint32_t* grid, const uint32_t* threadgroup,
                const Options& options, Statistics& statistics);

// Whether the address is a fibre's stack or a meeting place.
bool is_private(const void* address);

// Ends the launch with this report; to be called on a fibre.
[[noreturn]] void stop(const char* report);

// Keeps the report of a launch that is left by other ways (a memory fault).
void describe_thread(char* text, size_t size);

// What the memory checks (memory.cpp) want to know; they do nothing in other modes.
void on_threadgroup();
void on_threadgroup_array(char* data, size_t size, const char* name);
void on_barrier(uint32_t flags);
void on_simdgroup_barrier(uint32_t flags, uint32_t simdgroup);

}  // namespace host
