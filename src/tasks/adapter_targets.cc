#include "tasks/adapter_targets.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "core/error.h"
#include "io/peft.h"

namespace nibble {
namespace {

constexpr std::string_view kAllLinear = "all-linear";
constexpr size_t kListedTensors = 4;

// Fields of adapter_config.json that say which modules get an adapter.
constexpr std::string_view kChoices[] = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"};

// Output heads, which "all-linear" leaves out.
constexpr std::string_view kHeads[] = {"lm_head", "classifier", "score"};

struct DefaultTargets {
  std::string_view model_type;
  std::vector<std::string> names;
};

bool is_all_linear(const std::string& pattern) {
  return std::equal(pattern.begin(), pattern.end(), kAllLinear.begin(), kAllLinear.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b; });
}

std::vector<std::string_view> split(std::string_view name) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    parts.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool is_head(std::string_view module) {
  for (const std::string_view head : kHeads) {
    if (module == head || module.starts_with(std::string(head) + ".") || ends_with_name(module, head)) return true;
  }
  return false;
}

/// Python's re.fullmatch.
bool matches_whole(const Regex& regex, std::string_view text) {
  const std::vector<Span> found = regex.find_all(text);
  return found.size() == 1 && found[0].begin == 0 && found[0].end == text.size();
}

Regex whole_name(const std::string& pattern, const std::string& where) {
  return Regex("\\A(?:" + pattern + ")\\z", where);
}
/// A key of rank_pattern: the whole name, or its end behind a dot.
Regex end_of_name(const std::string& key, const std::string& where) {
  return whole_name("(?:.*\\.)?(?:" + key + ")", where);
}

std::vector<Regex> compile(const ModuleChoice& choice, const std::string& where) {
  if (choice.pattern.empty() || is_all_linear(choice.pattern)) return {};
  return {whole_name(choice.pattern, where)};
}

/// The last number in a name that something stands before and behind: 3 of "model.layers.3.mlp.up_proj". `before`, when
/// there are any, say what.
std::optional<int64_t> layer_index(std::string_view module, const std::vector<Regex>& before) {
  const std::vector<std::string_view> parts = split(module);
  for (size_t i = parts.size() - 1; i-- > 1;) {
    int64_t index = 0;
    const auto [end, error] = std::from_chars(parts[i].data(), parts[i].data() + parts[i].size(), index);
    if (error != std::errc() || end != parts[i].data() + parts[i].size()) continue;
    const std::string_view prefix = module.substr(0, static_cast<size_t>(parts[i].data() - module.data()) - 1);
    const bool named =
        std::any_of(before.begin(), before.end(), [&](const Regex& r) { return matches_whole(r, prefix); });
    if (before.empty() || named) return index;
  }
  return std::nullopt;
}

/// Whether a name of modules_to_save means a module, or what it lies in. Without a dot in front, unlike targets:
/// DistilBERT's pre_classifier is saved with its classifier.
bool saves(const std::string& name, std::string_view module) {
  return module.ends_with(name) || module.starts_with(name + ".") ||
         module.find("." + name + ".") != std::string_view::npos;
}

}  // namespace

AdapterTargets::AdapterTargets(LoraConfig config, std::string where, ClassNames names)
    : config_(std::move(config)), names_(std::move(names)) {
  targets_ = compile(config_.target_modules, where + ": target_modules");
  excluded_ = compile(config_.exclude_modules, where + ": exclude_modules");
  for (const std::string& name : config_.layers_pattern) {
    before_layers_.push_back(end_of_name(name, where + ": layers_pattern"));
  }
  for (const auto& [key, rank] : config_.rank_pattern) {
    ranks_.emplace_back(end_of_name(key, where + ": rank_pattern"), rank);
  }
  for (const auto& [key, alpha] : config_.alpha_pattern) {
    alphas_.emplace_back(end_of_name(key, where + ": alpha_pattern"), alpha);
  }
}

bool AdapterTargets::is_saved(std::string_view stored) const {
  const std::string module = names_.of(stored);
  const std::vector<std::string>& names = config_.modules_to_save;
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return saves(name, module); });
}

bool AdapterTargets::is_in_layers(std::string_view module) const {
  const std::vector<int64_t>& layers = config_.layers_to_transform;
  if (layers.empty()) return true;
  const std::optional<int64_t> index = layer_index(module, before_layers_);
  return index && std::find(layers.begin(), layers.end(), *index) != layers.end();
}

bool AdapterTargets::is_in(const ModuleChoice& choice, const std::vector<Regex>& pattern, std::string_view module,
                           ModuleKind kind) const {
  if (!choice.pattern.empty() && pattern.empty()) return kind == ModuleKind::linear && !is_head(module);
  if (!pattern.empty()) return matches_whole(pattern[0], module);
  return std::any_of(choice.names.begin(), choice.names.end(),
                     [&](const std::string& name) { return ends_with_name(module, name); });
}

bool AdapterTargets::is_target(std::string_view stored, ModuleKind kind) const {
  return !is_saved(stored) && is_named(stored, kind);
}

bool AdapterTargets::is_named(std::string_view stored, ModuleKind kind) const {
  const std::string module = names_.of(stored);
  if (is_in(config_.exclude_modules, excluded_, module, kind)) return false;
  if (!is_in(config_.target_modules, targets_, module, kind)) return false;
  // A module that is named in full is meant whatever its layer.
  const std::vector<std::string>& names = config_.target_modules.names;
  return std::find(names.begin(), names.end(), module) != names.end() || is_in_layers(module);
}

int64_t AdapterTargets::rank(std::string_view stored) const {
  const std::string module = names_.of(stored);
  for (const auto& [regex, rank] : ranks_) {
    if (matches_whole(regex, module)) return rank;
  }
  return config_.r;
}

double AdapterTargets::alpha(std::string_view stored) const {
  const std::string module = names_.of(stored);
  for (const auto& [regex, alpha] : alphas_) {
    if (matches_whole(regex, module)) return alpha;
  }
  return config_.lora_alpha;
}

std::vector<std::string> AdapterTargets::unused_names(const std::vector<std::string>& modules,
                                                      const std::vector<std::string>& others) const {
  std::vector<std::string> unused;
  const auto no_module = [&](std::string_view field, const std::string& is, auto&& means) {
    if (std::any_of(modules.begin(), modules.end(), means)) return;
    unused.push_back(std::string(field) + ": no module is " + printable(is, 100));
  };
  const auto named = [](const std::string& name) {
    return [&name](const std::string& module) { return ends_with_name(module, name); };
  };
  const auto matched = [](const Regex& regex) {
    return [&regex](const std::string& module) { return matches_whole(regex, module); };
  };
  for (const std::string& name : config_.target_modules.names) {
    no_module("target_modules", "called " + name, named(name));
  }
  for (const std::string& name : config_.exclude_modules.names) {
    no_module("exclude_modules", "called " + name, named(name));
  }
  for (const Regex& regex : excluded_) {
    no_module("exclude_modules", "called " + config_.exclude_modules.pattern, matched(regex));
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    no_module("rank_pattern", "called " + config_.rank_pattern[i].first, matched(ranks_[i].first));
  }
  for (size_t i = 0; i < alphas_.size(); ++i) {
    no_module("alpha_pattern", "called " + config_.alpha_pattern[i].first, matched(alphas_[i].first));
  }
  for (const int64_t layer : config_.layers_to_transform) {
    no_module("layers_to_transform", "in layer " + std::to_string(layer),
              [&](const std::string& module) { return layer_index(module, before_layers_) == layer; });
  }
  for (const std::string& name : config_.modules_to_save) {
    const auto saved = [&](const std::string& module) { return saves(name, module); };
    if (std::none_of(others.begin(), others.end(), saved)) no_module("modules_to_save", "called " + name, saved);
  }
  return unused;
}

void refuse_beyond(const std::string& file, const std::vector<std::string>& tensors, const LoraConfig& config) {
  std::string list, says;
  for (size_t i = 0; i < std::min(tensors.size(), kListedTensors); ++i) list += (i ? ", " : "") + tensors[i];
  if (tensors.size() > kListedTensors) list += " and " + std::to_string(tensors.size() - kListedTensors) + " more";
  const Json json = lora_config_json(config);
  for (const std::string_view key : kChoices) {
    const Json* value = json.find_value(key);
    if (value) says += (says.empty() ? "" : ", ") + std::string(key) + ": " + printable(value->dump(), 200);
  }
  fail(ErrorCode::format, file + ": has tensors of modules that " + kAdapterConfigFile + " does not mean: " + list +
                              ". It says " + (says.empty() ? "nothing of modules" : says) +
                              "; let it name them, or take the adapter as it was saved");
}

ModuleChoice default_targets(const std::string& model_type) {
  static const DefaultTargets table[] = {
      {"llama", {"q_proj", "v_proj"}},
      {"mistral", {"q_proj", "v_proj"}},
      {"qwen2", {"q_proj", "v_proj"}},
      {"qwen3", {"q_proj", "v_proj"}},
      {"gemma2", {"q_proj", "v_proj"}},
      {"gemma3_text", {"q_proj", "v_proj"}},
      {"gpt2", {"c_attn"}},
      {"opt", {"q_proj", "v_proj"}},
      {"bert", {"query", "value"}},
      {"roberta", {"query", "value"}},
  };
  for (const DefaultTargets& row : table) {
    if (row.model_type == model_type) return row.names;
  }
  fail(ErrorCode::invalid_argument,
       "target_modules: there is no usual choice for " + model_type + "; name them, or take \"all-linear\"");
}

}  // namespace nibble
