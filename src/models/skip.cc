#include "models/skip.h"

#include <algorithm>
#include <set>

#include "core/error.h"

namespace nibble {
namespace {

constexpr std::string_view kWeight = ".weight";

/// Everything that skip may say: module names, and what is before or behind their dots.
std::set<std::string> skip_names(const std::vector<std::string>& modules) {
  std::set<std::string> names(modules.begin(), modules.end());
  for (const std::string& module : modules) {
    for (size_t dot = module.find('.'); dot != std::string::npos; dot = module.find('.', dot + 1)) {
      names.insert(module.substr(0, dot));
      names.insert(module.substr(dot + 1));
    }
  }
  return names;
}

}  // namespace

std::string_view module_of(std::string_view tensor) {
  return tensor.ends_with(kWeight) ? tensor.substr(0, tensor.size() - kWeight.size()) : tensor;
}

bool is_skipped(std::string_view module, const std::vector<std::string>& skip) {
  for (const std::string& entry : skip) {
    if (entry.empty()) continue;  // would be the end of every name
    if (module.ends_with(entry)) return true;
    if (module.starts_with(entry) && module[entry.size()] == '.') return true;
  }
  return false;
}

void check_skip_names(const std::vector<std::string>& skip, const std::vector<Parameter>& parameters) {
  std::vector<std::string> modules;
  for (const Parameter& parameter : parameters) {
    if (parameter.role == Role::linear || parameter.role == Role::head) modules.emplace_back(module_of(parameter.name));
  }
  for (const std::string& entry : skip) {
    const bool used = std::any_of(modules.begin(), modules.end(),
                                  [&](const std::string& module) { return is_skipped(module, {entry}); });
    if (used) continue;
    const std::set<std::string> names = skip_names(modules);
    const std::string nearest = nearest_name(entry, std::vector<std::string>(names.begin(), names.end()));
    fail(ErrorCode::invalid_argument,
         "skip: '" + entry + "' matches no layer" + (nearest.empty() ? "" : ", the nearest is '" + nearest + "'"));
  }
}

}  // namespace nibble
