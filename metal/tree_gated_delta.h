// Gated delta attention over a draft tree in closed form; mlx_ddtree/kernels/gated_delta.py has the equations.
//
// A threadgroup takes a slice of a value head's state S_0 (some of its Dv rows), a simdgroup 8 rows of it: they stay in
// registers as tiles, so S_0 is read once however many nodes there are.  Column d of U depends on row d of S_0
// only, so simdgroups share nothing but A and the nodes' attention to each other, which do not depend on the state.
// Both are made 8 nodes (a tile row) at a time by all simdgroups together, and every slice makes them again.  With 64
// rows to a slice that is a quarter of the arithmetic for 32 nodes.  A kernel of their own would pass them through
// device memory (half as many bytes as the state for 64 nodes) and be a launch that nothing overlaps with.
//
// The triangular system is solved by tile rows: U_i = inverse(I + A_ii) (right_i - sum over j < i of A_ij U_j).
#pragma once
#include "tile8.h"

// Elements from one staged row to the next: 8 more than it has, so that a tile's rows lie in different banks.
constexpr int staged_stride(int dk) {
  return dk + 8;
}

struct TreeDeltaHead {
  int count;      // nodes
  int key_heads;
  int heads;      // value heads
  int dv;
  int head;
  int key_head;

  TreeDeltaHead(const constant int* sizes, int head)
      : count(sizes[0]), key_heads(sizes[1]), heads(sizes[2]), dv(sizes[3]), head(head),
        key_head(head / (sizes[2] / sizes[1])) {}
};

// A threadgroup's memory; rows past the last node, up to a full tile, are zeros throughout.
template <typename T>
struct TreeDeltaMemory {
  threadgroup T* staged;         // keys, then queries, of 8 nodes
  threadgroup float* system;     // a tile row of -A, tile after tile
  threadgroup float* attention;  // the same of exp(l_t - l_a) (k_a . q_t), for t's ancestors a and t itself
  threadgroup float* inverse;    // of I + A_ii
  threadgroup float* updated;    // U, for every simdgroup tile after tile
  threadgroup float* decay;      // l
  threadgroup float* rate;       // beta
};

// Rates, and gates added up along paths.  The tile row of -A, not needed yet, holds the gates.
template <typename T, typename Beta>
inline void read_gates(
    TreeDeltaHead at, TreeDeltaMemory<T> memory, const device float* log_gates, const device Beta* beta,
    const device uint* ancestors, int nodes, int thread_index, int threads) {
  for (int t = thread_index; t < nodes; t += threads) {
    memory.rate[t] = t < at.count ? float(beta[t * at.heads + at.head]) : 0.0f;
    memory.system[t] = t < at.count ? log_gates[t * at.heads + at.head] : 0.0f;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const int words = (at.count + 31) / 32;
  for (int t = thread_index; t < nodes; t += threads) {
    float sum = 0.0f;
    for (int w = 0; w < words && t < at.count; w++) {
      for (uint bits = ancestors[t * words + w]; bits != 0; bits &= bits - 1) {
        sum += memory.system[32 * w + int(ctz(bits))];
      }
    }
    memory.decay[t] = sum;
  }
}

template <int DK, typename T>
inline void stage_nodes(
    TreeDeltaHead at, TreeDeltaMemory<T> memory, const device T* keys, const device T* queries, int first,
    int thread_index, int threads) {
  for (int e = thread_index; e < 8 * DK; e += threads) {
    const int row = e / DK, k = e % DK;
    const int from = ((first + row) * at.key_heads + at.key_head) * DK + k;
    const int to = row * staged_stride(DK) + k;
    memory.staged[to] = first + row < at.count ? keys[from] : T(0);
    memory.staged[8 * staged_stride(DK) + to] = first + row < at.count ? queries[from] : T(0);
  }
}

// Adds the 8 staged keys and queries times 8 rows from `right`, transposed: keys of nodes, or rows of the state.
template <int DK, typename T, typename Pointer>
inline void add_staged_products(
    const threadgroup T* staged, Pointer right, int right_stride, TilePlace place, thread Tile& of_keys,
    thread Tile& of_queries) {
  for (int k = 0; k < DK; k += 8) {
    const Tile other = load_tile(right + k, 1, right_stride, place);
    add_product(of_keys, load_tile(staged + k, staged_stride(DK), 1, place), other);
    add_product(of_queries, load_tile(staged + 8 * staged_stride(DK) + k, staged_stride(DK), 1, place), other);
  }
}

// Tile (i, j) of -A and of the attention from the products of nodes.
template <typename T>
inline void weigh_products(
    TreeDeltaHead at, TreeDeltaMemory<T> memory, const device uint* ancestors, int i, int j, TilePlace place,
    thread Tile& of_keys, thread Tile& of_queries) {
  const int t = 8 * i + place.row, first = 8 * j + place.column, words = (at.count + 31) / 32;
  const uint bits = t < at.count ? ancestors[t * words + first / 32] >> (first % 32) : 0u;
  for (int e = 0; e < 2; e++) {
    const int a = first + e;
    const float weight = (bits >> e) & 1 ? metal::precise::exp(memory.decay[t] - memory.decay[a]) : 0.0f;
    of_keys.thread_elements()[e] *= a == t ? 0.0f : -memory.rate[t] * weight;
    of_queries.thread_elements()[e] *= weight;
  }
}

// inverse(I + A_ii) by substitution, a column to a lane.
inline void invert(const threadgroup float* system, threadgroup float* inverse, uint lane) {
  if (lane < 8) {
    float column[8];
    for (int r = 0; r < 8; r++) {
      float x = r == int(lane) ? 1.0f : 0.0f;
      for (int a = 0; a < r; a++) {
        x += system[r * 8 + a] * column[a];
      }
      column[r] = x;
      inverse[r * 8 + int(lane)] = x;
    }
  }
}

// Tile row i of -A and of the attention, a tile to a simdgroup.
template <int DK, int SIMDGROUPS, typename T>
inline void make_tile_row(
    TreeDeltaHead at, TreeDeltaMemory<T> memory, const device T* keys, const device uint* ancestors, int i,
    int simdgroup, uint lane) {
  const TilePlace place(lane);
  for (int j = simdgroup; j <= i; j += SIMDGROUPS) {
    Tile of_keys = zero_tile(), of_queries = zero_tile();
    if (j == i) {
      add_staged_products<DK>(memory.staged, memory.staged, staged_stride(DK), place, of_keys, of_queries);
    } else {
      const device T* earlier = keys + (8 * j * at.key_heads + at.key_head) * DK;
      add_staged_products<DK>(memory.staged, earlier, at.key_heads * DK, place, of_keys, of_queries);
    }
    weigh_products(at, memory, ancestors, i, j, place, of_keys, of_queries);
    store_tile(of_keys, memory.system + 64 * j, place);
    store_tile(of_queries, memory.attention + 64 * j, place);
    if (j == i) {
      simdgroup_barrier(mem_flags::mem_threadgroup);
      invert(memory.system + 64 * i, memory.inverse, lane);
    }
  }
}

// U_i and the outputs of tile row i.  right: K_i S_0^T, result: Q_i S_0^T, for this simdgroup's 8 rows of S_0 from
// first_row on.
template <typename T>
inline void solve_tile_row(
    TreeDeltaHead at, TreeDeltaMemory<T> memory, const device T* values, device T* out, device float* updates, int i,
    int first_row, threadgroup float* own_updated, TilePlace place, Tile right, Tile result) {
  const int t = 8 * i + place.row, column = first_row + place.column;
  const float from_root = metal::precise::exp(memory.decay[t]);
  for (int e = 0; e < 2; e++) {
    const float value = t < at.count ? float(values[(t * at.heads + at.head) * at.dv + column + e]) : 0.0f;
    right.thread_elements()[e] = memory.rate[t] * (value - from_root * right.thread_elements()[e]);
    result.thread_elements()[e] *= from_root;
  }
  for (int j = 0; j < i; j++) {
    const Tile earlier = load_tile(own_updated + 64 * j, 8, 1, place);
    add_product(right, load_tile(memory.system + 64 * j, 8, 1, place), earlier);
    add_product(result, load_tile(memory.attention + 64 * j, 8, 1, place), earlier);
  }
  Tile update = zero_tile();
  add_product(update, load_tile(memory.inverse, 8, 1, place), right);
  add_product(result, load_tile(memory.attention + 64 * i, 8, 1, place), update);
  store_tile(update, own_updated + 64 * i, place);
  for (int e = 0; e < 2 && t < at.count; e++) {
    updates[(at.head * at.count + t) * at.dv + column + e] = update.thread_elements()[e];
    out[(t * at.heads + at.head) * at.dv + column + e] = T(result.thread_elements()[e]);
  }
}

template <int DK, int NODES, int SIMDGROUPS, typename T, typename Beta, typename State>
inline void tree_gated_delta(
    TreeDeltaHead at, TreeDeltaMemory<T> memory, const device T* queries, const device T* keys, const device T* values,
    const device float* log_gates, const device Beta* beta, const device State* state, const device uint* ancestors,
    device T* out, device float* updates, device float* log_decay, uint slice, uint simdgroup, uint lane) {
  const int thread_index = int(simdgroup * 32 + lane), threads = SIMDGROUPS * 32;
  const int first_row = (int(slice) * SIMDGROUPS + int(simdgroup)) * 8;
  const TilePlace place(lane);

  Tile transposed[DK / 8];  // 8 of Dk x 8 of Dv each
  const device State* own_state = state + (size_t(at.head) * at.dv + first_row) * DK;
#pragma unroll
  for (int k = 0; k < DK / 8; k++) {
    transposed[k] = load_tile(own_state + 8 * k, 1, DK, place);
  }
  read_gates(at, memory, log_gates, beta, ancestors, NODES, thread_index, threads);
  for (int t = thread_index; t < at.count && slice == 0; t += threads) {
    log_decay[at.head * at.count + t] = memory.decay[t];  // this thread has written it
  }

  for (int i = 0; 8 * i < at.count; i++) {
    stage_nodes<DK>(at, memory, keys, queries, 8 * i, thread_index, threads);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    make_tile_row<DK, SIMDGROUPS>(at, memory, keys, ancestors, i, int(simdgroup), lane);
    Tile right = zero_tile(), result = zero_tile();
#pragma unroll
    for (int k = 0; k < DK / 8; k++) {
      const threadgroup T* key = memory.staged + 8 * k;
      add_product(right, load_tile(key, staged_stride(DK), 1, place), transposed[k]);
      add_product(result, load_tile(key + 8 * staged_stride(DK), staged_stride(DK), 1, place), transposed[k]);
    }
    // After this barrier nothing staged is read, and the next one comes before the tile row is written again.
    threadgroup_barrier(mem_flags::mem_threadgroup);
    solve_tile_row(
        at, memory, values, out, updates, i, first_row, memory.updated + int(simdgroup) * 8 * NODES, place, right, result);
  }
}
