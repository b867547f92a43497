#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nibble::cli {

/// Writes float32 values as a NumPy .npy file (version 1.0, C order). @throws Error when it cannot be written.
void write_npy(const std::string& path, const std::vector<float>& values, const std::vector<int64_t>& shape);

}  // namespace nibble::cli
