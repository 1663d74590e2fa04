#include "verify_tile.h"
// y_$i (rows, columns) = x (rows, depth) times dequantised W_$i^T, one matrix after the other; size = rows, depth, and
// the columns of each matrix.  The line with $i is there once for every matrix.
constexpr int floats = VerifyTile<T, ROWS, WIDTH, CHAINS, 2>::floats;
constexpr int tile_columns = 16 * WIDTH;
threadgroup float memory[floats];
PackedWeights<T, BITS, GROUP> weights = {weight_0, scales_0, biases_0, 0, size[1]};
device T* y = y_0;
int first_column = -1, before = int(threadgroup_position_in_grid.x);
if (first_column < 0 && before < (size[2 + $i] + tile_columns - 1) / tile_columns) { weights.words = weight_$i; weights.scales = scales_$i; weights.biases = biases_$i; weights.columns = size[2 + $i]; y = y_$i; first_column = before * tile_columns; } before -= (size[2 + $i] + tile_columns - 1) / tile_columns;
multiply_tile<T, F, PackedWeights<T, BITS, GROUP>, ROWS, WIDTH, CHAINS, 2>(
    weights, x, size[0], first_column, memory, simdgroup_index_in_threadgroup, thread_index_in_simdgroup);
write_tile<T, ROWS, WIDTH, CHAINS, 2>(
    y, memory, size[0], weights.columns, first_column,
    simdgroup_index_in_threadgroup * 32 + thread_index_in_simdgroup);
