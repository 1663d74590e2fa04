#include "commit_window.h"
// Several layers of one shape: the line with $i is there once for each.
const WindowShape shape(sizes);
switch (thread_position_in_grid.z) {
  case $i: commit_window(shape, window_$i, rows_$i, path, committed_$i, int(thread_position_in_grid.x), int(thread_position_in_grid.y)); break;
}
