#include "tasks/class_names.h"

#include "models/registry.h"

namespace nibble {
namespace {

struct Spelling {
  std::string_view newer, older;  // how names begin
};
constexpr Spelling kSpellings[] = {{"model.language_model.", "language_model.model."},
                                   {"model.vision_tower.", "vision_tower."},
                                   {"model.multi_modal_projector.", "multi_modal_projector."}};

}  // namespace

ClassNames::ClassNames(const LoadedModel& model) {
  // Without files to ask, a model's parameters are described by the names of its class, in the same order.
  const std::vector<Parameter> of_class = list_parameters(model.config, model.path);
  if (of_class.size() != model.parameters.size()) return;
  for (size_t i = 0; i < of_class.size(); ++i) {
    const std::string& stored = model.parameters[i].name;
    if (of_class[i].name == stored || !ends_with_name(of_class[i].name, stored)) continue;
    by_stored_.emplace(owner_of(stored), owner_of(of_class[i].name));
  }
}

std::string ClassNames::of(std::string_view module) const {
  const auto found = by_stored_.find(module);
  return found == by_stored_.end() ? std::string(module) : found->second;
}

std::string_view owner_of(std::string_view parameter) { return parameter.substr(0, parameter.rfind('.')); }

bool ends_with_name(std::string_view module, std::string_view name) {
  if (!module.ends_with(name)) return false;
  return module.size() == name.size() || module[module.size() - name.size() - 1] == '.';
}

std::string one_spelling(std::string name) {
  for (const auto& [newer, older] : kSpellings) {
    if (name.starts_with(newer)) return name.replace(0, newer.size(), older);
  }
  return name;
}

}  // namespace nibble
