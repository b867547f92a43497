// Putting the tensors of an adapter folder on a model. All are checked before the first one changes anything.
#include <functional>
#include <map>
#include <optional>

#include "core/error.h"
#include "io/peft.h"
#include "ops/dora.h"
#include "ops/elementwise.h"
#include "tasks/adapter.h"
#include "tasks/adapter_targets.h"
#include "tasks/stored_form.h"

namespace nibble {
namespace {

constexpr size_t kListedMismatches = 10;
constexpr std::string_view kWeight = ".weight";

/// What the file has of one module; the names of its tensors.
struct ModuleTensors {
  std::string module;  // its own name of it, which ranks and alphas go by
  std::optional<std::string> a, b, b_bias, magnitude, embedding_a, embedding_b;
};

struct Ending {
  std::string_view text;
  std::optional<std::string> ModuleTensors::*part = nullptr;
};
constexpr Ending kEndings[] = {
    {".lora_A.weight", &ModuleTensors::a},
    {".lora_B.weight", &ModuleTensors::b},
    {".lora_B.bias", &ModuleTensors::b_bias},
    {".lora_magnitude_vector", &ModuleTensors::magnitude},
    {".lora_magnitude_vector.weight", &ModuleTensors::magnitude},
    {".lora_embedding_A", &ModuleTensors::embedding_a},
    {".lora_embedding_B", &ModuleTensors::embedding_b},
};

template <class Value>
using ByName = std::map<std::string, Value, std::less<>>;

/// The first of the names.
const std::string& a_tensor_of(const ModuleTensors& tensors) {
  for (const Ending& ending : kEndings) {
    if (const auto& name = tensors.*(ending.part)) return *name;
  }
  return tensors.module;
}

/// An adapter file by what its tensors belong to.
struct Contents {
  ByName<ModuleTensors> modules;
  ByName<std::string> replaced;      // parameters of the model itself -> tensor
  std::set<std::string> base_layer;  // those of them that lie inside of a layer with an adapter
};

Contents sort_tensors(const SafetensorsFile& file) {
  Contents contents;
  for (const SafetensorsEntry& entry : file.entries()) {
    std::string_view name = entry.name;
    if (name.starts_with(kAdapterPrefix)) name.remove_prefix(kAdapterPrefix.size());
    const Ending* found = nullptr;
    for (const Ending& ending : kEndings) {
      if (name.ends_with(ending.text)) found = &ending;
    }
    if (found) {
      const std::string module(name.substr(0, name.size() - found->text.size()));
      ModuleTensors& tensors = contents.modules[one_spelling(module)];
      tensors.module = module;
      tensors.*(found->part) = entry.name;
      continue;
    }
    const std::optional<ReplacedParameter> replaced = replaced_parameter(name);
    if (!replaced) continue;
    const std::string parameter = one_spelling(replaced->name);
    if (replaced->in_base_layer) contents.base_layer.insert(parameter);
    contents.replaced[parameter] = entry.name;
  }
  return contents;
}

/// The entry for a name of the model. Models are stored with and without the prefix of their class, so one name may
/// also be the end of the other.
template <class Value>
typename ByName<Value>::iterator find_entry(ByName<Value>& entries, const std::string& stored) {
  const std::string name = one_spelling(stored);
  if (const auto exact = entries.find(name); exact != entries.end()) return exact;
  auto found = entries.end();
  for (auto it = entries.begin(); it != entries.end(); ++it) {
    if (!ends_with_name(it->first, name) && !ends_with_name(name, it->first)) continue;
    if (found != entries.end()) return entries.end();
    found = it;
  }
  return found;
}

/// Goes over the model, collects what does not fit, and what is to be done when all does.
class Attacher final : public ParameterVisitor {
 public:
  Attacher(LoadedModel& model, const AdapterFiles& files, const AdapterTargets& targets, AdapterUse use)
      : files_(files),
        targets_(targets),
        use_(use),
        contents_(sort_tensors(files.tensors)),
        stored_(model.config, model.path, model.parameters),
        before_(model.replaced),
        left_out_(model.left_out) {}

  void linear(Linear& layer) override {
    if (const auto found = find_entry(contents_.modules, layer.name); found != contents_.modules.end()) {
      note_beyond(layer.name, found->second, ModuleKind::linear);
      adapt(layer, found->second);
      contents_.modules.erase(found);
    } else if (targets_.is_target(layer.name, ModuleKind::linear)) {
      note_missing(layer.name);
    }
    replace_weight(layer.name + ".weight", layer.weight);
    if (layer.bias) vector(layer.name + ".bias", *layer.bias);
  }

  void embedding(Embedding& table) override {
    replace_weight(table.name + ".weight", table.weight);
    const auto found = find_entry(contents_.modules, table.name);
    if (found == contents_.modules.end()) {
      if (targets_.is_target(table.name, ModuleKind::embedding)) note_missing(table.name);
      return;
    }
    note_beyond(table.name, found->second, ModuleKind::embedding);
    adapt(table, found->second);
    contents_.modules.erase(found);
  }

  void vector(const std::string& name, Tensor& values) override {
    const std::optional<Tensor> value = take_replacement(name, values.shape);
    if (!value) return;
    actions.push_back([this, name, &values, value = *value] {
      values = value;
      note_trained(name, values);
    });
  }

  /// Tensors that no module has asked for.
  void finish() {
    if (use_ == AdapterUse::inference) leave_out();
    for (const auto& [module, tensors] : contents_.modules) mismatches.push_back("the model has no module " + module);
    for (const auto& [name, tensor] : contents_.replaced) mismatches.push_back("the model has no parameter " + name);
  }

  std::vector<std::string> mismatches;
  std::vector<std::string> beyond;  // tensors of modules that the configuration does not mean
  std::vector<std::function<void()>> actions;
  std::vector<TrainedParameter> parameters, kept;

 private:
  void note_missing(const std::string& module) {
    mismatches.push_back("has no tensors for " + module + ", which target_modules names");
  }

  /// The configuration means the names that the file has, which may be spelled otherwise.
  void note_beyond(const std::string& module, const ModuleTensors& tensors, ModuleKind kind) {
    if (targets_.is_named(module, kind) || targets_.is_named(tensors.module, kind)) return;
    beyond.push_back(a_tensor_of(tensors));
  }

  /// The tensor as f32, or nothing and a mismatch.
  std::optional<Tensor> take(const std::optional<std::string>& name, const Shape& expected, const std::string& what) {
    if (!name) {
      mismatches.push_back(what + " is missing");
      return std::nullopt;
    }
    const SafetensorsEntry& entry = *files_.tensors.find(*name);
    if (entry.shape != expected) {
      mismatches.push_back(*name + ": found " + shape_text(entry.shape) + ", expected " + shape_text(expected));
      return std::nullopt;
    }
    return copy_of(files_.tensors.load(*name).cast(DType::f32));
  }

  std::optional<Tensor> take_replacement(const std::string& name, const Shape& shape) {
    const auto found = find_entry(contents_.replaced, name);
    if (found == contents_.replaced.end()) {
      if (targets_.is_saved(owner_of(name))) {
        mismatches.push_back("has no tensor for " + name + ", which modules_to_save names");
      }
      return std::nullopt;
    }
    const bool kept_as_it_was = contents_.base_layer.contains(found->first) && name.ends_with(".weight");
    if (const auto before = before_.find(name); before != before_.end() && !(before->second && kept_as_it_was)) {
      mismatches.push_back(name + ": an adapter before this one has replaced it");
    }
    replaced[name] = kept_as_it_was;
    const Shape in_file = stored_.to_file_shape(name, shape);
    const std::optional<Tensor> value = take(found->second, in_file, name);
    contents_.replaced.erase(found);
    return value ? std::optional(stored_.to_memory(name, *value)) : std::nullopt;
  }

  void replace_weight(const std::string& name, Weight& weight) {
    const std::optional<Tensor> value = take_replacement(name, weight_shape(weight));
    if (!value) return;
    actions.push_back([this, name, &weight, value = *value] {
      weight = value;
      note_trained(name, value);
    });
  }

  void note_trained(const std::string& name, const Tensor& value) {
    (replaced[name] ? kept : parameters).push_back({name, value});
  }

  void adapt(Linear& layer, const ModuleTensors& tensors) {
    const Shape shape = weight_shape(layer.weight);
    const LoraOptions options = options_of(tensors);
    const auto a = take(tensors.a, {options.rank, shape[1]}, layer.name + ".lora_A.weight");
    const auto b = take(tensors.b, {shape[0], options.rank}, layer.name + ".lora_B.weight");
    std::optional<Tensor> magnitude, bias;
    if (targets_.config().use_dora) {
      magnitude = take(tensors.magnitude, {shape[0]}, layer.name + ".lora_magnitude_vector");
      if (!layer.adapters.empty()) mismatches.push_back(layer.name + ": use_dora: has to be the first of its adapters");
    }
    if (targets_.config().lora_bias) bias = take(tensors.b_bias, {shape[0]}, layer.name + ".lora_B.bias");
    if ((!targets_.config().use_dora && tensors.magnitude) || (!targets_.config().lora_bias && tensors.b_bias)) {
      mismatches.push_back(layer.name + ": has tensors of DoRA or of a bias that adapter_config.json does not name");
    }
    if (!a || !b) return;
    if (bias) scale_in_place(*bias, lora_scaling(options));
    auto lora = std::make_shared<Lora>(Lora{.a = *a,
                                            .b = *b,
                                            .scaling = lora_scaling(options),
                                            .dropout = static_cast<float>(targets_.config().lora_dropout),
                                            .stream = dropout_stream(layer.name),
                                            .bias = bias.value_or(Tensor()),
                                            .magnitude = magnitude.value_or(Tensor())});
    actions.push_back([this, &layer, lora] {
      layer.adapters.push_back(lora);
      // Last of all, because another action may replace the weight.
      if (!lora->magnitude.empty() && use_ == AdapterUse::inference) {
        late.push_back([&layer, lora] { lora->row_lengths = dora_row_lengths(layer.weight, *lora); });
      }
      list_lora(layer.name, *lora, parameters);
    });
  }

  LoraOptions options_of(const ModuleTensors& tensors) const {
    return {.rank = targets_.rank(tensors.module),
            .alpha = targets_.alpha(tensors.module),
            .rslora = targets_.config().use_rslora};
  }

  /// Of what no part of the model has asked for: parts of the base that the model leaves out, such as the pooler of a
  /// sentence encoder, are out with their changes. Training would write an adapter without them.
  void leave_out() {
    for (const std::string& name : left_out_) {
      const std::string parameter = one_spelling(name);
      contents_.replaced.erase(parameter);
      if (parameter.ends_with(kWeight)) contents_.modules.erase(parameter.substr(0, parameter.size() - kWeight.size()));
    }
  }

  void adapt(Embedding& table, const ModuleTensors& tensors) {
    const std::string& name = table.name;
    const Shape shape = weight_shape(table.weight);
    const LoraOptions options = options_of(tensors);
    if (targets_.config().use_dora) mismatches.push_back(name + ": DoRA of an embedding is not supported");
    const auto a = take(tensors.embedding_a, {options.rank, shape[0]}, name + ".lora_embedding_A");
    const auto b = take(tensors.embedding_b, {shape[1], options.rank}, name + ".lora_embedding_B");
    if (!a || !b) return;
    const auto lora = std::make_shared<Lora>(Lora{.a = *a, .b = *b, .scaling = lora_scaling(options)});
    actions.push_back([this, &table, lora] {
      table.adapters.push_back(lora);
      list_embedding_lora(table.name, *lora, parameters);
    });
  }

  const AdapterFiles& files_;
  const AdapterTargets& targets_;
  AdapterUse use_;
  Contents contents_;
  StoredForm stored_;
  const ByName<bool>& before_;
  const std::set<std::string, std::less<>>& left_out_;

 public:
  std::vector<std::function<void()>> late;
  ByName<bool> replaced = {};  // as LoadedModel has them
};

[[noreturn]] void refuse(const AdapterFiles& files, const LoadedModel& model, const std::vector<std::string>& list) {
  std::string message = files.tensors.path().string() + ": does not fit " + model.path + ": ";
  for (size_t i = 0; i < list.size() && i < kListedMismatches; ++i) message += (i ? "; " : "") + list[i];
  if (list.size() > kListedMismatches) message += "; and " + std::to_string(list.size() - kListedMismatches) + " more";
  const std::string& base = files.config.base_model_name_or_path;
  fail(ErrorCode::format, message + (base.empty() ? "" : ". It was made for '" + base + "'"));
}

}  // namespace

AttachedAdapter attach_adapter(LoadedModel& model, const std::string& folder, AdapterUse use) {
  const AdapterFiles files = open_adapter(folder);
  if (use == AdapterUse::training && files.config.lora_bias) {
    fail(ErrorCode::unsupported, folder + ": lora_bias: such an adapter can be used, not trained");
  }
  const AdapterTargets targets(files.config, (std::filesystem::path(folder) / kAdapterConfigFile).string(),
                               ClassNames(model));
  Attacher attacher(model, files, targets, use);
  model.model->visit(attacher);
  attacher.finish();
  if (!attacher.mismatches.empty()) refuse(files, model, attacher.mismatches);
  if (!attacher.beyond.empty()) refuse_beyond(files.tensors.path().string(), attacher.beyond, files.config);
  for (const auto& action : attacher.actions) action();
  for (const auto& action : attacher.late) action();
  model.replaced.insert(attacher.replaced.begin(), attacher.replaced.end());
  for (const TrainedParameter& p : attacher.parameters) model.weight_bytes += p.value.bytes();
  return {.config = files.config, .parameters = std::move(attacher.parameters), .kept = std::move(attacher.kept)};
}

}  // namespace nibble
