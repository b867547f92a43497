#pragma once
// The bytes of a fuzzer as a file, because the readers take files.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace nibble {

/// The name of a file in memory that holds these bytes until the next call.
inline std::string memory_file(const uint8_t* data, size_t size) {
  static const int fd = memfd_create("fuzz", 0);
  if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  return "/proc/self/fd/" + std::to_string(fd);
}

}  // namespace nibble
