// Which lane holds which elements of an 8x8 matrix, two a lane, in the layout of Apple's GPUs:
// lane bits (4, 2, 1) are the row, bits (3, 0) choose the pair of columns.
#pragma once

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

}  // namespace host
