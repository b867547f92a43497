#pragma once
// Between a parameter as models hold it in memory and as files hold it: GPT-2's matrices are [in, out] in files, and
// Gemma's norms are w where the model computes with 1 + w.
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/tensor.h"
#include "io/model_files.h"
#include "models/loader.h"

namespace nibble {

class StoredForm {
 public:
  StoredForm(const Json& config, const std::string& where, std::span<const Parameter> parameters);

  /// f32 to f32; `name` is the parameter's, with ".weight" or ".bias".
  Tensor to_file(const std::string& name, const Tensor& value) const;
  Tensor to_memory(const std::string& name, const Tensor& value) const;
  Shape to_file_shape(const std::string& name, const Shape& shape) const;
  /// What a value is in memory that is 0 in files.
  float zero(const std::string& name) const { return shifted_.contains(name) ? 1.0f : 0.0f; }
  /// Whether any matrix is [in, out] in files.
  bool turns_matrices() const { return !turned_.empty(); }

 private:
  std::set<std::string, std::less<>> turned_, shifted_;
};

/// What a folder of trained parameters holds: all tensors of the model's files but a tied head that these hold a second
/// time, which would be the untrained one.
std::vector<SourceTensor> trained_model_tensors(const ModelFiles& files);

}  // namespace nibble
