// The convolution's window after an accepted path: the last rows of [window, the path's rows].
#pragma once

struct WindowShape {
  int channels;
  int rows;     // of the window
  int length;   // of the path

  WindowShape(const constant int* sizes) : channels(sizes[0]), rows(sizes[1]), length(sizes[2]) {}
};

template <typename T>
inline void commit_window(
    WindowShape shape, const device T* window, const device T* rows, const device int* path, device T* committed,
    int channel, int row) {
  if (channel < shape.channels) {
    const int place = shape.length + row;
    const device T* source = place < shape.rows ? window + place * shape.channels
                                                : rows + path[place - shape.rows] * shape.channels;
    committed[row * shape.channels + channel] = source[channel];
  }
}
