#include "head_tile.h"
// Quantised LM head; size = rows, tokens, depth, k, bits of the soft cap (0: none), tiles.
constexpr int floats = VerifyTile<T, ROWS, WIDTH, 1, 2>::floats;
threadgroup float memory[floats];
const PackedWeights<T, BITS, GROUP> weights = {weight, scales, biases, size[1], size[2]};
head_tile<T, F, PackedWeights<T, BITS, GROUP>, ROWS, WIDTH, 2>(
    weights, x, size[0], size[3], as_type<float>(size[4]), int(threadgroup_position_in_grid.x), size[5], memory,
    (device uint2*)entries, (device float2*)sums, simdgroup_index_in_threadgroup, thread_index_in_simdgroup);
