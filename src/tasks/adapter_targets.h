#pragma once
// Which modules of a model a LoraConfig means, with which rank and scale: PEFT's rules for names.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/lora_config.h"
#include "tasks/class_names.h"
#include "text/regex.h"

namespace nibble {

enum class ModuleKind { linear, embedding };

class AdapterTargets {
 public:
  /// @param where  names the configuration for messages
  /// @param names  of modules that are asked for by the names of the model's files
  /// @throws Error{format} for a pattern that is no regular expression.
  AdapterTargets(LoraConfig config, std::string where, ClassNames names = {});

  bool is_target(std::string_view module, ModuleKind kind) const;
  /// The same but for modules_to_save, in which older versions of PEFT put adapters too.
  bool is_named(std::string_view module, ModuleKind kind) const;
  /// Trained whole and saved: a module of modules_to_save, or inside of one.
  bool is_saved(std::string_view module) const;
  int64_t rank(std::string_view module) const;
  double alpha(std::string_view module) const;
  /// What the configuration says that means nothing in a model, a line each.
  /// @param modules  those that could have an adapter
  /// @param others   those that can only be trained whole
  std::vector<std::string> unused_names(const std::vector<std::string>& modules,
                                        const std::vector<std::string>& others) const;

  const LoraConfig& config() const { return config_; }

 private:
  template <class Value>
  using Pattern = std::vector<std::pair<Regex, Value>>;

  bool is_in(const ModuleChoice& choice, const std::vector<Regex>& pattern, std::string_view module,
             ModuleKind kind) const;
  bool is_in_layers(std::string_view module) const;

  LoraConfig config_;
  ClassNames names_;
  std::vector<Regex> targets_, excluded_;  // of the patterns: none or one
  std::vector<Regex> before_layers_;       // layers_pattern
  Pattern<int64_t> ranks_;
  Pattern<double> alphas_;
};

/// Refuses an adapter that holds more than its configuration says: which of the two is right cannot be told.
/// @param file     with the weights
/// @param tensors  those of modules that the configuration does not mean
[[noreturn]] void refuse_beyond(const std::string& file, const std::vector<std::string>& tensors,
                                const LoraConfig& config);

/// target_modules when the user gives none, as PEFT has them. @throws Error{invalid_argument} for other architectures.
ModuleChoice default_targets(const std::string& model_type);

}  // namespace nibble
