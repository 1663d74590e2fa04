#pragma once

// One threadgroup's part of y = x W^T for the few rows of a verification: every weight of its output columns is
// read from device memory once, by one lane, and meets all rows there.
//
// The inputs k are taken in blocks of 128.  For one output column, four lanes hold 32 consecutive weights of a block
// each, so that a lane's load is 16 or 32 bytes and a column's four lanes read 64 (4 bits) or 128 (8 bits) bytes in
// a row.  Matrix products are the simdgroup's 8x8x8 steps; which 8 inputs meet in one step is free as long as both
// operands agree, and step t (0..15) takes k = 16 c + t, c = 0..7.  Then both operands are consecutive in memory for
// a lane: as the left operand (columns of W) it holds c = 2 j and 2 j + 1, inputs t and 16 + t of its run of 32; as
// the right one (rows of x) a run of 16 of two rows.  x goes through threadgroup memory, zeros behind its last row.
//
// CHAINS simdgroups share a group of columns: chain i takes blocks i, i + CHAINS, ..., and their sums are added in
// order.  A row's result depends on neither the other rows nor the tile's height: the same sums in the same order.

constant constexpr int BLOCK = 128;

// The lane holds elements (row, column) and (row, column + 1) of an 8x8 simdgroup matrix: x is the row.
METAL_FUNC uint2 fragment_place(uint lane) {
  return uint2((lane >> 4 & 1) * 4 + (lane >> 1 & 3), (lane >> 3 & 1) * 4 + (lane & 1) * 2);
}

// The lane of an element in row `row` and even column `column`.
METAL_FUNC uint fragment_lane(uint row, uint column) {
  return (row >> 2) << 4 | (column >> 2) << 3 | (row & 3) << 1 | (column >> 1 & 1);
}

// A lane's 32 weights of a block; BITS words, as 32 weights of BITS bits are.
template <int BITS>
struct PackedRun {
  uint words[BITS];
  float scale;
  float bias;

  // Where no weight crosses halves of a word, two are taken out at once: under the exponent of 1024 they are halves of
  // that value and theirs, exactly.  An integer's conversion would take longer than all of it.
  METAL_FUNC float weight(int i) const {
    if (16 % BITS == 0) {
      const int place = i % (32 / BITS), each = 16 / BITS;
      const uint mask = ((1u << BITS) - 1) * 0x00010001u;
      const uint two = ((words[i * BITS / 32] >> (place % each * BITS)) & mask) | 0x64006400u;
      return fma(scale, float(as_type<half2>(two)[place / each]) - 1024.0f, bias);
    }
    const int bit = i * BITS;
    uint bits = words[bit / 32] >> (bit % 32);
    if (bit % 32 + BITS > 32) {
      bits |= words[bit / 32 + 1] << (32 - bit % 32);
    }
    return fma(scale, float(bits & ((1u << BITS) - 1)), bias);
  }
};

// Affine quantisation as mx.quantize packs it: words (columns, depth * BITS / 32), scales and biases
// (columns, depth / GROUP); a group is at least a run of 32.
template <typename T, int BITS, int GROUP>
struct PackedWeights {
  typedef PackedRun<BITS> Run;
  const device uint* words;
  const device T* scales;
  const device T* biases;
  int columns;
  int depth;

  // Inputs k .. k + 31 of an output column; zeros outside the matrix.
  METAL_FUNC Run run(int column, int k) const {
    Run run = {};
    if (column < columns && k < depth) {
      const device uint* from = words + size_t(column) * (depth / 32 * BITS) + k / 32 * BITS;
      if (BITS % 4 == 0) {
#pragma unroll
        for (int i = 0; i < BITS / 4; ++i) {
          const uint4 four = ((const device uint4*)from)[i];
          for (int j = 0; j < 4; ++j) {
            run.words[4 * i + j] = four[j];
          }
        }
      } else {
#pragma unroll
        for (int i = 0; i < BITS; ++i) {
          run.words[i] = from[i];
        }
      }
      const size_t group = size_t(column) * (depth / GROUP) + k / GROUP;
      run.scale = float(scales[group]);
      run.bias = float(biases[group]);
    }
    return run;
  }
};

// ROWS: 8, 16 or 32 rows of x.  WIDTH simdgroups side by side, each with 8 * STRIPS columns, CHAINS deep.
template <typename T, int ROWS, int WIDTH, int CHAINS, int STRIPS>
struct VerifyTile {
  static constexpr constant int columns = 8 * STRIPS * WIDTH;
  static constexpr constant int threads = 32 * WIDTH * CHAINS;
  // A lane's run of 16 inputs is staged in two halves where both would take more than 16 KB.
  static constexpr constant int halves = CHAINS * ROWS * BLOCK * int(sizeof(T)) <= 16384 ? 2 : 1;
  static constexpr constant int slab = CHAINS * ROWS * BLOCK * int(sizeof(T)) / 8 * halves;  // floats
  static constexpr constant int sums = CHAINS * ROWS * columns;
  static constexpr constant int floats = slab > sums ? slab : sums;
};

// The slab's vectors of 4 stand in the order in which lanes take them as right operands:
// [chain][half][8 rows][row is odd][lane][2].  Threads next to each other read x next to each other.
template <typename T, int ROWS, int CHAINS, int HALVES>
METAL_FUNC void stage_rows(
    const device T* x,
    threadgroup vec<T, 4>* slab,
    int rows,
    int depth,
    int first,
    int half0,
    uint thread_index,
    uint threads) {
  for (uint i = thread_index; i < uint(8 * HALVES * CHAINS * ROWS); i += threads) {
    const uint half_run = i % HALVES, c = i / HALVES % 8, chain = i / (8 * HALVES) % CHAINS;
    const uint row = i / (8 * HALVES * CHAINS);
    const int k = first + int(chain * BLOCK + 16 * c + 8 * half_run) + 8 * half0;
    vec<T, 4> low = vec<T, 4>(T(0)), high = vec<T, 4>(T(0));
    if (int(row) < rows && k < depth) {
      const device vec<T, 4>* from = (const device vec<T, 4>*)(x + size_t(row) * depth + k);
      low = from[0];
      high = from[1];
    }
    const uint strip = (chain * HALVES + half_run) * (ROWS / 8) + row / 8;
    const uint slot = (strip * 2 + row % 2) * 32 + fragment_lane(c, row & 6);
    slab[2 * slot] = low;
    slab[2 * slot + 1] = high;
  }
}

// Eight steps: t = 8 * half .. 8 * half + 7 of the block, those of weights that come out of a word together one after
// the other.
template <typename F, typename T, typename Run, int STRIPS, int ROW_STRIPS>
METAL_FUNC void multiply_half(
    const thread Run* runs,
    int half_run,
    const threadgroup vec<T, 4>* slab,
    uint lane,
    thread simdgroup_matrix<float, 8, 8>* sums) {
  vec<T, 4> rows[ROW_STRIPS][2][2];
#pragma unroll
  for (int r = 0; r < ROW_STRIPS; ++r) {
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const threadgroup vec<T, 4>* from = slab + ((r * 2 + odd) * 32 + lane) * 2;
      rows[r][odd][0] = from[0];
      rows[r][odd][1] = from[1];
    }
  }
#pragma unroll
  for (int u = 0; u < 8; ++u) {
    const int t = u % 2 * 4 + u / 2;
    simdgroup_matrix<F, 8, 8> left[STRIPS], right;
#pragma unroll
    for (int s = 0; s < STRIPS; ++s) {
      const int i = 8 * half_run + t;
      left[s].thread_elements()[0] = F(runs[s].weight(i));
      left[s].thread_elements()[1] = F(runs[s].weight(16 + i));
    }
#pragma unroll
    for (int r = 0; r < ROW_STRIPS; ++r) {
      right.thread_elements()[0] = F(rows[r][0][t / 4][t % 4]);
      right.thread_elements()[1] = F(rows[r][1][t / 4][t % 4]);
#pragma unroll
      for (int s = 0; s < STRIPS; ++s) {
        thread simdgroup_matrix<float, 8, 8>& sum = sums[s * ROW_STRIPS + r];
        simdgroup_multiply_accumulate(sum, left[s], right, sum);
      }
    }
  }
}

// Leaves the sums in memory[chain][row][column of the tile]; all threads may read them.
// F: the operands' type in the matrix products; float keeps dequantised weights exact.
template <typename T, typename F, typename Weights, int ROWS, int WIDTH, int CHAINS, int STRIPS>
METAL_FUNC void multiply_tile(
    Weights weights,
    const device T* x,
    int rows,
    int first_column,
    threadgroup float* memory,
    uint simdgroup,
    uint lane) {
  typedef VerifyTile<T, ROWS, WIDTH, CHAINS, STRIPS> Tile;
  typedef typename Weights::Run Run;
  constexpr int row_strips = ROWS / 8;
  const int chain = int(simdgroup) / WIDTH, within = int(simdgroup) % WIDTH * 8 * STRIPS;
  const int blocks = (weights.depth + BLOCK - 1) / BLOCK;
  const uint2 place = fragment_place(lane);
  const int column = first_column + within + int(place.x), k = 16 * int(place.y);
  threadgroup vec<T, 4>* slab = (threadgroup vec<T, 4>*)memory;

  simdgroup_matrix<float, 8, 8> sums[STRIPS * row_strips];
  Run runs[STRIPS], next[STRIPS];
#pragma unroll
  for (int i = 0; i < STRIPS * row_strips; ++i) {
    sums[i] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  }
#pragma unroll
  for (int s = 0; s < STRIPS; ++s) {
    next[s] = weights.run(column + 8 * s, chain * BLOCK + k);
  }
  for (int block = 0; block < blocks; block += CHAINS) {
#pragma unroll
    for (int s = 0; s < STRIPS; ++s) {  // the next block's weights are on their way during this one's products
      runs[s] = next[s];
      next[s] = weights.run(column + 8 * s, (block + CHAINS + chain) * BLOCK + k);
    }
#pragma unroll
    for (int half0 = 0; half0 < 2; half0 += Tile::halves) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      stage_rows<T, ROWS, CHAINS, Tile::halves>(
          x, slab, rows, weights.depth, block * BLOCK, half0, simdgroup * 32 + lane, Tile::threads);
      threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
      for (int h = 0; h < Tile::halves; ++h) {
        multiply_half<F, T, Run, STRIPS, row_strips>(
            runs, half0 + h, slab + (chain * Tile::halves + h) * row_strips * 128, lane, sums);
      }
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
  for (int i = 0; i < STRIPS * row_strips; ++i) {
    const int row = chain * ROWS + i % row_strips * 8 + int(place.y);
    const int at = row * Tile::columns + within + i / row_strips * 8 + int(place.x);
    memory[at] = sums[i].thread_elements()[0];
    memory[at + Tile::columns] = sums[i].thread_elements()[1];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
}

// y (rows, columns): the chains' sums in order.
template <typename T, int ROWS, int WIDTH, int CHAINS, int STRIPS>
METAL_FUNC void write_tile(
    device T* y, const threadgroup float* memory, int rows, int columns, int first_column, uint thread_index) {
  typedef VerifyTile<T, ROWS, WIDTH, CHAINS, STRIPS> Tile;
  for (int i = int(thread_index); i < rows * Tile::columns; i += Tile::threads) {
    const int row = i / Tile::columns, column = i % Tile::columns;
    if (first_column + column < columns) {
      float sum = memory[i];
      for (int chain = 1; chain < CHAINS; ++chain) {
        sum += memory[chain * ROWS * Tile::columns + i];
      }
      y[size_t(row) * columns + first_column + column] = T(sum);
    }
  }
}
