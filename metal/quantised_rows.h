#pragma once

// Keys or values of one KV head as mlx.core.quantize packs them (affine): BITS 4 or 8, GROUP columns for each scale and bias.
template <typename T, int BITS, int GROUP>
struct QuantisedRows {
  static constant constexpr int CHUNK = 32;  // BITS whole words, never of two groups
  const device uint* words;
  const device T* scales;
  const device T* biases;
  int64_t word_stride, group_stride;

  METAL_FUNC void copy(int row, int chunk, threadgroup T* to) const {
    const int64_t group = row * group_stride + chunk * CHUNK / GROUP;
    const float scale = float(scales[group]), bias = float(biases[group]);
    for (int i = 0; i < BITS; ++i) {
      const uint word = words[row * word_stride + chunk * BITS + i];
      for (int j = 0; j < 32 / BITS; ++j) {
        to[i * (32 / BITS) + j] = T(scale * float((word >> uint(j * BITS)) & ((1u << BITS) - 1u)) + bias);
      }
    }
  }
};
