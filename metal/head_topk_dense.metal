#include "dense_weights.h"
#include "head_tile.h"
// LM head in T; size as in head_topk.
constexpr int floats = VerifyTile<T, ROWS, WIDTH, 1, 1>::floats;
threadgroup float memory[floats];
const DenseWeights<T> weights = {weight, size[1], size[2]};
head_tile<T, F, DenseWeights<T>, ROWS, WIDTH, 1>(
    weights, x, size[0], size[3], as_type<float>(size[4]), int(threadgroup_position_in_grid.x), size[5], memory,
    (device uint2*)entries, (device float2*)sums, simdgroup_index_in_threadgroup, thread_index_in_simdgroup);
