// Rows of many arrays of one shape (1, heads, length, width), packed: for a commit, the accepted path's.
#pragma once

struct GatherShape {
  int heads;
  int length;   // rows of an array
  int width;
  int taken;    // rows taken of each
  int start;    // the place in an array of the row that the path calls 0

  GatherShape(const constant int* sizes)
      : heads(sizes[0]), length(sizes[1]), width(sizes[2]), taken(sizes[3]), start(sizes[4]) {}
};

// element: of a head's taken rows; head: counted through all arrays.
template <typename T>
inline void gather_rows(
    GatherShape shape, const device T* source, const device int* path, device T* packed, int element, int head) {
  if (element < shape.taken * shape.width) {
    const int row = shape.start + path[element / shape.width];
    const size_t from = (size_t(head % shape.heads) * shape.length + row) * shape.width;
    packed[head * shape.taken * shape.width + element] = source[from + element % shape.width];
  }
}
