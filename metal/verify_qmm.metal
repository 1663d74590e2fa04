#include "verify_tile.h"
// y (rows, columns) = x (rows, depth) times dequantised W^T; size = rows, columns, depth.
constexpr int floats = VerifyTile<T, ROWS, WIDTH, CHAINS, 2>::floats;
threadgroup float memory[floats];
const int first_column = int(threadgroup_position_in_grid.x) * 16 * WIDTH;
const PackedWeights<T, BITS, GROUP> weights = {weight, scales, biases, size[1], size[2]};
multiply_tile<T, F, PackedWeights<T, BITS, GROUP>, ROWS, WIDTH, CHAINS, 2>(
    weights, x, size[0], first_column, memory, simdgroup_index_in_threadgroup, thread_index_in_simdgroup);
write_tile<T, ROWS, WIDTH, CHAINS, 2>(
    y, memory, size[0], size[1], first_column, simdgroup_index_in_threadgroup * 32 + thread_index_in_simdgroup);
