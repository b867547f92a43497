#include "cli/npy.h"

#include <fmt/format.h>

#include <cstddef>

namespace nibble::cli {

NpyWriter::NpyWriter(const std::string& path, const std::vector<int64_t>& shape) : file_(path) {
  std::string header =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", fmt::join(shape, ", "));
  const size_t prefix = 10;  // magic, version, header length
  header.append(63 - (prefix + header.size()) % 64, ' ');
  header += '\n';
  std::string start("\x93NUMPY\x01\x00", 8);
  start += static_cast<char>(header.size() & 0xff);
  start += static_cast<char>(header.size() >> 8);
  start += header;
  file_.write(std::as_bytes(std::span(start)));
}

void write_npy(const std::string& path, const std::vector<float>& values, const std::vector<int64_t>& shape) {
  NpyWriter file(path, shape);
  file.append(values);
  file.finish();
}

}  // namespace nibble::cli
