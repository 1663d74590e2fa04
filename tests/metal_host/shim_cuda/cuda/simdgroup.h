// Barriers and operations across the lanes of a warp.  All 32 lanes take part, which kernels promise to Metal too.
#pragma once

namespace host {

constexpr uint ALL = 0xffffffffu;

// The value of lane `source`, any type whose size is a multiple of 2.
template <class T>
inline T take(T value, uint source) {
  constexpr int words = (sizeof(T) + 3) / 4;
  union {
    int word[words];
    unsigned char bytes[4 * words];
  } parts = {};
  __builtin_memcpy(parts.bytes, &value, sizeof(T));
  for (int i = 0; i < words; ++i) parts.word[i] = __nvvm_shfl_sync_idx_i32(int(ALL), parts.word[i], int(source), 31);
  __builtin_memcpy(&value, parts.bytes, sizeof(T));
  return value;
}

template <class T, class F>
inline T reduce(T value, F f) {
  for (uint step = 16; step; step >>= 1) value = f(value, take(value, self().lane ^ step));
  return value;
}

}  // namespace host

namespace metal {

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }

inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
inline void simdgroup_barrier(mem_flags) { __nvvm_bar_warp_sync(host::ALL); }

#define CUDA_REDUCE(NAME, VALUE)                                          \
  template <class T>                                                      \
  inline T NAME(T value) {                                                \
    return host::reduce(value, [](T a, T b) { return T(VALUE); });        \
  }
CUDA_REDUCE(simd_sum, a + b)
CUDA_REDUCE(simd_product, a * b)
CUDA_REDUCE(simd_max, max(a, b))
CUDA_REDUCE(simd_min, min(a, b))
CUDA_REDUCE(simd_and, a & b)
CUDA_REDUCE(simd_or, a | b)
CUDA_REDUCE(simd_xor, a ^ b)
#undef CUDA_REDUCE

template <class T>
inline T simd_prefix_inclusive_sum(T value) {
  uint lane = host::self().lane;
  for (uint step = 1; step < 32; step <<= 1) {
    T below = host::take(value, lane >= step ? lane - step : lane);
    value = lane >= step ? T(value + below) : value;
  }
  return value;
}
template <class T>
inline T simd_prefix_exclusive_sum(T value) {
  uint lane = host::self().lane;
  T below = host::take(simd_prefix_inclusive_sum(value), lane ? lane - 1 : 0);
  return lane ? below : T(0);
}

#define CUDA_SHUFFLE(NAME, SOURCE)                   \
  template <class T>                                 \
  inline T NAME(T value, ushort n) {                 \
    uint lane = host::self().lane;                   \
    (void)lane;                                      \
    return host::take(value, SOURCE);                \
  }
CUDA_SHUFFLE(simd_shuffle, n)
CUDA_SHUFFLE(simd_broadcast, n)
CUDA_SHUFFLE(simd_shuffle_xor, lane ^ n)
CUDA_SHUFFLE(simd_shuffle_down, lane + n < 32 ? lane + n : lane)
CUDA_SHUFFLE(simd_shuffle_up, lane >= n ? lane - n : lane)
CUDA_SHUFFLE(simd_shuffle_rotate_down, (lane + n) & 31)
CUDA_SHUFFLE(simd_shuffle_rotate_up, (lane - n) & 31)
CUDA_SHUFFLE(quad_shuffle_xor, lane ^ (n & 3))
CUDA_SHUFFLE(quad_broadcast, (lane & ~3u) + (n & 3))
#undef CUDA_SHUFFLE
template <class T>
inline T simd_broadcast_first(T value) {
  return host::take(value, 0);
}

struct simd_vote {
  typedef ulong vote_t;
  vote_t bits;
  explicit simd_vote(vote_t value) : bits(value) {}
  explicit operator vote_t() const { return bits; }
};
inline simd_vote simd_ballot(bool value) { return simd_vote(uint(__nvvm_vote_ballot_sync(host::ALL, value))); }
inline bool simd_any(bool value) { return simd_ballot(value).bits != 0; }
inline bool simd_all(bool value) { return simd_ballot(!value).bits == 0; }
inline bool simd_is_first() { return host::self().lane == 0; }

}  // namespace metal
