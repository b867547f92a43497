#pragma once
// What a forward pass keeps of its intermediate results. Inference passes a null tape; comparing hidden states,
// calibration and training pass one.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace nibble {

struct Tape {
  std::vector<std::pair<std::string, Tensor>> values;

  void keep(std::string_view name, const Tensor& value) { values.emplace_back(std::string(name), value); }
  /// Null when nothing of that name was kept.
  const Tensor* find(std::string_view name) const {
    for (const auto& [key, value] : values) {
      if (key == name) return &value;
    }
    return nullptr;
  }
};

}  // namespace nibble
