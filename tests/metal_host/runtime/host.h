// What the shim and the generated glue need of the runtime: who am I, meet the other lanes, threadgroup memory.
#pragma once
#include <stdint.h>

namespace host {

// Where in the kernel's text a call stands.  As a default argument it is the place of the caller.
struct Place {
  const char* file;
  int line;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

struct Dim {
  uint32_t x, y, z;
};

// What one Metal thread can know about itself.
struct Thread {
  Dim position_in_grid, position_in_threadgroup, threadgroup_position, threadgroup_size, threadgroups, grid_size;
  uint32_t index, lane, simdgroup, simdgroups;
};

enum Operation : uint32_t {
  FINISH,
  THREADGROUP_BARRIER,
  SIMDGROUP_BARRIER,
  SIMD_REDUCE,
  SIMD_SCAN,
  SIMD_SHUFFLE,
  SIMD_VOTE,
  MATRIX_MULTIPLY,
};

constexpr uint32_t MAX_PAYLOAD = 64;  // bytes that a lane can bring to a meeting

// One simdgroup's meeting place: what every lane brought, what the last one to come made of it.
struct Exchange {
  alignas(64) unsigned char in[32 * MAX_PAYLOAD];
  alignas(64) unsigned char out[32 * MAX_PAYLOAD];
};

extern Thread* current_thread;

inline const Thread& self() { return *current_thread; }

// The meeting place for the next meeting, and how many lanes the simdgroup has (fewer at the grid's edge).
Exchange& exchange(uint32_t& lanes);

// Waits for all lanes of the simdgroup; true for the last to come, which goes on first.  All must come with the
// same operation, detail and place: anything else ends the launch with a report.
bool meet(Operation operation, uint32_t detail, Place place);

void threadgroup_barrier(uint32_t flags, Place place);
void simdgroup_barrier(uint32_t flags, Place place);

// The threadgroup's array number `id` of the text; made by the first thread that asks, filled with 0xFF.
void* threadgroup_array(int id, const char* name, uint32_t size, uint32_t align, Place place);

enum class Access { READ, WRITE, ATOMIC };

// For accesses that the compiler does not report: in check mode, those of atomics.
void check_atomic(const volatile void* address, uint32_t size);

[[noreturn]] void fail(const char* message, Place place);

}  // namespace host
