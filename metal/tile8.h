// 8 x 8 matrices of a simdgroup, in fp32.
#pragma once

typedef simdgroup_matrix<float, 8, 8> Tile;

// The two elements of a tile that lane `lane` holds: (row, column) and (row, column + 1).  Metal does not document the
// layout, but it is that of every Apple GPU, and MLX's own kernels rest on it.
struct TilePlace {
  short row;
  short column;

  TilePlace(uint lane) : row((lane >> 4) * 4 + ((lane >> 1) & 3)), column(((lane >> 3) & 1) * 4 + (lane & 1) * 2) {}
};

// Element (r, c) of the tile is source[r * row_stride + c * column_stride]; source is any pointer to numbers.
template <typename Pointer>
inline Tile load_tile(Pointer source, int row_stride, int column_stride, TilePlace place) {
  Tile tile;
  source += place.row * row_stride + place.column * column_stride;
  tile.thread_elements()[0] = float(source[0]);
  tile.thread_elements()[1] = float(source[column_stride]);
  return tile;
}

inline void store_tile(Tile tile, threadgroup float* target, TilePlace place) {
  target += place.row * 8 + place.column;
  target[0] = tile.thread_elements()[0];
  target[1] = tile.thread_elements()[1];
}

inline Tile zero_tile() {
  return make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
}

// sum += left * right
inline void add_product(thread Tile& sum, Tile left, Tile right) {
  simdgroup_multiply_accumulate(sum, left, right, sum);
}
