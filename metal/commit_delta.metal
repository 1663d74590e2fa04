#include "commit_delta.h"
// Several layers of one shape: the line with $i is there once for each.  T: type of the keys.
threadgroup float weighted[COMMIT_TURN * ROWS];
threadgroup int turned[COMMIT_TURN];
const CommitShape shape(sizes);
switch (threadgroup_position_in_grid.z) {
  case $i: commit_delta<DK, ROWS>(shape, updates_$i, keys_$i, log_decay_$i, state_$i, path, committed_$i, weighted, turned, threadgroup_position_in_grid, thread_position_in_threadgroup.x); break;
}
