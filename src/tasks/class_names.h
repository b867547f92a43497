#pragma once
// How PEFT names the modules of a model, which is how the model's class in transformers does. Files may have other
// names: those of OpenAI's GPT-2 lack the prefix "transformer.".
#include <map>
#include <string>
#include <string_view>

#include "tasks/loaded_model.h"

namespace nibble {

/// A file that lacks tensors which the configuration alone would have is taken to have the names of the class.
class ClassNames {
 public:
  /// Of a model whose files have the names of its class.
  ClassNames() = default;
  explicit ClassNames(const LoadedModel& model);

  /// module: by the name that its tensors have in the model's files
  std::string of(std::string_view module) const;

 private:
  std::map<std::string, std::string, std::less<>> by_stored_;  // those that differ
};

/// The module of a parameter: its name but for the last part.
std::string_view owner_of(std::string_view parameter);

/// Whether a module name is `name` or ends with it behind a dot.
bool ends_with_name(std::string_view module, std::string_view name);

/// One spelling for the two that versions of transformers have for the parts of multimodal models:
/// "language_model.model.X" for "model.language_model.X", "vision_tower.X" for "model.vision_tower.X".
std::string one_spelling(std::string name);

}  // namespace nibble
