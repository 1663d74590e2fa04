#pragma once
#include "topk.h"
#include "verify_tile.h"

// A model rounds its logits to T, divides, takes tanh and multiplies in T: so that ties are ties here too.
template <typename T>
METAL_FUNC float soft_capped(float value, float cap) {
  value = float(T(value));
  return cap > 0.0f ? float(T(float(T(precise::tanh(float(T(precise::divide(value, cap)))))) * cap)) : value;
}

// The logits of a tile's tokens, their k best of every row and their sum of exponentials; the logits themselves stay in
// threadgroup memory.  entries (rows, tiles, k), sums (rows, tiles).
template <typename T, typename F, typename Weights, int ROWS, int WIDTH, int STRIPS>
METAL_FUNC void head_tile(
    Weights weights,
    const device T* x,
    int rows,
    int k,
    float cap,
    int tile,
    int tiles,
    threadgroup float* memory,
    device uint2* entries,
    device float2* sums,
    uint simdgroup,
    uint lane) {
  constexpr int columns = 8 * STRIPS * WIDTH, count = columns / 32;
  multiply_tile<T, F, Weights, ROWS, WIDTH, 1, STRIPS>(weights, x, rows, tile * columns, memory, simdgroup, lane);
  for (int row = int(simdgroup); row < rows; row += WIDTH) {
    const uint first = tile * columns + lane;
    uint keys[count];
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float value = soft_capped<T>(memory[row * columns + 32 * i + int(lane)], cap);
      keys[i] = int(first) + 32 * i < weights.columns ? order_key(value) : 0;
    }
    const int part = row * tiles + tile;
    const float2 sum = simd_sum_exp<count>(keys);
    if (lane == 0) {
      sums[part] = sum;
    }
    simd_top_k<count>(keys, first, k, lane, entries + size_t(part) * k);
  }
}
