#include "tasks/merge_adapter.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/error.h"
#include "io/peft.h"
#include "ops/elementwise.h"
#include "tasks/adapter_targets.h"
#include "tasks/class_names.h"
#include "train/parameters.h"

namespace nibble {
namespace {

constexpr size_t kListedMismatches = 10;

struct Suffix {
  std::string_view text;
  Tensor Lora::*part;
  bool turned;  // embeddings: the matrix is [rows, cols] = (B A)^T, so the two change places
};
constexpr std::array<Suffix, 6> kParts = {{{".lora_A.weight", &Lora::a, false},
                                           {".lora_B.weight", &Lora::b, false},
                                           {".lora_embedding_A", &Lora::b, true},
                                           {".lora_embedding_B", &Lora::a, true},
                                           {".lora_magnitude_vector", &Lora::magnitude, false},
                                           {".lora_magnitude_vector.weight", &Lora::magnitude, false}}};
constexpr std::string_view kBias = ".lora_B.bias";

/// The file's tensors, by the adapter's own names of modules and tensors.
struct Contents {
  std::map<std::string, Lora> modules;
  std::map<std::string, Tensor> replaced;
  std::set<std::string> of_base;       // those of them that lie inside of a layer with an adapter
  std::map<std::string, Tensor> bias;  // of B, by module
};

Tensor read_values(const SafetensorsFile& file, const SafetensorsEntry& entry, const std::string& where) {
  const Tensor stored = file.load(entry.name);
  if (!is_float(stored.dtype)) fail(ErrorCode::format, where + ": found " + entry.dtype + ", expected a float type");
  return stored.cast(DType::f32);
}

Contents read_tensors(const SafetensorsFile& file) {
  Contents contents;
  for (const SafetensorsEntry& entry : file.entries()) {
    const std::string where = file.path().string() + ": '" + printable(entry.name, 200) + "'";
    std::string name = entry.name;
    if (name.starts_with(kAdapterPrefix)) name.erase(0, kAdapterPrefix.size());
    const Tensor values = read_values(file, entry, where);
    if (name.ends_with(kBias)) {
      contents.bias.emplace(name.substr(0, name.size() - kBias.size()), values);
      continue;
    }
    const auto part =
        std::find_if(kParts.begin(), kParts.end(), [&](const Suffix& s) { return name.ends_with(s.text); });
    if (part == kParts.end()) {
      const std::optional<ReplacedParameter> replaced = replaced_parameter(name);
      if (!replaced) continue;
      contents.replaced.emplace(replaced->name, values);
      if (replaced->in_base_layer && name.ends_with(".weight")) contents.of_base.insert(replaced->name);
      continue;
    }
    const size_t rank = part->part == &Lora::magnitude ? 1 : 2;
    if (values.shape.size() != rank || values.count() == 0) {
      fail(ErrorCode::format,
           where + ": found shape " + shape_text(values.shape) + ", expected " + std::to_string(rank) + " dimensions");
    }
    Lora& lora = contents.modules[name.substr(0, name.size() - part->text.size())];
    lora.*(part->part) = part->turned ? values.transposed() : values;
  }
  return contents;
}

/// The parameter that an adapter's name means: the same, or one of the two with a prefix in front.
const Parameter* find_parameter(const std::vector<Parameter>& parameters, const std::string& of_adapter) {
  const std::string name = one_spelling(of_adapter);
  const Parameter* found = nullptr;
  int matches = 0;
  for (const Parameter& parameter : parameters) {
    const std::string stored = one_spelling(parameter.name);
    if (stored == name) return &parameter;
    if (!ends_with_name(stored, name) && !ends_with_name(name, stored)) continue;
    found = &parameter;
    ++matches;
  }
  return matches == 1 ? found : nullptr;
}

/// In which way an adapter of one module does not fit; empty when it does.
std::string misfit(const Lora& lora, const Parameter* parameter) {
  if (lora.a.empty() || lora.b.empty()) return "A or B is missing";
  if (parameter == nullptr) return "the model has no such layer";
  const Shape needed = parameter->shape, found = {lora.b.rows(), lora.a.cols()};
  if (needed != found) return "made for " + shape_text(found) + ", the model has " + shape_text(needed);
  if (lora.a.rows() != lora.b.cols()) {
    return "rank of A is " + std::to_string(lora.a.rows()) + ", of B " + std::to_string(lora.b.cols());
  }
  const bool fits = lora.magnitude.empty() || lora.magnitude.shape == Shape{needed[0]};
  return fits ? "" : "magnitude has shape " + shape_text(lora.magnitude.shape);
}

std::string misfit(const Tensor& tensor, const Parameter* parameter) {
  if (parameter == nullptr) return "the model has no such tensor";
  Shape needed = parameter->shape;
  if (parameter->orientation == Orientation::in_out) std::swap(needed.at(0), needed.at(1));
  if (tensor.shape == needed) return "";
  return "found " + shape_text(tensor.shape) + ", the model has " + shape_text(needed);
}

/// By its name in the adapter or in the model.
bool is_meant(const AdapterTargets& targets, const std::string& module, const Parameter& parameter) {
  const ModuleKind kind = parameter.role == Role::embedding ? ModuleKind::embedding : ModuleKind::linear;
  return targets.is_named(module, kind) || targets.is_named(owner_of(parameter.name), kind);
}

[[noreturn]] void refuse(const std::string& folder, const std::vector<std::string>& misfits) {
  std::string message = folder + ": the adapter does not fit the model: ";
  for (size_t i = 0; i < misfits.size() && i < kListedMismatches; ++i) message += (i ? "; " : "") + misfits[i];
  if (misfits.size() > kListedMismatches) {
    message += "; and " + std::to_string(misfits.size() - kListedMismatches) + " more";
  }
  fail(ErrorCode::format, message);
}

AdapterChanges read_changes(const std::string& folder, const std::vector<Parameter>& parameters) {
  const AdapterFiles files = open_adapter(folder);
  const AdapterTargets targets(files.config, folder);
  Contents contents = read_tensors(files.tensors);
  AdapterChanges changes;
  std::vector<std::string> misfits, beyond;
  const auto fitting = [&](const std::string& name, const auto& value, const std::string& said) -> const Parameter* {
    const Parameter* parameter = find_parameter(parameters, name);
    const std::string why = misfit(value, parameter);
    if (!why.empty()) misfits.push_back(printable(said, 200) + ": " + why);
    return why.empty() ? parameter : nullptr;
  };
  for (auto& [module, lora] : contents.modules) {
    const Parameter* parameter = fitting(module + ".weight", lora, module);
    if (parameter == nullptr) continue;
    if (!is_meant(targets, module, *parameter)) beyond.push_back(std::string(kAdapterPrefix) + module);
    if (files.config.use_dora == lora.magnitude.empty()) {
      misfits.push_back(printable(module, 200) + ": use_dora and lora_magnitude_vector contradict each other");
    }
    if (files.config.lora_bias != contents.bias.contains(module)) {
      misfits.push_back(printable(module, 200) + ": lora_bias and lora_B.bias contradict each other");
    }
    if (const int64_t rank = targets.rank(module); rank != lora.a.rows()) {
      misfits.push_back(printable(module, 200) + ": has rank " + std::to_string(lora.a.rows()) +
                        ", adapter_config.json says " + std::to_string(rank));
    }
    lora.scaling =
        lora_scaling({.rank = lora.a.rows(), .alpha = targets.alpha(module), .rslora = files.config.use_rslora});
    if (const auto bias = contents.bias.find(module); bias != contents.bias.end()) {
      scale_in_place(bias->second, lora.scaling);
    }
    changes.low_rank[parameter->name].push_back(std::move(lora));
  }
  for (const auto& [module, bias] : contents.bias) {
    const Parameter* parameter = fitting(module + ".bias", bias, module + std::string(kBias));
    if (parameter != nullptr) changes.added.emplace(parameter->name, bias);
  }
  for (const auto& [name, tensor] : contents.replaced) {
    const Parameter* parameter = fitting(name, tensor, name);
    if (parameter == nullptr) continue;
    changes.replaced.emplace(parameter->name, tensor);
    if (contents.of_base.contains(name)) changes.of_base.insert(parameter->name);
  }
  for (const Parameter& parameter : parameters) {
    if (!targets.is_saved(owner_of(parameter.name)) || changes.replaced.contains(parameter.name)) continue;
    misfits.push_back("has no tensor for " + parameter.name + ", which modules_to_save names");
  }
  if (!misfits.empty()) refuse(folder, misfits);
  if (!beyond.empty()) refuse_beyond(files.tensors.path().string(), beyond, files.config);
  if (changes.low_rank.empty() && changes.replaced.empty()) {
    fail(ErrorCode::format, files.tensors.path().string() + ": has no tensors");
  }
  return changes;
}

/// What of an adapter cannot be added to the changes of those before it, as in use beside a model.
std::vector<std::string> conflicts(const AdapterChanges& before, const AdapterChanges& changes) {
  std::vector<std::string> found;
  for (const auto& [name, loras] : changes.low_rank) {
    if (loras.front().magnitude.empty() || !before.low_rank.contains(name)) continue;
    found.push_back(name + ": use_dora: has to be the first of its adapters");
  }
  for (const auto& [name, tensor] : changes.replaced) {
    const bool both_of_base = before.of_base.contains(name) && changes.of_base.contains(name);
    if (both_of_base || !before.replaced.contains(name)) continue;
    found.push_back(name + ": an adapter before this one has replaced it");
  }
  return found;
}

void add_changes(AdapterChanges&& changes, AdapterChanges& all) {
  for (auto& [name, loras] : changes.low_rank) all.low_rank[name].push_back(std::move(loras.front()));
  for (const auto& [name, bias] : changes.added) {
    const auto [at, is_first] = all.added.emplace(name, bias);
    if (!is_first) at->second = add(copy_of(at->second), bias, nullptr);
  }
  all.replaced.merge(changes.replaced);
  all.of_base.merge(changes.of_base);
}

}  // namespace

AdapterChanges read_adapter_changes(const std::vector<std::string>& folders, const std::vector<Parameter>& parameters) {
  AdapterChanges all;
  for (const std::string& folder : folders) {
    AdapterChanges changes = read_changes(folder, parameters);
    if (const std::vector<std::string> found = conflicts(all, changes); !found.empty()) refuse(folder, found);
    add_changes(std::move(changes), all);
  }
  return all;
}

}  // namespace nibble
