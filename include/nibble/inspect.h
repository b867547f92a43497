#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

struct TensorInfo {
  std::string name = {}, dtype = {};  ///< dtype: "bf16", "nf4", "q4_1", ...
  std::vector<int64_t> shape = {};
  uint64_t bytes = 0;
};

struct ModelDescription {
  std::string path = {}, architecture = {}, model_type = {};
  std::string quantization = {};  ///< "none", "nf4", "nf4 + double quantization", "q4_1", ...
  int64_t parameters = 0;
  uint64_t bytes = 0;
  int64_t vocab_size = 0, context_length = 0, layers = 0, hidden_size = 0;
  bool supported = false;  ///< nibble can run it
  std::vector<TensorInfo> tensors = {};
};

/// What is in a model, from its headers alone.
ModelDescription inspect(const std::string& model);

}  // namespace nibble
