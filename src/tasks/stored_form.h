#pragma once
// Between a parameter as models hold it in memory and as files hold it: GPT-2's matrices are [in, out] in files, and
// Gemma's norms are w where the model computes with 1 + w.
#include <set>
#include <string>

#include "core/json.h"
#include "core/tensor.h"
#include "quant/weight_source.h"

namespace nibble {

class StoredForm {
 public:
  /// @param weights  as list_parameters() wants them; may be null
  StoredForm(const Json& config, const std::string& where, const WeightSource* weights = nullptr);

  /// f32 to f32; `name` is the parameter's, with ".weight" or ".bias".
  Tensor to_file(const std::string& name, const Tensor& value) const;
  Tensor to_memory(const std::string& name, const Tensor& value) const;
  Shape to_file_shape(const std::string& name, const Shape& shape) const;
  /// Whether any matrix is [in, out] in files.
  bool turns_matrices() const { return !turned_.empty(); }

 private:
  std::set<std::string, std::less<>> turned_, shifted_;
};

}  // namespace nibble
