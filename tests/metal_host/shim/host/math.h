// Mathematical functions.  16-bit arguments compute in float and round once; fast:: and precise:: are the same here.
#pragma once
#include "vectors.h"

#ifndef HOST_LIBM
#define HOST_LIBM(NAME) __builtin_##NAME
#endif

namespace metal {

#define HOST_BY_ELEMENT(NAME)                                \
  template <class T, int N>                                  \
  inline vec<T, N> NAME(const vec<T, N>& v) {                \
    vec<T, N> r;                                             \
    for (int i = 0; i < N; ++i) r[i] = NAME(v[i]);           \
    return r;                                                \
  }
#define HOST_UNARY(NAME, VALUE)                              \
  inline float NAME(float x) { return VALUE; }               \
  inline half NAME(half x) { return half(NAME(float(x))); }  \
  inline bfloat NAME(bfloat x) { return bfloat(NAME(float(x))); } \
  HOST_BY_ELEMENT(NAME)
#define HOST_BINARY(NAME, VALUE)                                                         \
  inline float NAME(float x, float y) { return VALUE; }                                  \
  inline half NAME(half x, half y) { return half(NAME(float(x), float(y))); }            \
  inline bfloat NAME(bfloat x, bfloat y) { return bfloat(NAME(float(x), float(y))); }
#define HOST_FUNCTIONS                                    \
  HOST_UNARY(exp, HOST_LIBM(expf)(x))                      \
  HOST_UNARY(exp2, HOST_LIBM(exp2f)(x))                    \
  HOST_UNARY(exp10, HOST_LIBM(powf)(10.0f, x))             \
  HOST_UNARY(log, HOST_LIBM(logf)(x))                      \
  HOST_UNARY(log2, HOST_LIBM(log2f)(x))                    \
  HOST_UNARY(log10, HOST_LIBM(log10f)(x))                  \
  HOST_UNARY(sqrt, HOST_LIBM(sqrtf)(x))                    \
  HOST_UNARY(rsqrt, 1.0f / HOST_LIBM(sqrtf)(x))            \
  HOST_UNARY(sin, HOST_LIBM(sinf)(x))                      \
  HOST_UNARY(cos, HOST_LIBM(cosf)(x))                      \
  HOST_UNARY(tan, HOST_LIBM(tanf)(x))                      \
  HOST_UNARY(tanh, HOST_LIBM(tanhf)(x))                    \
  HOST_UNARY(sinh, HOST_LIBM(sinhf)(x))                    \
  HOST_UNARY(cosh, HOST_LIBM(coshf)(x))                    \
  HOST_UNARY(atan, HOST_LIBM(atanf)(x))                    \
  HOST_UNARY(floor, HOST_LIBM(floorf)(x))                  \
  HOST_UNARY(ceil, HOST_LIBM(ceilf)(x))                    \
  HOST_UNARY(round, HOST_LIBM(roundf)(x))                  \
  HOST_UNARY(rint, HOST_LIBM(rintf)(x))                    \
  HOST_UNARY(trunc, HOST_LIBM(truncf)(x))                  \
  HOST_UNARY(fract, x - HOST_LIBM(floorf)(x))              \
  HOST_UNARY(fabs, HOST_LIBM(fabsf)(x))                    \
  HOST_UNARY(saturate, HOST_LIBM(fminf)(HOST_LIBM(fmaxf)(x, 0.0f), 1.0f)) \
  HOST_BINARY(pow, HOST_LIBM(powf)(x, y))                  \
  HOST_BINARY(powr, HOST_LIBM(powf)(x, y))                 \
  HOST_BINARY(fmod, HOST_LIBM(fmodf)(x, y))                \
  HOST_BINARY(divide, x / y)

HOST_FUNCTIONS

// Overloads on concrete types, as in Metal: max(int, uint) is ambiguous and must not compile.
#define HOST_ORDER(T)                                                    \
  inline T max(T a, T b) { return a > b ? a : b; }                       \
  inline T min(T a, T b) { return a < b ? a : b; }                       \
  inline T clamp(T x, T low, T high) { return min(max(x, low), high); }
HOST_ORDER(int)
HOST_ORDER(uint)
HOST_ORDER(short)
HOST_ORDER(ushort)
HOST_ORDER(char)
HOST_ORDER(signed char)
HOST_ORDER(uchar)
HOST_ORDER(long)
HOST_ORDER(ulong)
#undef HOST_ORDER
#define HOST_ORDER(T)                                                                \
  inline T max(T a, T b) { return T(HOST_LIBM(fmaxf)(float(a), float(b))); }          \
  inline T min(T a, T b) { return T(HOST_LIBM(fminf)(float(a), float(b))); }          \
  inline T fmax(T a, T b) { return max(a, b); }                                      \
  inline T fmin(T a, T b) { return min(a, b); }                                      \
  inline T clamp(T x, T low, T high) { return min(max(x, low), high); }              \
  inline T mix(T a, T b, T t) { return T(a + (b - a) * t); }                         \
  inline T sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0); }           \
  inline T copysign(T x, T y) { return T(HOST_LIBM(copysignf)(float(x), float(y))); } \
  inline T fma(T a, T b, T c) { return T(HOST_LIBM(fmaf)(float(a), float(b), float(c))); } \
  inline bool isnan(T x) { return x != x; }                                          \
  inline bool isinf(T x) { return __builtin_isinf(float(x)); }                       \
  inline bool isfinite(T x) { return __builtin_isfinite(float(x)); }
HOST_ORDER(float)
HOST_ORDER(half)
HOST_ORDER(bfloat)
#undef HOST_ORDER

#define HOST_VECTOR_BINARY(NAME)                                                \
  template <class T, int N>                                                     \
  inline vec<T, N> NAME(const vec<T, N>& a, const vec<T, N>& b) {               \
    vec<T, N> r;                                                                \
    for (int i = 0; i < N; ++i) r[i] = NAME(a[i], b[i]);                        \
    return r;                                                                   \
  }                                                                             \
  template <class T, int N>                                                     \
  inline vec<T, N> NAME(const vec<T, N>& a, host::given<T> b) {                       \
    return NAME(a, vec<T, N>(b));                                               \
  }
HOST_VECTOR_BINARY(max)
HOST_VECTOR_BINARY(min)
HOST_VECTOR_BINARY(fmax)
HOST_VECTOR_BINARY(fmin)
#undef HOST_VECTOR_BINARY

template <class T, int N>
inline vec<T, N> fma(const vec<T, N>& a, const vec<T, N>& b, const vec<T, N>& c) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = fma(a[i], b[i], c[i]);
  return r;
}
template <class T, int N>
inline vec<T, N> clamp(const vec<T, N>& x, host::given<vec<T, N>> low, host::given<vec<T, N>> high) {
  return min(max(x, low), high);
}

namespace fast {
HOST_FUNCTIONS
using metal::clamp;
using metal::fma;
using metal::fmax;
using metal::fmin;
using metal::max;
using metal::min;
}  // namespace fast
namespace precise {
HOST_FUNCTIONS
using metal::clamp;
using metal::fma;
using metal::fmax;
using metal::fmin;
using metal::max;
using metal::min;
}  // namespace precise
#undef HOST_FUNCTIONS
#undef HOST_UNARY
#undef HOST_BINARY

template <class T>
inline T abs(T x) {
  return x < T(0) ? T(-x) : x;
}
HOST_BY_ELEMENT(abs)

template <class T>
inline T select(T otherwise, T when, bool condition) {
  return condition ? when : otherwise;
}
template <class T, int N>
inline vec<T, N> select(const vec<T, N>& otherwise, const vec<T, N>& when, const vec<bool, N>& condition) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = condition[i] ? when[i] : otherwise[i];
  return r;
}
template <int N>
inline bool any(const vec<bool, N>& v) {
  bool found = false;
  for (int i = 0; i < N; ++i) found |= v[i];
  return found;
}
template <int N>
inline bool all(const vec<bool, N>& v) {
  return !any(!v);
}
template <class T, int N>
inline T dot(const vec<T, N>& a, const vec<T, N>& b) {
  T sum = T(a[0] * b[0]);
  for (int i = 1; i < N; ++i) sum = T(sum + a[i] * b[i]);
  return sum;
}
template <class A, class B, host::either_swizzle<A, B> = 0>
inline auto dot(const A& a, const B& b) {
  return dot(host::plain(a), host::plain(b));
}

#define HOST_BITS(T, U, WIDTH)                                                             \
  inline T popcount(T x) { return T(__builtin_popcountll((unsigned long long)(U)x)); }     \
  inline T ctz(T x) { return x ? T(__builtin_ctzll((unsigned long long)(U)x)) : T(WIDTH); } \
  inline T clz(T x) { return x ? T(__builtin_clzll((unsigned long long)(U)x) - (64 - WIDTH)) : T(WIDTH); }
HOST_BITS(int, uint, 32)
HOST_BITS(uint, uint, 32)
HOST_BITS(short, ushort, 16)
HOST_BITS(ushort, ushort, 16)
HOST_BITS(uchar, uchar, 8)
HOST_BITS(long, ulong, 64)
HOST_BITS(ulong, ulong, 64)
#undef HOST_BITS
inline uint reverse_bits(uint x) { return __builtin_bitreverse32(x); }
inline uint extract_bits(uint x, uint offset, uint bits) {
  return bits ? (x << (32 - bits - offset)) >> (32 - bits) : 0;
}
inline uint mulhi(uint a, uint b) { return uint((ulong(a) * b) >> 32); }

HOST_BY_ELEMENT(popcount)
#undef HOST_BY_ELEMENT

}  // namespace metal
