#include "tree_conv.h"
// T: type of the rows.  MAX_NODES bounds the nodes; it takes no part in the arithmetic.
threadgroup T past[(MAX_NODES + KERNEL - 1) * CHANNELS];
threadgroup int places[MAX_NODES * KERNEL];
tree_conv<KERNEL, CHANNELS, NODE_LANES>(
    ConvShape(sizes), rows, before, weight, table, queries, keys, values, past, places,
    threadgroup_position_in_grid.x, thread_position_in_threadgroup.xy);
