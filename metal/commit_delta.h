// The state after an accepted path: S = exp(l_m) S_0 + sum over its nodes a of exp(l_m - l_a) u_a k_a^T.
//
// A threadgroup takes ROWS rows of a head's state, a thread one column of them (Dk threads): S_0 is read once, S
// written once, both by whole rows, and a key is loaded once for ROWS multiplications.
#pragma once

// Nodes whose weighted updates are in threadgroup memory at a time; longer paths take several turns.
#define COMMIT_TURN 16

struct CommitShape {
  int length;     // of the path
  int nodes;      // of the tree
  int key_heads;
  int heads;
  int dv;

  CommitShape(const constant int* sizes)
      : length(sizes[0]), nodes(sizes[1]), key_heads(sizes[2]), heads(sizes[3]), dv(sizes[4]) {}
};

template <int DK, int ROWS, typename T, typename State>
inline void commit_delta(
    CommitShape shape, const device float* updates, const device T* keys, const device float* log_decay,
    const device State* state, const device int* path, device State* committed, threadgroup float* weighted,
    threadgroup int* turned, uint3 group, uint column) {
  const int head = int(group.y), first_row = int(group.x) * ROWS;
  const int key_head = head / (shape.heads / shape.key_heads);
  const float last = log_decay[head * shape.nodes + path[shape.length - 1]];
  const size_t from = (size_t(head) * shape.dv + first_row) * DK + column;

  float sum[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    sum[r] = metal::precise::exp(last) * float(state[from + r * DK]);
  }
  for (int turn = 0; turn < shape.length; turn += COMMIT_TURN) {
    const int count = min(COMMIT_TURN, shape.length - turn);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int a = int(column); a < count; a += DK) {
      turned[a] = path[turn + a];
    }
    for (int e = int(column); e < count * ROWS; e += DK) {
      const int node = path[turn + e / ROWS];
      const float weight = metal::precise::exp(last - log_decay[head * shape.nodes + node]);
      weighted[e] = weight * updates[(head * shape.nodes + node) * shape.dv + first_row + e % ROWS];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int a = 0; a < count; a++) {
      const float key = float(keys[(turned[a] * shape.key_heads + key_head) * DK + int(column)]);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        sum[r] += weighted[a * ROWS + r] * key;
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    committed[from + r * DK] = State(sum[r]);
  }
}
