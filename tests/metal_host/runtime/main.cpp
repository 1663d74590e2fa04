// The entry of the program for AddressSanitizer and UndefinedBehaviorSanitizer, which want a process of their own:
//   program FOLDER COUNT grid(3) threadgroup(3) order seed limit
// Buffer i is the file FOLDER/i, read before and written after.
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "scheduler.h"

extern "C" void host_kernel(void** buffers);

static void transfer(const std::string& path, void* data, size_t size, bool write) {
  FILE* file = fopen(path.c_str(), write ? "wb" : "rb");
  size_t done = !file ? 0 : write ? fwrite(data, 1, size, file) : fread(data, 1, size, file);
  if (!file || done != size || fclose(file)) {
    perror(path.c_str());
    exit(2);
  }
}

int main(int, char** arguments) {
  std::string folder = arguments[1];
  int count = atoi(arguments[2]);
  uint32_t numbers[9];
  for (int i = 0; i < 9; ++i) numbers[i] = uint32_t(strtoul(arguments[3 + i], nullptr, 10));
  std::vector<void*> buffers(count);
  std::vector<size_t> sizes(count);
  for (int i = 0; i < count; ++i) {
    std::string path = folder + "/" + std::to_string(i);
    struct stat facts;
    if (stat(path.c_str(), &facts)) return 2;
    sizes[i] = size_t(facts.st_size);
    if (posix_memalign(&buffers[i], 64, sizes[i])) return 2;
    transfer(path, buffers[i], sizes[i], false);
  }
  host::Options options = {int32_t(numbers[6]), numbers[7], numbers[8]};
  host::Statistics statistics;
  const char* report = host::run(host_kernel, buffers.data(), numbers, numbers + 3, options, statistics);
  if (report) {
    fprintf(stderr, "%s\n", report);
    return 1;
  }
  for (int i = 0; i < count; ++i) transfer(folder + "/" + std::to_string(i), buffers[i], sizes[i], true);
  printf("%lu %lu %lu\n", statistics.threads, statistics.switches, statistics.threadgroup_bytes);
  return 0;
}
