// Attention of a draft tree's rows with 8x8 matrices (flash attention's online softmax, DeFT's split of the keys).
//
// A threadgroup takes one KV head, one range of its keys, and the rows of all its query heads.  A tile of keys, then
// of values, lies in threadgroup memory and is read from there by all simdgroups, so device memory gives it once.
// A simdgroup owns 8 BLOCKS rows: their fp32 accumulators stay in its registers, and their queries where both have room
// (docs/kernels_attention.md counts).  Where so few rows come that simdgroups would be idle, KEY_GROUPS of them share rows
// and divide the tile's keys.
#pragma once

constant constexpr int MATRIX = 8;  // rows and columns of a simdgroup_matrix

// 32 keys; 16 where these would not fit beside others into a core's threadgroup memory.
template <typename T, int D, int DV>
METAL_FUNC constexpr int tile_keys() {
  return (D > DV ? D : DV) * int(sizeof(T)) > 512 ? 16 : 32;
}

// Rows of a tile start 16 bytes apart modulo 128, so that the 8 rows of a matrix come from different banks.
template <typename T>
METAL_FUNC constexpr int padded(int columns) {
  return columns + 16 / int(sizeof(T));
}

// The tile, in float4; also holds the accumulators of at most 16 rows when key groups are merged.
template <typename T, int D, int DV>
METAL_FUNC constexpr int tile_size() {
  const int tile = tile_keys<T, D, DV>() * padded<T>(D > DV ? D : DV) * int(sizeof(T)) / 16;
  return tile > 4 * DV ? tile : 4 * DV;
}

template <typename T>
METAL_FUNC thread vec<T, 2>& elements(thread simdgroup_matrix<T, MATRIX, MATRIX>& m) {
  return reinterpret_cast<thread vec<T, 2>&>(m.thread_elements());
}

// Over the four lanes that hold a row of a matrix.
METAL_FUNC float row_max(float x) {
  x = max(x, simd_shuffle_xor(x, 1));
  return max(x, simd_shuffle_xor(x, 8));
}

METAL_FUNC float row_sum(float x) {
  x += simd_shuffle_xor(x, 1);
  return x + simd_shuffle_xor(x, 8);
}

// Keys first .. first + TILE of `rows` to threadgroup memory; zeros from `stop` on.
template <int TILE, int COLUMNS, typename T, typename Source>
METAL_FUNC void stage(Source rows, Span span, int first, int stop, threadgroup T* tile, int worker, int workers) {
  constexpr int CHUNKS = COLUMNS / Source::CHUNK;
  for (int i = worker; i < TILE * CHUNKS; i += workers) {
    const int key = i / CHUNKS, chunk = i % CHUNKS;
    threadgroup T* to = tile + key * padded<T>(COLUMNS) + chunk * Source::CHUNK;
    if (first + key < stop) {
      rows.copy(span.place(first + key), chunk, to);
    } else {
      for (int j = 0; j < Source::CHUNK; ++j) {
        to[j] = T(0);
      }
    }
  }
}

// What one simdgroup knows of its rows.  A lane holds two neighbouring columns of one row of every matrix.  `thread`
// behind a method is where its object lies.
template <typename T, int D, int DV, int BLOCKS, int KEY_TILES>
struct RowBlocks {
  // Queries of 256 columns beside outputs of as many would spill: they are read again for every tile, out of caches.
  static constant constexpr bool HELD = BLOCKS * D <= 128;
  simdgroup_matrix<T, MATRIX, MATRIX> queries[HELD ? BLOCKS : 1][HELD ? D / MATRIX : 1];
  const device T* from[BLOCKS];  // this lane's first column of its rows' queries
  int64_t stride;
  simdgroup_matrix<float, MATRIX, MATRIX> logits[BLOCKS][KEY_TILES];  // then weights
  simdgroup_matrix<float, MATRIX, MATRIX> out[BLOCKS][DV / MATRIX];
  float top[BLOCKS];  // of the row's logits so far, in base 2
  float sum[BLOCKS];  // of the weights in this lane's columns
  int row;            // this lane's, in the first block
  int column;

  METAL_FUNC void start(Queries<T> source, int first_row, int rows, int lane) thread {
    row = first_row + (lane / 16) * 4 + (lane / 2) % 4;
    column = (lane / 8) % 2 * 4 + lane % 2 * 2;
    stride = source.stride;
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      // Rows behind the last repeat it and are not stored.
      from[b] = source.from(min(row + MATRIX * b, rows - 1), column);
      if (HELD) {
        UNROLL for (int d = 0; d < D / MATRIX; ++d) {
          queries[HELD ? b : 0][HELD ? d : 0] = query(b, d);
        }
      }
      UNROLL for (int d = 0; d < DV / MATRIX; ++d) {
        out[b][d] = make_filled_simdgroup_matrix<float, MATRIX, MATRIX>(0.0f);
      }
      top[b] = EMPTY;
      sum[b] = 0.0f;
    }
  }

  METAL_FUNC simdgroup_matrix<T, MATRIX, MATRIX> query(int block, int d) const thread {
    simdgroup_matrix<T, MATRIX, MATRIX> found;
    elements(found)[0] = from[block][d * MATRIX * stride];
    elements(found)[1] = from[block][(d * MATRIX + 1) * stride];
    return found;
  }

  // Columns outside, keys inside: a product need not wait for the one before it, which has another sum.
  METAL_FUNC void multiply_keys(const threadgroup T* tile) thread {
    simdgroup_matrix<T, MATRIX, MATRIX> key, mine[BLOCKS];
    UNROLL for (int k = 0; k < KEY_TILES; ++k) {
      UNROLL for (int b = 0; b < BLOCKS; ++b) {
        logits[b][k] = make_filled_simdgroup_matrix<float, MATRIX, MATRIX>(0.0f);
      }
    }
    UNROLL for (int d = 0; d < D / MATRIX; ++d) {
      UNROLL for (int b = 0; b < BLOCKS; ++b) {
        if (HELD) {
          mine[b] = queries[HELD ? b : 0][HELD ? d : 0];
        } else {
          mine[b] = query(b, d);
        }
      }
      UNROLL for (int k = 0; k < KEY_TILES; ++k) {
        simdgroup_load(key, tile + k * MATRIX * padded<T>(D) + d * MATRIX, padded<T>(D), ulong2(0, 0), true);
        UNROLL for (int b = 0; b < BLOCKS; ++b) {
          simdgroup_multiply_accumulate(logits[b][k], mine[b], key, logits[b][k]);
        }
      }
    }
  }

  // Logits of keys first .. min(first + 8 KEY_TILES, stop) become weights; everything so far is rescaled.
  template <bool WINDOW>
  METAL_FUNC void soften(Span span, Tree tree, int first, int stop) thread {
    const bool open = !WINDOW && first + KEY_TILES * MATRIX <= stop && span.is_context(first + KEY_TILES * MATRIX);
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      const int node = (row + MATRIX * b) % span.nodes;
      float best = top[b];
      UNROLL for (int k = 0; k < KEY_TILES; ++k) {
        UNROLL for (int i = 0; i < 2; ++i) {
          const int key = first + k * MATRIX + column + i;
          const bool seen = open || (key < stop && tree.sees<WINDOW>(span, node, key));
          const float logit = seen ? elements(logits[b][k])[i] * span.scale : MASKED;
          elements(logits[b][k])[i] = logit;
          best = max(best, logit);
        }
      }
      best = row_max(best);
      const float fade = fast::exp2(top[b] - best);
      top[b] = best;
      sum[b] *= fade;
      UNROLL for (int k = 0; k < KEY_TILES; ++k) {
        UNROLL for (int i = 0; i < 2; ++i) {
          const float weight = fast::exp2(elements(logits[b][k])[i] - best);
          elements(logits[b][k])[i] = weight;
          sum[b] += weight;
        }
      }
      scale(b, fade);
    }
  }

  METAL_FUNC void multiply_values(const threadgroup T* tile) thread {
    simdgroup_matrix<T, MATRIX, MATRIX> value, weights[BLOCKS];
    UNROLL for (int k = 0; k < KEY_TILES; ++k) {
      UNROLL for (int b = 0; b < BLOCKS; ++b) {
        elements(weights[b]) = vec<T, 2>(elements(logits[b][k]));
      }
      UNROLL for (int d = 0; d < DV / MATRIX; ++d) {
        simdgroup_load(value, tile + k * MATRIX * padded<T>(DV) + d * MATRIX, padded<T>(DV));
        UNROLL for (int b = 0; b < BLOCKS; ++b) {
          simdgroup_multiply_accumulate(out[b][d], weights[b], value, out[b][d]);
        }
      }
    }
  }

  METAL_FUNC void scale(int block, float factor) thread {
    UNROLL for (int d = 0; d < DV / MATRIX; ++d) {
      elements(out[block][d]) *= factor;
    }
  }

  // Adds up the simdgroups of all key groups in those of group 0; memory: 8 x DV floats for each group of rows.
  template <int KEY_GROUPS>
  METAL_FUNC void merge(threadgroup float* memory, int row_group, int row_groups, int key_group) thread {
    const int local = row_group * MATRIX + (row % MATRIX);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (column == 0) {
      threadgroup float* mine = memory + (key_group * row_groups * MATRIX + local) * 2;
      mine[0] = top[0];
      mine[1] = sum[0];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float own = top[0];
    for (int g = 0; g < KEY_GROUPS; ++g) {
      top[0] = max(top[0], memory[(g * row_groups * MATRIX + local) * 2]);
    }
    sum[0] = 0.0f;
    for (int g = 0; g < KEY_GROUPS; ++g) {
      const threadgroup float* other = memory + (g * row_groups * MATRIX + local) * 2;
      sum[0] += other[1] * fast::exp2(other[0] - top[0]);
    }
    scale(0, fast::exp2(own - top[0]));
    for (int g = 1; g < KEY_GROUPS; ++g) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      UNROLL for (int d = 0; d < DV / MATRIX; ++d) {
        threadgroup float2* slot = (threadgroup float2*)(memory + local * DV + d * MATRIX + column);
        if (key_group == g) {
          *slot = elements(out[0][d]);
        }
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
      UNROLL for (int d = 0; d < DV / MATRIX; ++d) {
        threadgroup float2* slot = (threadgroup float2*)(memory + local * DV + d * MATRIX + column);
        if (key_group == 0) {
          elements(out[0][d]) += *slot;
        }
      }
    }
  }

  METAL_FUNC void store(device float* partial, device float* stats, int rows) thread {
    UNROLL for (int b = 0; b < BLOCKS; ++b) {
      const int mine = row + MATRIX * b;
      if (mine < rows) {
        UNROLL for (int d = 0; d < DV / MATRIX; ++d) {
          *(device float2*)(partial + int64_t(mine) * DV + d * MATRIX + column) = elements(out[b][d]);
        }
        if (column == 0) {
          stats[mine * 2] = top[b];
          stats[mine * 2 + 1] = sum[b];
        }
      }
    }
  }
};

// group: x counts splits x blocks of rows, y KV heads.  partial (heads, splits, rows, DV) and stats (.., 2):
// unnormalised outputs, maximum and sum, for merge_attention.
template <typename T, int D, int DV, int BLOCKS, int KEY_GROUPS, bool WINDOW, typename Keys, typename Values>
METAL_FUNC void tree_attention(
    Span span, Tree tree, Queries<T> queries, Keys keys, Values values, int rows, device float* partial,
    device float* stats, threadgroup float4* memory, uint3 group, int simdgroup, int simdgroups, int lane) {
  constexpr int TILE = tile_keys<T, D, DV>();
  constexpr int KEY_TILES = TILE / MATRIX / KEY_GROUPS;
  threadgroup T* tile = (threadgroup T*)memory;
  const int row_groups = simdgroups / KEY_GROUPS, row_group = simdgroup / KEY_GROUPS;
  const int key_group = simdgroup % KEY_GROUPS, first_key = key_group * KEY_TILES * MATRIX;
  const int group_rows = row_groups * BLOCKS * MATRIX, blocks = (rows + group_rows - 1) / group_rows;
  const int split = int(group.x) / blocks, block = int(group.x) % blocks;
  const int splits = (span.length() + span.split - 1) / span.split;
  const int worker = simdgroup * 32 + lane, workers = simdgroups * 32;

  RowBlocks<T, D, DV, BLOCKS, KEY_TILES> mine;
  mine.start(queries, block * group_rows + row_group * BLOCKS * MATRIX, rows, lane);
  const int stop = min(span.length(), (split + 1) * span.split);
  for (int first = split * span.split; first < stop; first += TILE) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    stage<TILE, D>(keys, span, first, stop, tile, worker, workers);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    mine.multiply_keys(tile + first_key * padded<T>(D));
    mine.template soften<WINDOW>(span, tree, first + first_key, stop);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    stage<TILE, DV>(values, span, first, stop, tile, worker, workers);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    mine.multiply_values(tile + first_key * padded<T>(DV));
  }
  UNROLL for (int b = 0; b < BLOCKS; ++b) {
    mine.sum[b] = row_sum(mine.sum[b]);
  }
  if (KEY_GROUPS > 1) {
    mine.template merge<KEY_GROUPS>((threadgroup float*)memory, row_group, row_groups, key_group);
  }
  if (key_group == 0) {
    const int64_t before = int64_t(int(group.y) * splits + split) * rows;
    mine.store(partial + before * DV, stats + before * 2, rows);
  }
}
