#include "attention.h"
#include "merge_attention.h"
const Span span(sizes);
const int splits = (span.length() + span.split - 1) / span.split, rows = GROUPED * span.nodes;
const int row = int(threadgroup_position_in_grid.y) % rows, head = int(threadgroup_position_in_grid.y) / rows;
merge_attention<T, DV>(
    partial, stats, max(float(sinks[threadgroup_position_in_grid.y / uint(span.nodes)]) * LOG2_E, EMPTY), head, row,
    rows, splits, out + int64_t(threadgroup_position_in_grid.y) * DV, int(thread_index_in_simdgroup));
