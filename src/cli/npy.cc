#include "cli/npy.h"

#include <fmt/format.h>

#include <cstddef>
#include <span>

#include "core/output.h"

namespace nibble::cli {

void write_npy(const std::string& path, const std::vector<float>& values, const std::vector<int64_t>& shape) {
  std::string header =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", fmt::join(shape, ", "));
  const size_t prefix = 10;  // magic, version, header length
  header.append(63 - (prefix + header.size()) % 64, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  file += header;
  const auto bytes = std::as_bytes(std::span(values));
  file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  write_file_atomically(path, std::as_bytes(std::span(file)));
}

}  // namespace nibble::cli
