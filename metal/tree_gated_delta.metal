#include "tree_gated_delta.h"
// T: type of queries, keys and values.  NODES: at least the number of rows, a multiple of 32.  A threadgroup takes
// 8 * SIMDGROUPS rows of a head's state.
threadgroup T staged[2 * 8 * staged_stride(DK)];
threadgroup float system[8 * NODES];
threadgroup float attention[8 * NODES];
threadgroup float inverse[64];
threadgroup float updated[8 * NODES * SIMDGROUPS];
threadgroup float decay[NODES];
threadgroup float rate[NODES];
const TreeDeltaMemory<T> memory = {staged, system, attention, inverse, updated, decay, rate};
const TreeDeltaHead at(sizes, int(threadgroup_position_in_grid.y));
tree_gated_delta<DK, NODES, SIMDGROUPS>(
    at, memory, queries, keys, values, log_gates, beta, state, ancestors, out, updates, log_decay,
    threadgroup_position_in_grid.x, simdgroup_index_in_threadgroup, thread_index_in_simdgroup);
