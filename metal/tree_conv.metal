#include "tree_conv.h"
// T: type of the rows.  MAX_NODES bounds the nodes; it takes no part in the arithmetic.
threadgroup T past[(MAX_NODES + KERNEL - 1) * CHANNELS];
tree_conv<KERNEL, CHANNELS, NODE_LANES>(
    ConvShape(sizes), rows, before, weight, table, queries, keys, values, past, threadgroup_position_in_grid.x,
    thread_position_in_threadgroup.xy);
