// Rows of many arrays of one shape (1, heads, length, width), packed: for a commit, the accepted path's.
#pragma once

struct GatherShape {
  int heads;
  int width;
  int taken;    // rows taken of each

  GatherShape(const constant int* sizes) : heads(sizes[0]), width(sizes[1]), taken(sizes[2]) {}
};

// element: of a head's taken rows; head: counted through all arrays.
template <typename T>
inline void gather_rows(
    GatherShape shape, const device T* source, const constant int64_t* strides, const device int* path,
    device T* packed, int element, int head) {
  if (element < shape.taken * shape.width) {
    const int row = path[element / shape.width], column = element % shape.width;
    packed[head * shape.taken * shape.width + element] =
        source[head % shape.heads * strides[1] + row * strides[2] + column * strides[3]];
  }
}
