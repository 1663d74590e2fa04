// 8x8 matrices whose elements are spread over a simdgroup, two a lane, in the layout of Apple's GPUs:
// lane bits (4, 2, 1) are the row, bits (3, 0) choose the pair of columns.
#pragma once
#include "simdgroup.h"

namespace host {

struct MatrixPlace {
  uint row, column;  // of the lane's first element; the second is in the next column
};
inline MatrixPlace matrix_place(uint lane) {
  return {(lane >> 4 & 1) * 4 + (lane >> 1 & 3), (lane >> 3 & 1) * 4 + (lane & 1) * 2};
}
inline MatrixPlace matrix_place() { return matrix_place(self().lane); }

// Element (r, c) is at p[(origin.y + r) * elements_per_row + origin.x + c], rows and columns swapped if transposed.
template <class P>
inline P* matrix_element(P* p, ulong elements_per_row, ulong2 origin, bool transpose, uint k) {
  MatrixPlace at = matrix_place();
  uint row = transpose ? at.column + k : at.row, column = transpose ? at.row : at.column + k;
  return p + (origin.y + row) * elements_per_row + origin.x + column;
}
template <class A, class B, class C>
struct Factors {
  metal::vec<A, 2> a;
  metal::vec<B, 2> b;
  metal::vec<C, 2> c;
};

}  // namespace host

namespace metal {

template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "only 8x8");
  using storage_type = vec<T, 2>;
  storage_type elements;
  simdgroup_matrix() = default;
  // A diagonal matrix.
  explicit simdgroup_matrix(T diagonal) {
    host::MatrixPlace at = host::matrix_place();
    for (uint k = 0; k < 2; ++k) elements[k] = at.row == at.column + k ? diagonal : T(0);
  }
  storage_type& thread_elements() { return elements; }
  const storage_type& thread_elements() const { return elements; }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int Columns, int Rows>
inline simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, Columns, Rows> m;
  m.elements = vec<T, 2>(value);
  return m;
}

template <class T>
inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, const T* p, ulong elements_per_row = 8,
                           ulong2 origin = ulong2(0), bool transpose = false) {
  for (uint k = 0; k < 2; ++k) m.elements[k] = *host::matrix_element(p, elements_per_row, origin, transpose, k);
}
template <class T>
inline void simdgroup_store(simdgroup_matrix<T, 8, 8> m, T* p, ulong elements_per_row = 8, ulong2 origin = ulong2(0),
                            bool transpose = false) {
  for (uint k = 0; k < 2; ++k) *host::matrix_element(p, elements_per_row, origin, transpose, k) = m.elements[k];
}

// d = a b + c, accumulated in float.
template <class D, class A, class B, class C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                          simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c, HOST_PLACE) {
  using In = host::Factors<A, B, C>;
  auto combine = [place](In* in, vec<D, 2>* out, uint lanes) HOST_UNCHECKED_LAMBDA {
    if (lanes != 32) host::fail("simdgroup_matrix needs all 32 lanes", place);
    float left[8][8], right[8][8], sum[8][8];
    for (uint lane = 0; lane < 32; ++lane) {
      host::MatrixPlace at = host::matrix_place(lane);
      for (uint k = 0; k < 2; ++k) {
        left[at.row][at.column + k] = float(in[lane].a.data[k]);
        right[at.row][at.column + k] = float(in[lane].b.data[k]);
        sum[at.row][at.column + k] = float(in[lane].c.data[k]);
      }
    }
    for (uint i = 0; i < 8; ++i)
      for (uint k = 0; k < 8; ++k)
        for (uint j = 0; j < 8; ++j) sum[i][j] = __builtin_fmaf(left[i][k], right[k][j], sum[i][j]);
    for (uint lane = 0; lane < 32; ++lane) {
      host::MatrixPlace at = host::matrix_place(lane);
      for (uint k = 0; k < 2; ++k) out[lane].data[k] = D(sum[at.row][at.column + k]);
    }
  };
  const In mine = {a.elements, b.elements, c.elements};
  d.elements = host::collective<In, vec<D, 2>>(mine, host::MATRIX_MULTIPLY, 0, place, combine);
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b,
                               HOST_PLACE) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0)), place);
}

}  // namespace metal
