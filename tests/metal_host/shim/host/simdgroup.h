// Barriers and operations across the lanes of a simdgroup.  Each is one meeting of all lanes; the last to come
// computes the result for all.
#pragma once
#include "math.h"

#define HOST_PLACE host::Place place = host::Place::here()
// The exchange's memory is the harness's own: not for the check of races.
#define HOST_UNCHECKED __attribute__((noinline, no_sanitize("thread")))
#define HOST_UNCHECKED_LAMBDA __attribute__((no_sanitize("thread")))

namespace host {

// Every lane brings `value`; combine(in, out, lanes) fills out[lane] for all of them, once.
template <class In, class Out, class Combine>
HOST_UNCHECKED Out collective(In value, Operation operation, uint detail, Place place, Combine combine) {
  static_assert(sizeof(In) <= MAX_PAYLOAD && sizeof(Out) <= MAX_PAYLOAD, "too large for a simd operation");
  uint lanes, lane = self().lane;
  Exchange& place_of_meeting = exchange(lanes);
  In* in = reinterpret_cast<In*>(place_of_meeting.in);
  Out* out = reinterpret_cast<Out*>(place_of_meeting.out);
  in[lane] = value;
  if (meet(operation, detail, place)) combine(in, out, lanes);
  return out[lane];
}

template <class T, class F>
inline T reduce(T value, uint detail, Place place, F f) {
  auto combine = [f](T* in, T* out, uint lanes) HOST_UNCHECKED_LAMBDA {
    for (uint step = 16; step; step >>= 1) {
      for (uint i = 0; i < step; ++i) {
        if (i + step < lanes) in[i] = f(in[i], in[i + step]);
      }
    }
    for (uint i = 0; i < lanes; ++i) out[i] = in[0];
  };
  return collective<T, T>(value, SIMD_REDUCE, detail, place, combine);
}

template <class T>
inline T scan(T value, bool inclusive, Place place) {
  auto combine = [inclusive](T* in, T* out, uint lanes) HOST_UNCHECKED_LAMBDA {
    T sum = T(0);
    for (uint i = 0; i < lanes; ++i) {
      T before = sum;
      sum = T(sum + in[i]);
      out[i] = inclusive ? sum : before;
    }
  };
  return collective<T, T>(value, SIMD_SCAN, inclusive, place, combine);
}

// Lane i gets the value of the lane that it names; `source` may differ from lane to lane.
template <class T>
struct Wanted {
  T value;
  uint source;
};
template <class T>
inline T take(T value, uint source, uint detail, Place place) {
  auto combine = [place](Wanted<T>* in, T* out, uint lanes) HOST_UNCHECKED_LAMBDA {
    for (uint i = 0; i < lanes; ++i) {
      if (in[i].source >= lanes) fail("a shuffle reads a lane that does not exist", place);
      out[i] = in[in[i].source].value;
    }
  };
  return collective<Wanted<T>, T>({value, source}, SIMD_SHUFFLE, detail, place, combine);
}

}  // namespace host

namespace metal {

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }

inline void threadgroup_barrier(mem_flags flags, HOST_PLACE) { host::threadgroup_barrier(uint(flags), place); }
inline void simdgroup_barrier(mem_flags flags, HOST_PLACE) { host::simdgroup_barrier(uint(flags), place); }

#define HOST_REDUCE(NAME, DETAIL, VALUE)                                                                  \
  template <class T>                                                                                      \
  inline T NAME(T value, HOST_PLACE) {                                                                    \
    return host::reduce(value, DETAIL, place, [](T a, T b) HOST_UNCHECKED_LAMBDA { return T(VALUE); });   \
  }
HOST_REDUCE(simd_sum, 1, a + b)
HOST_REDUCE(simd_product, 2, a * b)
HOST_REDUCE(simd_max, 3, max(a, b))
HOST_REDUCE(simd_min, 4, min(a, b))
HOST_REDUCE(simd_and, 5, a & b)
HOST_REDUCE(simd_or, 6, a | b)
HOST_REDUCE(simd_xor, 7, a ^ b)
#undef HOST_REDUCE

template <class T>
inline T simd_prefix_inclusive_sum(T value, HOST_PLACE) {
  return host::scan(value, true, place);
}
template <class T>
inline T simd_prefix_exclusive_sum(T value, HOST_PLACE) {
  return host::scan(value, false, place);
}

template <class T>
inline T simd_shuffle(T value, ushort lane, HOST_PLACE) {
  return host::take(value, lane, 1, place);
}
template <class T>
inline T simd_broadcast(T value, ushort lane, HOST_PLACE) {
  return host::take(value, lane, 2, place);
}
template <class T>
inline T simd_broadcast_first(T value, HOST_PLACE) {
  return host::take(value, 0, 3, place);
}
template <class T>
inline T simd_shuffle_xor(T value, ushort mask, HOST_PLACE) {
  return host::take(value, host::self().lane ^ mask, 4, place);
}
// Lanes without a source keep their value.  (On hardware it is undefined.)
template <class T>
inline T simd_shuffle_down(T value, ushort delta, HOST_PLACE) {
  uint lane = host::self().lane, lanes;
  host::exchange(lanes);
  return host::take(value, lane + delta < lanes ? lane + delta : lane, 5, place);
}
template <class T>
inline T simd_shuffle_up(T value, ushort delta, HOST_PLACE) {
  uint lane = host::self().lane;
  return host::take(value, lane >= delta ? lane - delta : lane, 6, place);
}
template <class T>
inline T simd_shuffle_rotate_down(T value, ushort delta, HOST_PLACE) {
  return host::take(value, (host::self().lane + delta) & 31, 7, place);
}
template <class T>
inline T simd_shuffle_rotate_up(T value, ushort delta, HOST_PLACE) {
  return host::take(value, (host::self().lane - delta) & 31, 8, place);
}
// Within quads of four lanes; as meetings of the whole simdgroup.
template <class T>
inline T quad_shuffle_xor(T value, ushort mask, HOST_PLACE) {
  return host::take(value, host::self().lane ^ (mask & 3), 9, place);
}
template <class T>
inline T quad_broadcast(T value, ushort lane, HOST_PLACE) {
  return host::take(value, (host::self().lane & ~3u) + (lane & 3), 10, place);
}

struct simd_vote {
  typedef ulong vote_t;
  vote_t bits;
  explicit simd_vote(vote_t value) : bits(value) {}
  explicit operator vote_t() const { return bits; }
  bool any() const { return bits != 0; }
};
inline simd_vote simd_ballot(bool value, HOST_PLACE) {
  auto combine = [](bool* in, ulong* out, uint lanes) HOST_UNCHECKED_LAMBDA {
    ulong bits = 0;
    for (uint i = 0; i < lanes; ++i) bits |= ulong(in[i]) << i;
    for (uint i = 0; i < lanes; ++i) out[i] = bits;
  };
  return simd_vote(host::collective<bool, ulong>(value, host::SIMD_VOTE, 1, place, combine));
}
inline bool simd_any(bool value, HOST_PLACE) { return simd_ballot(value, place).bits != 0; }
inline bool simd_all(bool value, HOST_PLACE) { return simd_ballot(!value, place).bits == 0; }
inline bool simd_is_first() { return host::self().lane == 0; }

}  // namespace metal
