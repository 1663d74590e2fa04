// Partial attention of several ranges of keys, merged by log-sum-exp; one simdgroup for each row.
#pragma once

// partial (heads, splits, rows, DV), stats (heads, splits, rows, 2): maximum in base 2, sum.  sink: of the row's
// query head, a logit in base 2 that joins the denominator.  out: the row's DV columns.
template <typename T, int DV>
METAL_FUNC void merge_attention(
    const device float* partial, const device float* stats, float sink, int head, int row, int rows, int splits,
    device T* out, int lane) {
  const int64_t first = int64_t(head) * splits * rows + row;
  float top = sink, sum = 0.0f;
  for (int s = lane; s < splits; s += 32) {
    top = max(top, stats[(first + int64_t(s) * rows) * 2]);
  }
  top = simd_max(top);

  constexpr int FOURS = (DV / 4 + 31) / 32;  // a lane's columns, four by four
  float4 mine[FOURS];
  for (int i = 0; i < FOURS; ++i) {
    mine[i] = float4(0.0f);
  }
  for (int start = 0; start < splits; start += 32) {
    float factor = 0.0f;
    if (start + lane < splits) {
      const int64_t at = (first + int64_t(start + lane) * rows) * 2;
      factor = fast::exp2(stats[at] - top);
      sum += factor * stats[at + 1];
    }
    for (int s = start; s < min(splits, start + 32); ++s) {
      const float weight = simd_shuffle(factor, ushort(s - start));
      const device float4* from = (const device float4*)(partial + (first + int64_t(s) * rows) * DV);
      for (int i = 0; i < FOURS; ++i) {
        if (lane + 32 * i < DV / 4) {
          mine[i] += from[lane + 32 * i] * weight;
        }
      }
    }
  }
  sum = simd_sum(sum) + fast::exp2(sink - top);
  for (int i = 0; i < FOURS; ++i) {
    if (lane + 32 * i < DV / 4) {
      vec<T, 4> rounded;
      for (int j = 0; j < 4; ++j) {
        rounded[j] = T(mine[i][j] / sum);
      }
      *(device vec<T, 4>*)(out + (lane + 32 * i) * 4) = rounded;
    }
  }
}
