// The meeting in which a simdgroup multiplies two matrices.
#pragma once
#include "matrix_place.h"
#include "simdgroup.h"

namespace host {

template <class A, class B, class C>
struct Factors {
  metal::vec<A, 2> a;
  metal::vec<B, 2> b;
  metal::vec<C, 2> c;
};

// The lane's elements of a b + c, accumulated in float.
template <class D, class A, class B, class C>
inline metal::vec<D, 2> matrix_product(metal::vec<A, 2> a, metal::vec<B, 2> b, metal::vec<C, 2> c, Place place) {
  using In = Factors<A, B, C>;
  using Out = metal::vec<D, 2>;
  auto combine = [place](In* in, Out* out, uint lanes) HOST_UNCHECKED_LAMBDA {
    if (lanes != 32) fail("simdgroup_matrix needs all 32 lanes", place);
    float left[8][8], right[8][8], sum[8][8];
    for (uint lane = 0; lane < 32; ++lane) {
      MatrixPlace at = matrix_place(lane);
      for (uint k = 0; k < 2; ++k) {
        left[at.row][at.column + k] = float(in[lane].a.data[k]);
        right[at.row][at.column + k] = float(in[lane].b.data[k]);
        sum[at.row][at.column + k] = float(in[lane].c.data[k]);
      }
    }
    for (uint i = 0; i < 8; ++i) {
      for (uint k = 0; k < 8; ++k) {
        for (uint j = 0; j < 8; ++j) sum[i][j] = __builtin_fmaf(left[i][k], right[k][j], sum[i][j]);
      }
    }
    for (uint lane = 0; lane < 32; ++lane) {
      MatrixPlace at = matrix_place(lane);
      for (uint k = 0; k < 2; ++k) out[lane].data[k] = D(sum[at.row][at.column + k]);
    }
  };
  return collective<In, Out>({a, b, c}, MATRIX_MULTIPLY, 0, place, combine);
}

}  // namespace host
