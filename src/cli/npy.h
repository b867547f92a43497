#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/output.h"

namespace nibble::cli {

/// A NumPy .npy file (version 1.0, C order) of float32 values, which come piece by piece.
class NpyWriter {
 public:
  /// @throws Error when it cannot be written.
  NpyWriter(const std::string& path, const std::vector<int64_t>& shape);
  void append(std::span<const float> values) { file_.write(std::as_bytes(values)); }
  /// To be called after as many values as the shape has; without it there is no file.
  void finish() { file_.commit(); }

 private:
  StagedFile file_;
};

/// Writes all values at once.
void write_npy(const std::string& path, const std::vector<float>& values, const std::vector<int64_t>& shape);

}  // namespace nibble::cli
