// Attention of fewer rows than a matrix has: each simdgroup takes every eighth run of 8 keys.
//
// Four lanes share a key: they read its elements in turn, 16 at a time.  For the values every lane owns columns, so
// that a row is read by all lanes side by side.  Keys and values go from device memory to registers, once.
#pragma once

constant constexpr int RUN = 8;         // keys of a simdgroup at once
constant constexpr int SIMDGROUPS = 8;  // of a threadgroup

// The queries, later the outputs; then each simdgroup's maxima and sums.  In float4.
template <int D, int DV, int ROWS>
METAL_FUNC constexpr int few_rows_size() {
  return ROWS * ((D > DV ? D : DV) + 2 * SIMDGROUPS + 3) / 4;
}

template <int D, int DV, int ROWS>
struct FewRows {
  static constant constexpr int FOURS = (DV / 4 + 31) / 32;  // a lane's columns, four by four
  float top[ROWS], sum[ROWS], weights[ROWS];
  float4 out[ROWS][FOURS];

  METAL_FUNC void start() {
    UNROLL for (int r = 0; r < ROWS; ++r) {
      top[r] = EMPTY;
      sum[r] = 0.0f;
      UNROLL for (int f = 0; f < FOURS; ++f) {
        out[r][f] = float4(0.0f);
      }
    }
  }

  // The weights of this lane's key, which it shares with three others; everything so far is rescaled.
  template <typename T, bool WINDOW>
  METAL_FUNC void soften(
      Span span, Tree tree, Rows<T> keys, const threadgroup float* queries, int key, int stop, int lane) {
    const bool inside = key < stop;
    const int place = span.place(inside ? key : stop - 1);
    UNROLL for (int r = 0; r < ROWS; ++r) {
      weights[r] = 0.0f;
    }
    for (int c = lane % 4 * 4; c < D; c += 16) {
      const vec<T, 4> four = keys.four(place, c);
      UNROLL for (int r = 0; r < ROWS; ++r) {
        UNROLL for (int i = 0; i < 4; ++i) {
          weights[r] += float(four[i]) * queries[r * D + c + i];
        }
      }
    }
    UNROLL for (int r = 0; r < ROWS; ++r) {
      float logit = weights[r];
      logit += simd_shuffle_xor(logit, 1);
      logit += simd_shuffle_xor(logit, 2);
      const bool seen = inside && tree.sees<WINDOW>(span, r % span.nodes, key);
      logit = seen ? logit * span.scale : MASKED;
      const float best = max(top[r], simd_max(logit)), fade = fast::exp2(top[r] - best);
      weights[r] = fast::exp2(logit - best);
      sum[r] = sum[r] * fade + weights[r];
      top[r] = best;
      UNROLL for (int f = 0; f < FOURS; ++f) {
        out[r][f] *= fade;
      }
    }
  }

  template <typename T>
  METAL_FUNC void add_values(Span span, Rows<T> values, int first, int stop, int lane) {
    for (int j = 0; j < min(RUN, stop - first); ++j) {
      const int place = span.place(first + j);
      float weight[ROWS];
      UNROLL for (int r = 0; r < ROWS; ++r) {
        weight[r] = simd_shuffle(weights[r], ushort(4 * j));
      }
      UNROLL for (int f = 0; f < FOURS; ++f) {
        if (lane + 32 * f < DV / 4) {
          const vec<T, 4> four = values.four(place, 4 * (lane + 32 * f));
          UNROLL for (int r = 0; r < ROWS; ++r) {
            UNROLL for (int i = 0; i < 4; ++i) {
              out[r][f][i] += weight[r] * float(four[i]);
            }
          }
        }
      }
    }
  }

  // All simdgroups' accumulators to `merged` (ROWS, DV), maxima and sums to this one's.  Its first barrier also says
  // that nobody reads the queries any more, which lay there.
  METAL_FUNC void merge(threadgroup float* merged, int simdgroup, int lane) {
    threadgroup float* parts = merged + ROWS * (D > DV ? D : DV);
    UNROLL for (int r = 0; r < ROWS; ++r) {
      const float total = simd_sum(sum[r]) / 4.0f;  // four lanes had each key
      if (lane == 0) {
        parts[(simdgroup * ROWS + r) * 2] = top[r];
        parts[(simdgroup * ROWS + r) * 2 + 1] = total;
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    UNROLL for (int r = 0; r < ROWS; ++r) {
      const float own = top[r];
      for (int g = 0; g < SIMDGROUPS; ++g) {
        top[r] = max(top[r], parts[(g * ROWS + r) * 2]);
      }
      sum[r] = 0.0f;
      for (int g = 0; g < SIMDGROUPS; ++g) {
        sum[r] += parts[(g * ROWS + r) * 2 + 1] * fast::exp2(parts[(g * ROWS + r) * 2] - top[r]);
      }
      UNROLL for (int f = 0; f < FOURS; ++f) {
        out[r][f] *= fast::exp2(own - top[r]);
      }
    }
    for (int g = 0; g < SIMDGROUPS; ++g) {
      UNROLL for (int r = 0; r < ROWS; ++r) {
        UNROLL for (int f = 0; f < FOURS; ++f) {
          if (simdgroup == g && lane + 32 * f < DV / 4) {
            threadgroup float4* slot = (threadgroup float4*)(merged + r * DV) + lane + 32 * f;
            *slot = g == 0 ? out[r][f] : *slot + out[r][f];
          }
        }
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
  }
};

// As tree_attention, for rows < 8.
template <typename T, int D, int DV, int ROWS, bool WINDOW>
METAL_FUNC void few_rows_attention(
    Span span, Tree tree, Queries<T> queries, Rows<T> keys, Rows<T> values, device float* partial,
    device float* stats, threadgroup float* memory, uint3 group, int simdgroup, int lane) {
  const int splits = (span.length() + span.split - 1) / span.split, split = int(group.x);
  const int worker = simdgroup * 32 + lane, workers = SIMDGROUPS * 32;
  for (int i = worker; i < ROWS * D; i += workers) {
    memory[i] = float(*queries.from(i / D, i % D));
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  FewRows<D, DV, ROWS> mine;
  mine.start();
  const int stop = min(span.length(), (split + 1) * span.split);
  for (int first = split * span.split + simdgroup * RUN; first < stop; first += SIMDGROUPS * RUN) {
    mine.template soften<T, WINDOW>(span, tree, keys, memory, first + lane / 4, stop, lane);
    mine.add_values(span, values, first, stop, lane);
  }
  mine.merge(memory, simdgroup, lane);

  const int64_t before = int64_t(int(group.y) * splits + split) * ROWS;
  for (int i = worker; i < ROWS * DV; i += workers) {
    partial[before * DV + i] = memory[i];
  }
  UNROLL for (int r = 0; r < ROWS; ++r) {
    if (worker == r) {
      stats[(before + r) * 2] = mine.top[r];
      stats[(before + r) * 2 + 1] = mine.sum[r];
    }
  }
}
