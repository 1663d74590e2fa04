// The buffers of a launch as memory.cpp watches them.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace host {

struct Buffer {
  const char* name;
  void* data;        // the caller's memory; outputs are copied back to it
  uint64_t size;
  uint32_t written;  // 0: an input, that the kernel must not write to
  uint32_t counted;  // 0: shapes and strides
  uint64_t bytes_read, bytes_written;
};

// Watches `copies[i]` as the memory of buffers[i].
void watch(Buffer* buffers, char** copies, uint32_t count);
void forget();

}  // namespace host
