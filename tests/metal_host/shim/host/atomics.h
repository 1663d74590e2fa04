// Atomics, relaxed as in Metal.  Threads do not run at the same time here, so plain reads and writes do.
#pragma once
#include "simdgroup.h"

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

// The old value; f(old) takes its place.
template <class T, class F>
HOST_UNCHECKED T atomic_modify(volatile atomic<T>* p, F f) {
  host::check_atomic(p, sizeof(T));
  T old = p->value;
  p->value = f(old);
  return old;
}

template <class T>
inline T atomic_load_explicit(const volatile atomic<T>* p, memory_order) {
  return atomic_modify(const_cast<volatile atomic<T>*>(p), [](T old) { return old; });
}
#define HOST_ATOMIC(NAME, RESULT, VALUE)                                              \
  template <class T>                                                                  \
  inline RESULT atomic_##NAME##_explicit(volatile atomic<T>* p, given<T> x, memory_order) { \
    return RESULT(atomic_modify(p, [x](T old) { return T(VALUE); }));                 \
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
inline bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* p, T* expected, given<T> desired, memory_order,
                                                  memory_order) {
  T wanted = *expected;
  *expected = atomic_modify(p, [wanted, desired](T old) { return old == wanted ? desired : old; });
  return *expected == wanted;
}

}  // namespace metal
