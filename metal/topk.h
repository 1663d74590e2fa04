#pragma once

// The k best of many values, best first, ties by the smaller id, and the log of the sum of their exponentials.  Partial
// results are lists of k entries (key, id) in order, and pairs (largest, sum of exp(value - largest)).
//
// Values are compared as keys, unsigned words in the order of the floats, -inf included; 0 means no entry.
// So nothing depends on how fast mathematics treats infinities.

constant constexpr int NO_ID = 0x7fffffff;
constant constexpr float LOWEST = -3.0e38f;  // instead of -inf, which fast mathematics may assume away

METAL_FUNC uint order_key(float value) {
  uint bits = as_type<uint>(value);
  bits = bits == 0x80000000u ? 0u : bits;  // -0 equals 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

METAL_FUNC float key_value(uint key) {
  return as_type<float>((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
}

// (key, id) of the better of two entries.
METAL_FUNC uint2 better(uint2 a, uint2 b) {
  return a.x > b.x || (a.x == b.x && a.y < b.y) ? a : b;
}

METAL_FUNC uint2 simd_best(uint2 entry) {
  const uint key = simd_max(entry.x);
  return uint2(key, simd_min(entry.x == key ? entry.y : uint(NO_ID)));
}

// The sum of exponentials of all lanes' (largest, sum).
METAL_FUNC float2 simd_add_exp(float2 part) {
  const float largest = simd_max(part.x);
  return float2(largest, simd_sum(part.y * exp(part.x - largest)));
}

METAL_FUNC float2 add_exp(float2 a, float2 b) {
  const float largest = max(a.x, b.x);
  return float2(largest, a.y * exp(a.x - largest) + b.y * exp(b.x - largest));
}

// A lane's COUNT values: the entry i has id `first` + 32 i.
template <int COUNT>
METAL_FUNC uint2 best_of(const thread uint* keys, uint first) {
  uint2 best = uint2(0, NO_ID);
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    if (keys[i] > best.x) {
      best = uint2(keys[i], first + 32 * i);
    }
  }
  return best;
}

template <int COUNT>
METAL_FUNC float2 simd_sum_exp(const thread uint* keys) {
  float largest = LOWEST;
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    largest = max(largest, keys[i] != 0 ? key_value(keys[i]) : LOWEST);
  }
  largest = simd_max(largest);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    sum += keys[i] != 0 ? exp(key_value(keys[i]) - largest) : 0.0f;
  }
  return float2(largest, simd_sum(sum));
}

// The k best of a simdgroup's 32 * COUNT values into entries[0 .. k), by taking out one best after the other.
// Entries: `device uint2*` or `threadgroup uint2*`.
template <int COUNT, typename Entries>
METAL_FUNC void simd_top_k(thread uint* keys, uint first, int k, uint lane, Entries entries) {
  uint2 mine = best_of<COUNT>(keys, first);
  for (int j = 0; j < k; ++j) {
    const uint2 top = simd_best(mine);
    if (lane == 0) {
      entries[j] = top;
    }
    if (mine.y == top.y) {
#pragma unroll
      for (int i = 0; i < COUNT; ++i) {
        keys[i] = first + 32 * i == top.y ? 0 : keys[i];
      }
      mine = best_of<COUNT>(keys, first);
    }
  }
}

// Up to 32 lists of k in threadgroup memory into one, by one simdgroup: each lane offers its list's next entry.
METAL_FUNC void merge_lists(const threadgroup uint2* lists, uint count, int k, uint lane, device uint2* entries) {
  int taken = 0;
  uint2 head = lane < count ? lists[lane * k] : uint2(0, NO_ID);
  for (int j = 0; j < k; ++j) {
    const uint2 top = simd_best(head);
    if (lane == 0) {
      entries[j] = top;
    }
    if (lane < count && head.y == top.y) {
      ++taken;
      head = taken < k ? lists[lane * k + taken] : uint2(0, NO_ID);
    }
  }
}

// One chunk of a row of logits: SIMDGROUPS times 32 * COUNT tokens.  lists: SIMDGROUPS * k, parts: SIMDGROUPS.
template <typename T, int COUNT, int SIMDGROUPS>
METAL_FUNC void chunk_top_k(
    const device T* logits,
    int vocab,
    int chunk,
    int k,
    device uint2* entries,
    device float2* sum,
    threadgroup uint2* lists,
    threadgroup float2* parts,
    uint simdgroup,
    uint lane) {
  const uint first = (chunk * SIMDGROUPS + simdgroup) * 32 * COUNT + lane;
  uint keys[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const uint id = first + 32 * i;
    keys[i] = id < uint(vocab) ? order_key(float(logits[id])) : 0;
  }
  const float2 part = simd_sum_exp<COUNT>(keys);
  if (lane == 0) {
    parts[simdgroup] = part;
  }
  simd_top_k<COUNT>(keys, first, k, lane, lists + simdgroup * k);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (simdgroup == 0) {
    const float2 all = simd_add_exp(lane < uint(SIMDGROUPS) ? parts[lane] : float2(LOWEST, 0.0f));
    if (lane == 0) {
      sum[0] = all;
    }
    merge_lists(lists, SIMDGROUPS, k, lane, entries);
  }
}

// All lists of a row into one; 32 * SIMDGROUPS threads take up to LISTS lists each.  best: k ids, then the bits of k
// values, which are log-probabilities if LOG_PROBS.  tops: 2 * SIMDGROUPS, parts: SIMDGROUPS.
template <int LISTS, int SIMDGROUPS, bool LOG_PROBS>
METAL_FUNC void merge_top_k(
    const device uint2* entries,
    const device float2* sums,
    int lists,
    int k,
    device int* best,
    device float* log_sum,
    threadgroup uint2* tops,
    threadgroup float2* parts,
    uint simdgroup,
    uint lane) {
  const int first = int(simdgroup * 32 + lane);
  uint2 heads[LISTS], mine = uint2(0, NO_ID);
  int taken[LISTS];
  float2 sum = float2(LOWEST, 0.0f);
#pragma unroll
  for (int i = 0; i < LISTS; ++i) {
    const int list = first + i * 32 * SIMDGROUPS;
    heads[i] = list < lists ? entries[list * k] : uint2(0, NO_ID);
    mine = better(mine, heads[i]);
    taken[i] = 0;
    if (list < lists) {
      sum = add_exp(sum, sums[list]);
    }
  }
  sum = simd_add_exp(sum);
  if (lane == 0) {
    parts[simdgroup] = sum;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  sum = simd_add_exp(lane < uint(SIMDGROUPS) ? parts[lane] : float2(LOWEST, 0.0f));
  const float log_total = sum.x + log(sum.y);
  if (first == 0) {
    log_sum[0] = log_total;
  }
  for (int j = 0; j < k; ++j) {
    threadgroup uint2* turn = tops + j % 2 * SIMDGROUPS;  // two, so that one barrier a turn is enough
    uint2 top = simd_best(mine);
    if (lane == 0) {
      turn[simdgroup] = top;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    top = simd_best(lane < uint(SIMDGROUPS) ? turn[lane] : uint2(0, NO_ID));
    if (first == 0) {
      best[j] = int(top.y);
      best[k + j] = as_type<int>(LOG_PROBS ? key_value(top.x) - log_total : key_value(top.x));
    }
    if (mine.y == top.y) {
      mine = uint2(0, NO_ID);
#pragma unroll
      for (int i = 0; i < LISTS; ++i) {
        if (heads[i].y == top.y) {
          const int list = first + i * 32 * SIMDGROUPS;
          ++taken[i];
          heads[i] = list < lists && taken[i] < k ? entries[list * k + taken[i]] : uint2(0, NO_ID);
        }
        mine = better(mine, heads[i]);
      }
    }
  }
}
