#include "attention.h"
#include "few_rows_attention.h"
constexpr int SIZE = few_rows_size<D, DV, ROWS>();
threadgroup float4 memory[SIZE];
const int head = int(threadgroup_position_in_grid.y), grouped = queries_shape[1] / keys_shape[1];
const Span span(sizes);
few_rows_attention<T, D, DV, ROWS, WINDOW>(
    span, Tree{words, depths},
    Queries<T>{queries + head * grouped * queries_strides[1], queries_strides[1], queries_strides[2],
               queries_strides[3], span.nodes},
    Rows<T>{keys + head * keys_strides[1], keys_strides[2]},
    Rows<T>{values + head * values_strides[1], values_strides[2]}, partial, stats, (threadgroup float*)memory,
    threadgroup_position_in_grid, int(simdgroup_index_in_threadgroup), int(thread_index_in_simdgroup));
