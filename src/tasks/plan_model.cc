#include "tasks/plan_model.h"

#include <filesystem>
#include <map>

#include "core/error.h"
#include "io/model_files.h"
#include "models/registry.h"
#include "tasks/known_configs.h"
#include "tasks/side_files.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

bool has_weights(const fs::path& folder) {
  return fs::exists(folder / "model.safetensors") || fs::exists(folder / "model.safetensors.index.json");
}

/// Dense tensors as the family asks for them, in the configuration's dtype.
std::vector<PlanTensor> implied_tensors(const std::vector<Parameter>& parameters, DType dtype) {
  std::vector<PlanTensor> tensors;
  for (const Parameter& p : parameters) {
    SourceTensor stored = {p.name, p.shape, std::string(dtype_name(dtype)), 0};
    if (p.orientation == Orientation::in_out) stored.shape = {p.shape[1], p.shape[0]};
    stored.bytes = static_cast<uint64_t>(element_count(p.shape)) * dtype_bytes(dtype);
    tensors.push_back({std::move(stored), p});
  }
  return tensors;
}

/// Tensors as the files have them.
std::vector<PlanTensor> stored_tensors(const std::vector<Parameter>& parameters, const WeightSource& weights,
                                       const std::string& where) {
  std::map<std::string_view, const Parameter*> by_name;
  for (const Parameter& p : parameters) {
    if (weights.find(p.name) == nullptr) {
      fail(ErrorCode::format, where + ": has no tensor '" + p.name + "', which its config.json implies");
    }
    by_name.emplace(p.name, &p);
  }
  std::vector<PlanTensor> tensors;
  for (const SourceTensor& stored : weights.tensors()) {
    const auto found = by_name.find(stored.name);
    tensors.push_back({stored, found == by_name.end() ? std::nullopt : std::optional(*found->second)});
  }
  return tensors;
}

/// `weights` may be null: then the configuration says all.
PlanModel describe(const std::string& name, Json config, const WeightSource* weights) {
  PlanModel model;
  model.name = name;
  const ModelOutline outline = outline_model(config, name, weights);
  model.info = outline.info;
  model.has_tied_head = !outline.tied_head.empty();
  model.tensors = weights ? stored_tensors(outline.parameters, *weights, name)
                          : implied_tensors(outline.parameters, config_dtype(config, name).value_or(DType::f32));
  model.config = std::move(config);
  return model;
}

PlanModel describe_config(const std::string& name, const Json& config) {
  config.as_object(name);
  if (config.find_value("quantization_config") != nullptr) {
    fail(ErrorCode::unsupported, name + ": is the configuration of a quantized model; give the whole folder, or the " +
                                     "original's config.json with --format");
  }
  return describe(name, config, nullptr);
}

}  // namespace

PlanModel open_plan_model(const std::string& model) {
  std::error_code ignored;
  if (!fs::exists(model, ignored)) {
    if (const KnownConfig* known = find_known_config(model)) {
      return describe_config(model, Json::parse(known->config, std::string(known->name)));
    }
    const bool is_path = model.find('/') != std::string::npos;
    const std::string nearest = is_path ? "" : nearest_name(model, known_models());
    if (!nearest.empty()) {
      fail(ErrorCode::io,
           printable(model, 1000) + ": no such file, and no built-in shape; did you mean '" + nearest + "'?");
    }
  }
  const fs::path path = find_model(model);
  if (path.extension() == ".json") return describe_config(model, Json::parse_file(path.string()));
  if (fs::is_directory(path) && fs::exists(path / "config.json") && !has_weights(path)) {
    return describe_config(model, Json::parse_file((path / "config.json").string()));
  }
  ModelFiles files = open_model(model);
  PlanModel described = describe(model, std::move(files.config), files.weights.get());
  described.is_gguf = files.is_gguf();
  return described;
}

std::string PlanModel::format() const {
  std::map<std::string, int64_t> weights;
  for (const PlanTensor& t : tensors) {
    if (t.parameter && t.parameter->role == Role::linear) weights[t.stored.format] += element_count(t.stored.shape);
  }
  std::string largest;
  int64_t most = 0;
  for (const auto& [format, count] : weights) {
    if (count > most) largest = format, most = count;
  }
  return largest;
}

bool PlanModel::is_quantized() const {
  const Format* row = find_format_or_null(format());
  return row != nullptr && !row->dense;
}

int64_t PlanModel::parameters() const {
  int64_t total = 0;
  for (const PlanTensor& t : tensors) total += t.parameter ? element_count(t.stored.shape) : 0;
  return total;
}

std::vector<std::string> known_models() {
  std::vector<std::string> names;
  for (const KnownConfig& config : known_configs()) names.emplace_back(config.name);
  return names;
}

}  // namespace nibble
