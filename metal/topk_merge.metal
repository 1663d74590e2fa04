#include "topk.h"
// Second pass: the lists of a row into one; size = lists of a row, k.  best (rows, 2 k), log_sums (rows,).
constexpr int two_each = 2 * SIMDGROUPS;
threadgroup uint2 tops[two_each];
threadgroup float2 parts[SIMDGROUPS];
const int row = int(threadgroup_position_in_grid.x), first = row * size[0];
merge_top_k<LISTS, SIMDGROUPS, LOG_PROBS>(
    (const device uint2*)entries + size_t(first) * size[1], (const device float2*)sums + first, size[0], size[1],
    best + row * 2 * size[1], log_sums + row, tops, parts, simdgroup_index_in_threadgroup, thread_index_in_simdgroup);
