// vec<T, N> with Metal's size and alignment (3 elements take the room of 4), operators by element, packed vectors.
#pragma once
#include "types.h"

namespace metal {
template <class T, int N>
struct vec;
}

// Helpers of the shim are not in metal's namespace: a kernel may use their names.
namespace host {

// `v.xyz` and the like: a view of some elements of the union it stands in.
template <class T, int... I>
struct Swizzle {
  T data[4];
  operator metal::vec<T, sizeof...(I)>() const { return metal::vec<T, sizeof...(I)>(data[I]...); }
  Swizzle& operator=(const metal::vec<T, sizeof...(I)>& value) {
    int from = 0;
    ((data[I] = value[from++]), ...);
    return *this;
  }
};

// The type itself, where it must not take part in the deduction of T.
template <class T>
struct Given {
  using type = T;
};
template <class T>
using given = typename Given<T>::type;

// A swizzle takes part in expressions as the vector that it stands for.
template <class T>
struct IsSwizzle {
  static constexpr bool value = false;
};
template <class T, int... I>
struct IsSwizzle<Swizzle<T, I...>> {
  static constexpr bool value = true;
};
template <class A, class B>
using either_swizzle = metal::enable_if_t<IsSwizzle<A>::value || IsSwizzle<B>::value, int>;
template <class T>
inline T plain(const T& value) {
  return value;
}
template <class T, int... I>
inline metal::vec<T, sizeof...(I)> plain(const Swizzle<T, I...>& value) {
  return value;
}

}  // namespace host

namespace metal {

#define HOST_VECTOR_MEMBERS(N)                                  \
  vec() = default;                                              \
  vec(T all) {                                                  \
    for (int i = 0; i < N; ++i) data[i] = all;                  \
  }                                                             \
  template <class U>                                            \
  explicit vec(const vec<U, N>& other) {                        \
    for (int i = 0; i < N; ++i) data[i] = T(other.data[i]);     \
  }                                                             \
  T& operator[](int i) { return data[i]; }                      \
  const T& operator[](int i) const { return data[i]; }

template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  union {
    T data[2];
    struct {
      T x, y;
    };
  };
  HOST_VECTOR_MEMBERS(2)
  vec(T a, T b) : data{a, b} {}
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
  union {
    T data[4];
    struct {
      T x, y, z;
    };
    host::Swizzle<T, 0, 1> xy;
    host::Swizzle<T, 1, 2> yz;
  };
  HOST_VECTOR_MEMBERS(3)
  vec(T a, T b, T c) : data{a, b, c, T(0)} {}
  vec(const vec<T, 2>& ab, T c) : data{ab.x, ab.y, c, T(0)} {}
  vec(T a, const vec<T, 2>& bc) : data{a, bc.x, bc.y, T(0)} {}
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  union {
    T data[4];
    struct {
      T x, y, z, w;
    };
    host::Swizzle<T, 0, 1> xy;
    host::Swizzle<T, 1, 2> yz;
    host::Swizzle<T, 2, 3> zw;
    host::Swizzle<T, 0, 1, 2> xyz;
    host::Swizzle<T, 1, 2, 3> yzw;
  };
  HOST_VECTOR_MEMBERS(4)
  vec(T a, T b, T c, T d) : data{a, b, c, d} {}
  vec(const vec<T, 2>& ab, const vec<T, 2>& cd) : data{ab.x, ab.y, cd.x, cd.y} {}
  vec(const vec<T, 2>& ab, T c, T d) : data{ab.x, ab.y, c, d} {}
  vec(T a, const vec<T, 2>& bc, T d) : data{a, bc.x, bc.y, d} {}
  vec(T a, T b, const vec<T, 2>& cd) : data{a, b, cd.x, cd.y} {}
  vec(const vec<T, 3>& abc, T d) : data{abc.x, abc.y, abc.z, d} {}
  vec(T a, const vec<T, 3>& bcd) : data{a, bcd.x, bcd.y, bcd.z} {}
};
#undef HOST_VECTOR_MEMBERS

#define HOST_BINARY(OP, RESULT)                                                    \
  template <class T, int N>                                                        \
  inline vec<RESULT, N> operator OP(const vec<T, N>& a, const vec<T, N>& b) {      \
    vec<RESULT, N> r;                                                              \
    for (int i = 0; i < N; ++i) r[i] = RESULT(a[i] OP b[i]);                       \
    return r;                                                                      \
  }                                                                                \
  template <class T, int N>                                                        \
  inline vec<RESULT, N> operator OP(const vec<T, N>& a, host::given<T> b) {              \
    return a OP vec<T, N>(b);                                                      \
  }                                                                                \
  template <class T, int N>                                                        \
  inline vec<RESULT, N> operator OP(host::given<T> a, const vec<T, N>& b) {              \
    return vec<T, N>(a) OP b;                                                      \
  }                                                                                \
  template <class A, class B, host::either_swizzle<A, B> = 0>                         \
  inline auto operator OP(const A& a, const B& b) {                                \
    return host::plain(a) OP host::plain(b);                                       \
  }
#define HOST_ARITHMETIC(OP)                                                        \
  HOST_BINARY(OP, T)                                                               \
  template <class T, int N>                                                        \
  inline vec<T, N>& operator OP##=(vec<T, N>& a, const vec<T, N>& b) {             \
    return a = a OP b;                                                             \
  }                                                                                \
  template <class T, int N>                                                        \
  inline vec<T, N>& operator OP##=(vec<T, N>& a, host::given<T> b) {                     \
    return a = a OP b;                                                             \
  }
HOST_ARITHMETIC(+)
HOST_ARITHMETIC(-)
HOST_ARITHMETIC(*)
HOST_ARITHMETIC(/)
HOST_ARITHMETIC(%)
HOST_ARITHMETIC(&)
HOST_ARITHMETIC(|)
HOST_ARITHMETIC(^)
HOST_ARITHMETIC(<<)
HOST_ARITHMETIC(>>)
HOST_BINARY(==, bool)
HOST_BINARY(!=, bool)
HOST_BINARY(<, bool)
HOST_BINARY(<=, bool)
HOST_BINARY(>, bool)
HOST_BINARY(>=, bool)
HOST_BINARY(&&, bool)
HOST_BINARY(||, bool)
#undef HOST_ARITHMETIC
#undef HOST_BINARY

#define HOST_UNARY(OP)                                  \
  template <class T, int N>                             \
  inline vec<T, N> operator OP(const vec<T, N>& a) {    \
    vec<T, N> r;                                        \
    for (int i = 0; i < N; ++i) r[i] = T(OP a[i]);      \
    return r;                                           \
  }
HOST_UNARY(-)
HOST_UNARY(~)
HOST_UNARY(!)
#undef HOST_UNARY

// No alignment beyond the element's; converts from and to vec.
template <class T, int N>
struct packed_vec {
  T data[N];
  packed_vec() = default;
  packed_vec(const vec<T, N>& value) {
    for (int i = 0; i < N; ++i) data[i] = value[i];
  }
  operator vec<T, N>() const {
    vec<T, N> value;
    for (int i = 0; i < N; ++i) value[i] = data[i];
    return value;
  }
  T& operator[](int i) { return data[i]; }
  const T& operator[](int i) const { return data[i]; }
};

}  // namespace metal

using metal::vec;
#define HOST_NAMES(T)                          \
  using T##2 = metal::vec<T, 2>;               \
  using T##3 = metal::vec<T, 3>;               \
  using T##4 = metal::vec<T, 4>;               \
  using packed_##T##2 = metal::packed_vec<T, 2>; \
  using packed_##T##3 = metal::packed_vec<T, 3>; \
  using packed_##T##4 = metal::packed_vec<T, 4>;
HOST_NAMES(float)
HOST_NAMES(half)
HOST_NAMES(bfloat)
HOST_NAMES(bool)
HOST_NAMES(char)
HOST_NAMES(uchar)
HOST_NAMES(short)
HOST_NAMES(ushort)
HOST_NAMES(int)
HOST_NAMES(uint)
HOST_NAMES(long)
HOST_NAMES(ulong)
#undef HOST_NAMES
