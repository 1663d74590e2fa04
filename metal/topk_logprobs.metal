#include "topk.h"
// First pass: a threadgroup's chunk of a row of logits (rows, vocab); size = vocab, chunks of a row, k <= MOST.
// entries (rows, chunks, k, 2), sums (rows, chunks, 2).
constexpr int most = SIMDGROUPS * MOST;
threadgroup uint2 lists[most];
threadgroup float2 parts[SIMDGROUPS];
const int chunk = int(threadgroup_position_in_grid.x), row = int(threadgroup_position_in_grid.y);
const int part = row * size[1] + chunk;
chunk_top_k<T, COUNT, SIMDGROUPS>(
    logits + size_t(row) * size[0], size[0], chunk, size[2], (device uint2*)entries + part * size[2],
    (device float2*)sums + part, lists, parts, simdgroup_index_in_threadgroup, thread_index_in_simdgroup);
