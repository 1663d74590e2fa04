// Scalar types, as_type and the few type traits that kernels use; no header of the C++ library (it doubles the
// time of a compilation).
#pragma once
#include <stddef.h>
#include <stdint.h>

#define METAL_FUNC inline __attribute__((always_inline))

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;
#ifndef HOST_BFLOAT
#define HOST_BFLOAT __bf16
#endif
typedef HOST_BFLOAT bfloat;

// The names MLX's own header gives them.
typedef half float16_t;
typedef bfloat bfloat16_t;

#ifndef INFINITY
#define INFINITY __builtin_inff()
#endif
#ifndef NAN
#define NAN __builtin_nanf("")
#endif
#define FLT_MAX __FLT_MAX__
#define M_PI_F 3.14159265358979323846f
#define M_LN2_F 0.69314718055994530942f
#define M_LOG2E_F 1.44269504088896340736f
#define FLT_MIN __FLT_MIN__
#define FLT_EPSILON __FLT_EPSILON__
#define HALF_MAX half(65504.0f)
#define INT_MAX __INT_MAX__
#define UINT_MAX (__INT_MAX__ * 2u + 1u)

template <class T, class U>
inline T as_type(const U& value) {
  static_assert(sizeof(T) == sizeof(U), "as_type: sizes differ");
  return __builtin_bit_cast(T, value);
}

namespace metal {
using ::as_type;

template <bool B, class T, class F>
struct conditional {
  using type = T;
};
template <class T, class F>
struct conditional<false, T, F> {
  using type = F;
};
template <bool B, class T, class F>
using conditional_t = typename conditional<B, T, F>::type;

template <bool B, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  using type = T;
};
template <bool B, class T = void>
using enable_if_t = typename enable_if<B, T>::type;

template <class T, T V>
struct integral_constant {
  static constexpr T value = V;
  constexpr operator T() const { return V; }
};
using true_type = integral_constant<bool, true>;
using false_type = integral_constant<bool, false>;

template <class T, class U>
constexpr bool is_same_v = __is_same(T, U);
template <class T, class U>
struct is_same : integral_constant<bool, is_same_v<T, U>> {};
template <class T>
constexpr bool is_floating_point_v = is_same_v<T, float> || is_same_v<T, half> || is_same_v<T, bfloat>;
template <class T>
constexpr bool is_integral_v = __is_integral(T);

template <class T>
struct numeric_limits;
#define HOST_LIMITS(T, LOWEST, SMALLEST, LARGEST)                 \
  template <>                                                     \
  struct numeric_limits<T> {                                      \
    static constexpr T lowest() { return static_cast<T>(LOWEST); } \
    static constexpr T min() { return static_cast<T>(SMALLEST); }  \
    static constexpr T max() { return static_cast<T>(LARGEST); }   \
    static constexpr T infinity() { return static_cast<T>(__builtin_inff()); } \
  };
HOST_LIMITS(float, -__FLT_MAX__, __FLT_MIN__, __FLT_MAX__)
HOST_LIMITS(half, -65504.0f, 6.103515625e-05f, 65504.0f)
HOST_LIMITS(bfloat, -3.38953139e38f, 1.17549435e-38f, 3.38953139e38f)
#undef HOST_LIMITS
#define HOST_LIMITS(T, LOWEST, LARGEST)                   \
  template <>                                             \
  struct numeric_limits<T> {                              \
    static constexpr T lowest() { return LOWEST; }        \
    static constexpr T min() { return LOWEST; }           \
    static constexpr T max() { return LARGEST; }          \
  };
HOST_LIMITS(signed char, -128, 127)
HOST_LIMITS(uchar, 0, 255)
HOST_LIMITS(short, -32768, 32767)
HOST_LIMITS(ushort, 0, 65535)
HOST_LIMITS(int, -__INT_MAX__ - 1, __INT_MAX__)
HOST_LIMITS(uint, 0, __INT_MAX__ * 2u + 1u)
HOST_LIMITS(long, -__LONG_MAX__ - 1, __LONG_MAX__)
HOST_LIMITS(ulong, 0, __LONG_MAX__ * 2ul + 1ul)
#undef HOST_LIMITS
}  // namespace metal
