#include "gather_rows.h"
// The line with $i is there once for every array.  T: their type.
const GatherShape shape(sizes);
const device T* source = source_0;
const constant int64_t* strides = source_0_strides;
switch (int(thread_position_in_grid.y) / shape.heads) {
  case $i: source = source_$i; strides = source_$i_strides; break;
}
gather_rows(
    shape, source, strides, path, packed, int(thread_position_in_grid.x), int(thread_position_in_grid.y));
