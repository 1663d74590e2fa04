#pragma once

// Weights that are not quantised, as verify_tile.h takes them.

template <typename T>
struct DenseRun {
  vec<T, 4> values[8];

  METAL_FUNC float weight(int i) const { return float(values[i / 4][i % 4]); }
};

// Weights (columns, depth) in T.
template <typename T>
struct DenseWeights {
  typedef DenseRun<T> Run;
  const device T* values;
  int columns;
  int depth;

  METAL_FUNC Run run(int column, int k) const {
    Run run = {};
    if (column < columns && k < depth) {
      const device vec<T, 4>* from = (const device vec<T, 4>*)(values + size_t(column) * depth + k);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        run.values[i] = from[i];
      }
    }
    return run;
  }
};
