// Check mode: every access of the kernel is reported here, by clang's instrumentation for ThreadSanitizer (whose
// runtime is not linked).  Bounds are exact to the byte; races follow Metal's rules: accesses by two threads of a
// threadgroup are ordered by a threadgroup_barrier whose flag names their memory, or, within a simdgroup, by such
// a simdgroup_barrier; threadgroups are not ordered at all.  Nothing depends on the order in which fibres ran.
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "scheduler.h"

extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[];
extern "C" __attribute__((visibility("hidden"))) char _end[];

namespace host {
namespace {

constexpr uint32_t MANY = 0xFFFF;
enum Space : uint32_t { DEVICE, THREADGROUP };

// Who touched a byte last, and when.
struct Stamp {
  uint32_t group;       // 0: nobody
  uint32_t epoch;       // barriers of the threadgroup until then
  uint32_t simd_epoch;  // of the simdgroup; the last one if it was several lanes
  uint32_t pc;
  uint16_t thread, simdgroup;  // MANY: several
  uint32_t atomic;
};

struct Cell {
  Stamp write, read;
};

struct Region {
  const char* name;
  char* data;
  size_t size;
  Space space;
  Buffer* buffer;
  Cell* cells;  // nullptr: read-only, no races
};

std::vector<Region> regions;
size_t device_regions, recent;
uint32_t group, epoch[2], simd_epoch[2][32];

uint32_t pc_of(void* return_address) { return uint32_t(static_cast<char*>(return_address) - __ehdr_start) - 1; }

// `@pc` is replaced by file and line from the debug information, outside.
[[gnu::noinline, noreturn]] void report(const char* what, const char* name, long offset, size_t size, uint32_t pc,
                                        const char* more = "") {
  char text[700];
  snprintf(text, sizeof text, "%s %s, byte %ld of %zu, @pc%x%s", what, name, offset, size, pc, more);
  stop(text);
}

[[gnu::noinline, noreturn]] void report_race(const char* what, const Region& r, size_t offset, uint32_t pc,
                                             const Stamp& other) {
  char more[300], thread[40] = "several threads";
  if (other.thread != MANY) snprintf(thread, sizeof thread, "thread %u", other.thread);
  snprintf(more, sizeof more, "\n  against %s%s, @pc%x", thread,
           other.group != group ? " of another threadgroup (no barrier orders those)" : "", other.pc);
  report(what, r.name, long(offset), r.size, pc, more);
}

[[gnu::noinline]] bool outside(const char* address, size_t size, bool write, uint32_t pc) {
  if (!write && address >= __ehdr_start && address < _end) return false;  // the kernel's constants
  const char* what = write ? "out-of-bounds write to" : "out-of-bounds read of";
  const Region* nearest = nullptr;
  size_t distance = 1 << 20;
  for (const Region& r : regions) {
    size_t d = address < r.data ? r.data - address : address - r.data - r.size + 1;
    if (d < distance) nearest = &r, distance = d;
  }
  if (nearest) report(what, nearest->name, address - nearest->data, nearest->size, pc);
  report(what, "memory that is no buffer", long(reinterpret_cast<uintptr_t>(address)), size, pc);
}

Region* find(const char* address) {
  if (recent < regions.size()) {
    Region& r = regions[recent];
    if (address >= r.data && address < r.data + r.size) return &r;
  }
  for (size_t i = 0; i < regions.size(); ++i) {
    if (address >= regions[i].data && address < regions[i].data + regions[i].size) {
      recent = i;
      return &regions[i];
    }
  }
  return nullptr;
}

// Whether what `old` did is unordered with what this thread does now.
bool clashes(const Stamp& old, Space space, const Thread& me, bool atomic) {
  if (!old.group || (atomic && old.atomic)) return false;
  if (old.group != group) return space == DEVICE;
  if (old.thread == me.index || old.epoch != epoch[space]) return false;
  return old.simdgroup != me.simdgroup || old.simd_epoch == simd_epoch[space][me.simdgroup];
}

void remember_read(Stamp& read, const Stamp& now) {
  bool together = read.group == now.group && read.epoch == now.epoch && read.thread != now.thread;
  bool one_simdgroup = read.simdgroup == now.simdgroup;
  read = {now.group, now.epoch, now.simd_epoch, now.pc, together ? uint16_t(MANY) : now.thread,
          together && !one_simdgroup ? uint16_t(MANY) : now.simdgroup, now.atomic};
}

void check_race(Region& r, size_t offset, size_t size, Access access, uint32_t pc) {
  const Thread& me = self();
  bool atomic = access == Access::ATOMIC, write = access != Access::READ;
  Stamp now = {group, epoch[r.space], simd_epoch[r.space][me.simdgroup], pc, uint16_t(me.index),
               uint16_t(me.simdgroup), atomic};
  for (size_t i = offset; i < offset + size; ++i) {
    Cell& c = r.cells[i];
    if (clashes(c.write, r.space, me, atomic)) {
      report_race(write ? "data race: two writes to" : "data race: read after write of", r, i, pc, c.write);
    }
    if (!write) {
      remember_read(c.read, now);
      continue;
    }
    if (clashes(c.read, r.space, me, atomic)) report_race("data race: write after read of", r, i, pc, c.read);
    c.write = now;
  }
}

void on_access(const volatile void* pointer, size_t size, Access access, void* return_address) {
  const char* address = static_cast<const char*>(const_cast<const void*>(pointer));
  if (!current_thread || is_private(address)) return;
  uint32_t pc = pc_of(return_address);
  Region* r = find(address);
  if (!r) {
    if (!outside(address, size, access != Access::READ, pc)) return;
  }
  size_t offset = address - r->data;
  if (offset + size > r->size) {
    const char* what = access == Access::READ ? "out-of-bounds read of" : "out-of-bounds write to";
    report(what, r->name, long(offset + size - 1), r->size, pc);
  }
  if (r->buffer) {
    if (access != Access::WRITE) r->buffer->bytes_read += size;
    if (access != Access::READ) r->buffer->bytes_written += size;
    if (access != Access::READ && !r->buffer->written) report("write to the input", r->name, long(offset), r->size, pc);
  }
  if (r->cells) check_race(*r, offset, size, access, pc);
}

}  // namespace

void watch(Buffer* buffers, char** copies, uint32_t count) {
  forget();
  group = 0;
  for (uint32_t i = 0; i < count; ++i) {
    Buffer& b = buffers[i];
    Cell* cells = b.written ? static_cast<Cell*>(calloc(b.size, sizeof(Cell))) : nullptr;
    regions.push_back({b.name, copies[i], b.size, DEVICE, &b, cells});
  }
  device_regions = count;
}

void forget() {
  for (Region& r : regions) free(r.cells);
  regions.clear();
  recent = 0;
}

void on_threadgroup() {
  ++group;
  memset(epoch, 0, sizeof epoch);
  memset(simd_epoch, 0, sizeof simd_epoch);
  while (regions.size() > device_regions) {
    free(regions.back().cells);
    regions.pop_back();
  }
}

void on_threadgroup_array(char* data, size_t size, const char* name) {
  regions.push_back({name, data, size, THREADGROUP, nullptr, static_cast<Cell*>(calloc(size, sizeof(Cell)))});
}

void on_barrier(uint32_t flags) {
  for (uint32_t space = 0; space < 2; ++space) {
    if (flags >> space & 1) ++epoch[space];
  }
}

void on_simdgroup_barrier(uint32_t flags, uint32_t simdgroup) {
  for (uint32_t space = 0; space < 2; ++space) {
    if (flags >> space & 1) ++simd_epoch[space][simdgroup];
  }
}

void check_atomic(const volatile void* address, uint32_t size) {
  on_access(address, size, Access::ATOMIC, __builtin_return_address(0));
}

}  // namespace host

using host::Access;
using host::on_access;

extern "C" {
#define HOST_CALLBACKS(N)                                                                                        \
  void __tsan_read##N(void* p) { on_access(p, N, Access::READ, __builtin_return_address(0)); }                   \
  void __tsan_write##N(void* p) { on_access(p, N, Access::WRITE, __builtin_return_address(0)); }                 \
  void __tsan_unaligned_read##N(void* p) { on_access(p, N, Access::READ, __builtin_return_address(0)); }         \
  void __tsan_unaligned_write##N(void* p) { on_access(p, N, Access::WRITE, __builtin_return_address(0)); }
HOST_CALLBACKS(1)
HOST_CALLBACKS(2)
HOST_CALLBACKS(4)
HOST_CALLBACKS(8)
HOST_CALLBACKS(16)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  on_access(from, n, Access::READ, __builtin_return_address(0));
  on_access(to, n, Access::WRITE, __builtin_return_address(0));
  return memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
  on_access(from, n, Access::READ, __builtin_return_address(0));
  on_access(to, n, Access::WRITE, __builtin_return_address(0));
  return memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
  on_access(to, n, Access::WRITE, __builtin_return_address(0));
  return memset(to, value, n);
}
}
