#pragma once
// The weights of a model in memory, without its files.
#include <functional>
#include <map>

#include "models/registry.h"

namespace nibble::test {

/// What the files of a model hold, f32 and in their orientation: zeros, or what `fill` makes of them.
class ModelWeights final : public WeightSource {
 public:
  /// @param dropped_prefix  what the files leave out where a name begins with it
  explicit ModelWeights(const Json& config, const std::function<void(Tensor&)>& fill = {},
                        std::string_view dropped_prefix = "") {
    for (const Parameter& p : list_parameters(config, "config.json")) {
      const std::string name = p.name.starts_with(dropped_prefix) ? p.name.substr(dropped_prefix.size()) : p.name;
      const Shape shape = p.orientation == Orientation::in_out ? Shape{p.shape[1], p.shape[0]} : p.shape;
      Tensor values(DType::f32, shape);
      if (fill) fill(values);
      tensors_.push_back({name, shape, "fp32", values.bytes()});
      values_.emplace(name, std::move(values));
    }
  }

  const std::vector<SourceTensor>& tensors() const override { return tensors_; }
  const SourceTensor* find(std::string_view name) const override {
    for (const SourceTensor& tensor : tensors_) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  }
  Weight load(std::string_view name, Residency) const override { return values_.find(name)->second; }
  std::string origin(std::string_view) const override { return "memory"; }

 private:
  std::vector<SourceTensor> tensors_;
  std::map<std::string, Tensor, std::less<>> values_;
};

}  // namespace nibble::test
