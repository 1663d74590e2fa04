// The causal depthwise convolution of a tree's rows, SiLU, and the split into queries, keys and values.
//
// A threadgroup takes CHANNELS channels of all nodes: every row is read from device memory once, however many nodes
// have it among their last KERNEL tokens, and 128 bytes of it in one piece.  The places come from a table.
#pragma once

struct ConvShape {
  int count;     // nodes
  int channels;
  int key_dim;   // channels of the queries, and of the keys

  ConvShape(const constant int* sizes) : count(sizes[0]), channels(sizes[1]), key_dim(sizes[2]) {}
};

template <int KERNEL, int CHANNELS, int NODE_LANES, typename T, typename Weight>
inline void tree_conv(
    ConvShape shape, const device T* rows, const device T* before, const device Weight* weight,
    const device int* table, device T* queries, device T* keys, device T* values, threadgroup T* past,
    threadgroup int* places, uint tile, uint2 thread_place) {
  const int local = int(thread_place.x), channel = int(tile) * CHANNELS + local;
  const bool inside = channel < shape.channels;
  for (int place = int(thread_place.y); place < KERNEL - 1 + shape.count && inside; place += NODE_LANES) {
    const int row = place - (KERNEL - 1);
    past[place * CHANNELS + local] =
        row < 0 ? before[place * shape.channels + channel] : rows[row * shape.channels + channel];
  }
  for (int e = int(thread_place.y) * CHANNELS + local; e < shape.count * KERNEL; e += NODE_LANES * CHANNELS) {
    places[e] = table[e];
  }
  float taps[KERNEL];
#pragma unroll
  for (int tap = 0; tap < KERNEL; tap++) {
    taps[tap] = inside ? float(weight[channel * KERNEL + tap]) : 0.0f;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  // This channel's output, and how far its rows are apart.
  const int part = min(channel / shape.key_dim, 2);
  device T* out = part == 0 ? queries : part == 1 ? keys : values;
  const int width = part < 2 ? shape.key_dim : shape.channels - 2 * shape.key_dim;
  for (int t = int(thread_place.y); t < shape.count && inside; t += NODE_LANES) {
    float sum = 0.0f;
#pragma unroll
    for (int tap = 0; tap < KERNEL; tap++) {
      sum += taps[tap] * float(past[places[t * KERNEL + tap] * CHANNELS + local]);
    }
    const float small = metal::precise::exp(-metal::abs(sum));  // never overflows
    out[t * width + channel - part * shape.key_dim] = T(sum * (sum < 0.0f ? small : 1.0f) / (1.0f + small));
  }
}
