// 8x8 matrices whose elements are spread over a simdgroup.
#pragma once

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
  d.elements = host::matrix_product<D>(a.elements, b.elements, c.elements, place);
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b,
                               HOST_PLACE) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0)), place);
}

}  // namespace metal
