#pragma once
// Real models and their results: where they are, and reading NumPy's files.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "support/files.h"

namespace nibble::test {

/// $NIBBLE_REAL_MODELS, by default ~/.cache/nibble-real.
inline std::filesystem::path real_models() {
  if (const char* folder = std::getenv("NIBBLE_REAL_MODELS")) return folder;
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home ? home : ".") / ".cache/nibble-real";
}

/// The values of a version-1 .npy file of float32.
inline std::vector<float> read_npy(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  const size_t header = 10 + static_cast<unsigned char>(bytes.at(8)) + 256u * static_cast<unsigned char>(bytes.at(9));
  std::vector<float> values((bytes.size() - header) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + header, values.size() * sizeof(float));
  return values;
}

}  // namespace nibble::test
