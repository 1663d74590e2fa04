// A product of 8x8 matrices by shuffles: each lane collects its row of the left and its two columns of the right.
#pragma once

namespace host {

template <class D, class A, class B, class C>
inline metal::vec<D, 2> matrix_product(metal::vec<A, 2> a, metal::vec<B, 2> b, metal::vec<C, 2> c, Place) {
  MatrixPlace at = matrix_place();
  float sum[2] = {float(c[0]), float(c[1])};
  for (uint k = 0; k < 8; ++k) {
    uint left = (at.row >> 2) << 4 | (k >> 2) << 3 | (at.row & 3) << 1 | (k >> 1 & 1);
    uint right = (k >> 2) << 4 | (at.column >> 2) << 3 | (k & 3) << 1 | (at.column >> 1 & 1);
    metal::vec<A, 2> pair = take(a, left);
    metal::vec<B, 2> columns = take(b, right);
    for (int j = 0; j < 2; ++j) sum[j] = __nv_fmaf(float(pair[k & 1]), float(columns[j]), sum[j]);
  }
  return metal::vec<D, 2>(D(sum[0]), D(sum[1]));
}

}  // namespace host
