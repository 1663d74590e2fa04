// Runs a threadgroup's threads as fibres.  A lane that comes to a meeting goes straight to the next lane of its
// simdgroup; the last one finishes the meeting and goes on.  So a meeting costs one switch a lane.
#include "scheduler.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "switch.h"

namespace host {

Thread* current_thread;

namespace {

constexpr size_t PAGE = 4096, STACK = HOST_ASAN ? 256 << 10 : 128 << 10, STRIDE = STACK + PAGE;
constexpr uint32_t MAX_THREADS = 1024, MAX_SIMDGROUPS = MAX_THREADS / 32, MAX_ARRAYS = 32;
// Around every threadgroup array, so that an overrun does not hit the next; AddressSanitizer has its own.
constexpr size_t GAP = HOST_ASAN ? 0 : 4096;

struct Stop {
  Operation operation;
  uint32_t detail;
  Place place;
  bool operator==(const Stop& o) const {
    return operation == o.operation && detail == o.detail && place.line == o.place.line &&
           (place.file == o.place.file || !strcmp(place.file, o.place.file));
  }
};

struct Fibre {
  Thread thread;  // first: current_thread is the fibre
  Stack stack;
  Stop stop;
  Fibre* next;  // of the simdgroup, in a circle
};

struct Simdgroup {
  uint32_t first, count, arrived, parity;
  bool differ;
  Stop stop;  // of the first lane to come to the present meeting
  Fibre* resume;
  Simdgroup* next;  // of the threadgroup, in a circle
};

struct ThreadgroupArray {
  int id;
  char* data;
};

// Everything that kernel code reads without the check of memory: see is_private.
struct Arena {
  Fibre fibres[MAX_THREADS];
  Exchange exchanges[MAX_SIMDGROUPS][2];
};

Arena* arena;
char* stacks;
Simdgroup simdgroups[MAX_SIMDGROUPS];
uint32_t fibre_count, simdgroup_count, simdgroups_arrived;
ThreadgroupArray arrays[MAX_ARRAYS];
uint32_t array_count, array_bytes;
Stack main_stack;
Kernel the_kernel;
void** the_buffers;
Options the_options;
Statistics* the_statistics;
char report[2048];
bool failed;

Fibre* running() { return reinterpret_cast<Fibre*>(current_thread); }
Simdgroup& group_of(const Fibre* f) { return simdgroups[f->thread.simdgroup]; }

void go_to(Fibre* to, bool for_ever = false) {
  Fibre* from = running();
  current_thread = &to->thread;
  ++the_statistics->switches;
  switch_stacks(from->stack, to->stack, for_ever);
}

[[noreturn]] void leave() {
  Fibre* from = running();
  switch_stacks(from->stack, main_stack, true);
  abort();
}

const char* name_of(Operation operation) {
  static const char* names[] = {"the end of the kernel", "threadgroup_barrier", "simdgroup_barrier",
                                "a simd reduction",      "a simd prefix sum",   "a simd shuffle",
                                "a simd vote",           "a simdgroup_matrix product"};
  return names[operation];
}

// "lanes 0-3,7" of those that wait at `stop`
int print_lanes(char* text, size_t size, const Simdgroup& g, const Stop& stop) {
  int length = 0;
  auto at = [&](uint32_t i) { return i < g.count && arena->fibres[g.first + i].stop == stop; };
  for (uint32_t i = 0; i < g.count; ++i) {
    if (!at(i)) continue;
    uint32_t end = i;
    while (at(end + 1)) ++end;
    length += snprintf(text + length, size - length, end > i ? "%s%u-%u" : "%s%u", length ? "," : "lanes ", i, end);
    i = end;
  }
  return length;
}

int print_stop(char* text, size_t size, const Stop& stop) {
  if (stop.operation == FINISH) return snprintf(text, size, "%s", name_of(FINISH));
  return snprintf(text, size, "%s, %s:%d", name_of(stop.operation), stop.place.file, stop.place.line);
}

// Where all lanes of these simdgroups wait, by place.
[[noreturn]] void report_divergence(const char* what, uint32_t first, uint32_t count) {
  char text[sizeof report];
  size_t n = snprintf(text, sizeof text, "%s", what);
  for (uint32_t s = first; s < first + count && n < sizeof text - 200; ++s) {
    const Simdgroup& g = simdgroups[s];
    for (uint32_t i = 0; i < g.count && n < sizeof text - 200; ++i) {
      const Stop& stop = arena->fibres[g.first + i].stop;
      uint32_t earlier = 0;
      while (!(arena->fibres[g.first + earlier].stop == stop)) ++earlier;
      if (earlier < i) continue;
      n += snprintf(text + n, sizeof text - n, "\n  simdgroup %u, ", s);
      n += print_lanes(text + n, sizeof text - n, g, stop);
      n += snprintf(text + n, sizeof text - n, ": ");
      n += print_stop(text + n, sizeof text - n, stop);
    }
  }
  stop(text);
}

// The last lane of a simdgroup has come to a barrier of the threadgroup or to the end.  True if it goes on.
bool simdgroup_arrives(Fibre* f) {
  Simdgroup& g = group_of(f);
  const Stop& first = arena->fibres[0].stop;
  g.resume = f;
  if (++simdgroups_arrived < simdgroup_count) {
    go_to(g.next->resume, f->stop.operation == FINISH);
    return false;
  }
  simdgroups_arrived = 0;
  for (uint32_t s = 1; s < simdgroup_count; ++s) {
    if (!(arena->fibres[simdgroups[s].first].stop == first)) {
      report_divergence("threadgroup divergence: not all simdgroups come to the same barrier", 0, simdgroup_count);
    }
  }
  return true;
}

// The running lane stops here.  True for the last of its simdgroup.
bool arrive(const Stop& stop) {
  Fibre* f = running();
  Simdgroup& g = group_of(f);
  f->stop = stop;
  if (!g.arrived) g.stop = stop;
  g.differ |= !(stop == g.stop);
  if (++g.arrived < g.count) {
    go_to(f->next, stop.operation == FINISH);
    return false;
  }
  if (g.differ) report_divergence("simdgroup divergence: not all lanes come to the same place", f->thread.simdgroup, 1);
  g.arrived = 0;
  return true;
}

void fibre_main() {
  arrived_on_new_stack();
  the_kernel(the_buffers);
  if (arrive({FINISH, 0, {"", 0}}) && simdgroup_arrives(running())) leave();
  abort();
}

// 0 .. n - 1 in the order asked for.
void order_of(uint32_t n, uint32_t* order, uint32_t& random) {
  for (uint32_t i = 0; i < n; ++i) order[i] = the_options.order == REVERSE ? n - 1 - i : i;
  for (uint32_t i = n - 1; the_options.order == SHUFFLED && i > 0; --i) {
    random = random * 1664525u + 1013904223u;
    uint32_t j = (random >> 8) % (i + 1), kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
}

struct Launch {
  uint32_t grid[3], threadgroup[3], count[3];
};

void make_fibre(const Launch& l, const uint32_t* group, const uint32_t* size, uint32_t i) {
  Fibre& f = arena->fibres[i];
  uint32_t x = i % size[0], y = i / size[0] % size[1], z = i / size[0] / size[1];
  f.thread = {{group[0] * l.threadgroup[0] + x, group[1] * l.threadgroup[1] + y, group[2] * l.threadgroup[2] + z},
              {x, y, z},
              {group[0], group[1], group[2]},
              {size[0], size[1], size[2]},
              {l.count[0], l.count[1], l.count[2]},
              {l.grid[0], l.grid[1], l.grid[2]},
              i,
              i % 32,
              i / 32,
              simdgroup_count};
  f.stop = {};
  start_stack(f.stack, stacks + i * STRIDE + PAGE, STACK, (i * 320) % PAGE, fibre_main);
}

void make_circles(uint32_t& random) {
  uint32_t order[MAX_SIMDGROUPS], lanes[32];
  order_of(simdgroup_count, order, random);
  for (uint32_t k = 0; k < simdgroup_count; ++k) {
    uint32_t s = order[k], left = fibre_count - s * 32;
    Simdgroup& g = simdgroups[s];
    g = {s * 32, left < 32 ? left : 32, 0, 0, false, {}, nullptr, &simdgroups[order[(k + 1) % simdgroup_count]]};
    order_of(g.count, lanes, random);
    for (uint32_t i = 0; i < g.count; ++i) {
      arena->fibres[g.first + lanes[i]].next = &arena->fibres[g.first + lanes[(i + 1) % g.count]];
    }
    g.resume = &arena->fibres[g.first + lanes[0]];
  }
}

void run_threadgroup(const Launch& l, uint64_t index, uint32_t& random) {
  uint32_t group[3] = {uint32_t(index % l.count[0]), uint32_t(index / l.count[0] % l.count[1]),
                       uint32_t(index / l.count[0] / l.count[1])};
  uint32_t size[3];
  fibre_count = 1;
  for (int i = 0; i < 3; ++i) {  // at the grid's edge a threadgroup is smaller: MLX launches by threads
    uint32_t left = l.grid[i] - group[i] * l.threadgroup[i];
    size[i] = left < l.threadgroup[i] ? left : l.threadgroup[i];
    fibre_count *= size[i];
  }
  simdgroup_count = (fibre_count + 31) / 32;
  simdgroups_arrived = 0;
  array_count = array_bytes = 0;
  for (uint32_t i = 0; i < fibre_count; ++i) make_fibre(l, group, size, i);
  make_circles(random);
  on_threadgroup();
  the_statistics->threads += fibre_count;
  uint32_t start = the_options.order == REVERSE ? simdgroup_count - 1 : 0;
  Fibre* f = simdgroups[start].resume;
  current_thread = &f->thread;
  ++the_statistics->switches;
  switch_stacks(main_stack, f->stack, false);
  for (uint32_t i = 0; i < array_count; ++i) free(arrays[i].data - GAP);
}

}  // namespace

Exchange& exchange(uint32_t& lanes) {
  Simdgroup& g = group_of(running());
  lanes = g.count;
  return arena->exchanges[current_thread->simdgroup][g.parity];
}

bool meet(Operation operation, uint32_t detail, Place place) {
  if (!arrive({operation, detail, place})) return false;
  group_of(running()).parity ^= 1;  // lanes that have not read their result yet keep the other half
  return true;
}

void simdgroup_barrier(uint32_t flags, Place place) {
  if (arrive({SIMDGROUP_BARRIER, flags, place})) on_simdgroup_barrier(flags, current_thread->simdgroup);
}

void threadgroup_barrier(uint32_t flags, Place place) {
  if (arrive({THREADGROUP_BARRIER, flags, place}) && simdgroup_arrives(running())) on_barrier(flags);
}

void* threadgroup_array(int id, const char* name, uint32_t size, uint32_t align, Place place) {
  for (uint32_t i = 0; i < array_count; ++i) {
    if (arrays[i].id == id) return arrays[i].data;
  }
  array_bytes = (array_bytes + 15) / 16 * 16 + size;
  if (array_bytes > the_statistics->threadgroup_bytes) the_statistics->threadgroup_bytes = array_bytes;
  if (array_bytes > the_options.threadgroup_limit || array_count == MAX_ARRAYS) {
    char text[200];
    snprintf(text, sizeof text, "threadgroup memory: %u bytes with %s, the limit is %u", array_bytes, name,
             the_options.threadgroup_limit);
    fail(text, place);
  }
  void* room = nullptr;
  if (posix_memalign(&room, align < 16 ? 16 : align, size + 2 * GAP)) abort();
  char* data = static_cast<char*>(room) + GAP;
  memset(data, 0xFF, size);  // NaN, -1: on a GPU it would be whatever stood there
  arrays[array_count++] = {id, data};
  on_threadgroup_array(data, size, name);
  return data;
}

void describe_thread(char* text, size_t size) {
  const Thread& t = *current_thread;
  snprintf(text, size, "thread (%u, %u, %u) of threadgroup (%u, %u, %u)", t.position_in_threadgroup.x,
           t.position_in_threadgroup.y, t.position_in_threadgroup.z, t.threadgroup_position.x,
           t.threadgroup_position.y, t.threadgroup_position.z);
}

void stop(const char* text) {
  char who[160];
  describe_thread(who, sizeof who);
  snprintf(report, sizeof report, "%s\n  by %s", text, who);
  failed = true;
  leave();
}

void fail(const char* message, Place place) {
  char text[600];
  snprintf(text, sizeof text, "%s, %s:%d", message, place.file, place.line);
  stop(text);
}

bool is_private(const void* address) {
  const char* a = static_cast<const char*>(address);
  const char* fibres = reinterpret_cast<const char*>(arena);
  return (a >= stacks && a < stacks + STRIDE * fibre_count) || (a >= fibres && a < fibres + sizeof(Arena));
}

const char* run(Kernel kernel, void** buffers, const uint32_t* grid, const uint32_t* threadgroup,
                const Options& options, Statistics& statistics) {
  the_kernel = kernel;
  the_buffers = buffers;
  the_options = options;
  the_statistics = &statistics;
  statistics = {};
  failed = false;
  Launch l;
  uint64_t groups = 1;
  uint32_t threads = 1, random = options.seed * 2654435761u + 12345u;
  for (int i = 0; i < 3; ++i) {
    l.grid[i] = grid[i];
    l.threadgroup[i] = threadgroup[i] < grid[i] ? threadgroup[i] : grid[i];
    if (!l.threadgroup[i]) return "empty grid or threadgroup";
    l.count[i] = (grid[i] + l.threadgroup[i] - 1) / l.threadgroup[i];
    groups *= l.count[i];
    threads *= l.threadgroup[i];
  }
  if (threads > MAX_THREADS) return "more than 1024 threads in a threadgroup";
  size_t stack_bytes = STRIDE * threads;
  auto room = [](size_t n) {
    return mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  };
  stacks = static_cast<char*>(room(stack_bytes));
  arena = static_cast<Arena*>(room(sizeof(Arena)));
#if HOST_ASAN
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, const_cast<void**>(&main_stack.low), &main_stack.size);
  pthread_attr_destroy(&attributes);
#endif
  if (stacks == MAP_FAILED || arena == MAP_FAILED) return "out of memory for the threads' stacks";
  for (uint32_t i = 0; i < threads; ++i) mprotect(stacks + i * STRIDE, PAGE, PROT_NONE);
  uint64_t step = 1, start = 0;
  if (options.order == REVERSE) step = groups - 1, start = groups - 1;
  if (options.order == SHUFFLED) {  // a step without a common divisor visits all
    auto divisor = [](uint64_t a, uint64_t b) {
      while (b) {
        uint64_t r = a % b;
        a = b, b = r;
      }
      return a;
    };
    step = (random >> 4) % groups + 1;
    while (divisor(step, groups) != 1) ++step;
    start = random % groups;
  }
  for (uint64_t i = 0; i < groups && !failed; ++i) run_threadgroup(l, (start + i * step) % groups, random);
#if HOST_ASAN
  __asan_unpoison_memory_region(stacks, stack_bytes);
#endif
  munmap(stacks, stack_bytes);
  munmap(arena, sizeof(Arena));
  return failed ? report : nullptr;
}

}  // namespace host
