// What the attention kernels share: which keys a launch covers, which of them a row sees, and reading them.
//
// The keys of one launch are the context's, then the tree's.  Under a window nobody sees the context between the
// `keep` first keys and the root's window: these `gap` keys are left out, and the rest is numbered without them.
// The rows are the N nodes for one query head, then for the next head of the same KV head, and so on.
#pragma once

// Arrays of simdgroup matrices stay in registers only if every index is known.  On the host it would only cost
// seconds of compilation.
#ifdef __METAL_VERSION__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL
#endif

// Logits are finite, because fast math need not know infinity: an empty row's maximum lies below every logit, and
// a masked logit so far below that its exponential is 0.
constant constexpr float EMPTY = -1e30f;
constant constexpr float MASKED = -2e30f;
constant constexpr float LOG2_E = 1.44269504f;

struct Span {
  int context, nodes, split, window, keep, gap;
  float scale;  // times log2(e): exponentials are of base 2

  explicit Span(const constant int* sizes)
      : context(sizes[0]), nodes(sizes[1]), split(sizes[2]), window(sizes[3]), keep(sizes[4]), gap(sizes[5]),
        scale(as_type<float>(sizes[6])) {}

  int length() const { return context - gap + nodes; }
  int place(int key) const { return key < keep ? key : key + gap; }
  // Whether all rows see the keys before `stop` (without a window).
  bool is_context(int stop) const { return stop <= context - gap; }
};

// The tree: row i of `words` has the bits of i's ancestors and i, W = ceil(nodes / 32) words.
struct Tree {
  const device uint* words;
  const device int* depths;

  template <bool WINDOW>
  METAL_FUNC bool sees(Span span, int node, int key) const {
    const int place = span.place(key), other = place - span.context, reach = span.window - span.keep;
    if (other < 0) {
      return !WINDOW || place < span.keep || place > span.context - reach + depths[node];
    }
    const uint word = words[node * ((span.nodes + 31) / 32) + other / 32];
    return ((word >> uint(other % 32)) & 1u) != 0u && (!WINDOW || depths[other] > depths[node] - reach);
  }
};

// Queries of one KV head by row; any layout.
template <typename T>
struct Queries {
  const device T* data;
  int64_t head_stride, node_stride, stride;
  int nodes;

  METAL_FUNC const device T* from(int row, int column) const {
    return data + row / nodes * head_stride + row % nodes * node_stride + column * stride;
  }
};

// Keys or values of one KV head: a slice of a cache, whose last axis is contiguous.  Rows start at multiples of 4
// columns from its beginning, so four columns are one aligned load.
template <typename T>
struct Rows {
  static constant constexpr int CHUNK = 8;  // columns that one thread copies at once: 16 bytes in 16 bits
  const device T* data;
  int64_t row_stride;

  METAL_FUNC vec<T, 4> four(int row, int column) const {
    return *(const device vec<T, 4>*)(data + row * row_stride + column);
  }

  METAL_FUNC void copy(int row, int chunk, threadgroup T* to) const {
    for (int i = 0; i < CHUNK; i += 4) {
      *(threadgroup vec<T, 4>*)(to + i) = four(row, chunk * CHUNK + i);
    }
  }
};
