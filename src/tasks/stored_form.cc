#include "tasks/stored_form.h"

#include "models/registry.h"
#include "ops/elementwise.h"

namespace nibble {
namespace {

Tensor shifted(const Tensor& value, float by) {
  Tensor out = copy_of(value);
  for (int64_t i = 0; i < out.count(); ++i) out.f32()[i] += by;
  return out;
}

}  // namespace

StoredForm::StoredForm(const Json& config, const std::string& where, std::span<const Parameter> parameters) {
  const bool is_gemma = find_architecture(config, where).model_type.starts_with("gemma");
  for (const Parameter& parameter : parameters) {
    if (parameter.orientation == Orientation::in_out) turned_.insert(parameter.name);
    // Gemma has no other vectors but norms and biases.
    if (is_gemma && parameter.role == Role::vector && parameter.name.ends_with(".weight")) {
      shifted_.insert(parameter.name);
    }
  }
}

Tensor StoredForm::to_file(const std::string& name, const Tensor& value) const {
  if (shifted_.contains(name)) return shifted(value, -1.0f);
  return turned_.contains(name) ? value.transposed() : value;
}

Tensor StoredForm::to_memory(const std::string& name, const Tensor& value) const {
  if (shifted_.contains(name)) return shifted(value, 1.0f);
  return turned_.contains(name) ? value.transposed() : value;
}

Shape StoredForm::to_file_shape(const std::string& name, const Shape& shape) const {
  return turned_.contains(name) ? Shape{shape.at(1), shape.at(0)} : shape;
}

std::vector<SourceTensor> trained_model_tensors(const ModelFiles& files) {
  std::vector<SourceTensor> tensors = files.weights->tensors();
  const std::string tied = outline_model(files.config, files.path.string(), files.weights.get()).tied_head;
  if (!tied.empty()) std::erase_if(tensors, [&](const SourceTensor& t) { return t.name == tied + ".weight"; });
  return tensors;
}

}  // namespace nibble
