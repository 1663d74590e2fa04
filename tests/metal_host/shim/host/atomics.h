// Atomics, relaxed as in Metal.
#pragma once
#include "vectors.h"

namespace metal {

enum memory_order { memory_order_relaxed };

template <class T>
struct atomic {
  T value;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;
typedef atomic<bool> atomic_bool;
typedef atomic<ulong> atomic_ulong;

}  // namespace metal

namespace host {

// The old value; f(old) takes its place.
template <class T, class F>
METAL_FUNC T atomic_modify(volatile metal::atomic<T>* p, F f) {
  check_atomic(p, sizeof(T));
  T old, changed;  // the check of plain accesses does not see these
  __atomic_load(&p->value, &old, __ATOMIC_RELAXED);
  do {
    changed = f(old);
  } while (!__atomic_compare_exchange(&p->value, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace host

namespace metal {

template <class T>
METAL_FUNC T atomic_load_explicit(const volatile atomic<T>* p, memory_order) {
  return host::atomic_modify(const_cast<volatile atomic<T>*>(p), [](T old) { return old; });
}
#define HOST_ATOMIC(NAME, RESULT, VALUE)                                              \
  template <class T>                                                                  \
  METAL_FUNC RESULT atomic_##NAME##_explicit(volatile atomic<T>* p, host::given<T> x, memory_order) { \
    return RESULT(host::atomic_modify(p, [x](T old) { return T(VALUE); }));                 \
  }
HOST_ATOMIC(exchange, T, ((void)old, x))
HOST_ATOMIC(store, void, ((void)old, x))
HOST_ATOMIC(fetch_add, T, old + x)
HOST_ATOMIC(fetch_sub, T, old - x)
HOST_ATOMIC(fetch_max, T, old > x ? old : x)
HOST_ATOMIC(fetch_min, T, old < x ? old : x)
HOST_ATOMIC(fetch_or, T, old | x)
HOST_ATOMIC(fetch_and, T, old & x)
HOST_ATOMIC(fetch_xor, T, old ^ x)
#undef HOST_ATOMIC

template <class T>
METAL_FUNC bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* p, T* expected, host::given<T> desired,
                                                      memory_order, memory_order) {
  T wanted = *expected;
  *expected = host::atomic_modify(p, [wanted, desired](T old) { return old == wanted ? desired : old; });
  return *expected == wanted;
}

}  // namespace metal
