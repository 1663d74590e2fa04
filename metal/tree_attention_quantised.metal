#include "attention.h"
#include "quantised_rows.h"
#include "tree_attention.h"
constexpr int SIZE = tile_size<T, D, DV>();
threadgroup float4 memory[SIZE];
const int head = int(threadgroup_position_in_grid.y), grouped = queries_shape[1] / keys_shape[1];
const Span span(sizes);
tree_attention<T, D, DV, BLOCKS, KEY_GROUPS, WINDOW>(
    span, Tree{words, depths},
    Queries<T>{queries + head * grouped * queries_strides[1], queries_strides[1], queries_strides[2],
               queries_strides[3], span.nodes},
    QuantisedRows<T, BITS, GROUP>{keys + head * keys_strides[1], key_scales + head * key_scales_strides[1],
                                  key_biases + head * key_biases_strides[1], keys_strides[2], key_scales_strides[2]},
    QuantisedRows<T, BITS, GROUP>{values + head * values_strides[1], value_scales + head * value_scales_strides[1],
                                  value_biases + head * value_biases_strides[1], values_strides[2],
                                  value_scales_strides[2]},
    grouped * span.nodes, partial, stats, memory, threadgroup_position_in_grid,
    int(simdgroup_index_in_threadgroup), int(simdgroups_per_threadgroup), int(thread_index_in_simdgroup));
