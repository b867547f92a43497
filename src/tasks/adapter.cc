#include "tasks/adapter.h"

#include <algorithm>
#include <functional>
#include <set>

#include "core/error.h"
#include "io/peft.h"
#include "tasks/adapter_targets.h"
#include "tasks/merge_aware.h"
#include "tasks/stored_form.h"

namespace nibble {
namespace {

constexpr const char* kWhere = "LoraConfig";

struct Modules {
  std::vector<std::string> linears, all;
};

/// By the names that PEFT gives them.
class ListModules final : public ParameterVisitor {
 public:
  explicit ListModules(const ClassNames& names) : names_(names) {}

  void linear(Linear& layer) override {
    modules.linears.push_back(names_.of(layer.name));
    modules.all.push_back(modules.linears.back());
  }
  void embedding(Embedding& table) override { modules.all.push_back(names_.of(table.name)); }
  void vector(const std::string&, Tensor&) override {}

  Modules modules;

 private:
  const ClassNames& names_;
};

void check(const LoraConfig& c) {
  // What a file may say and what training can do are checked in one place.
  parse_lora_config(lora_config_json(c), kWhere);
  require_beginning(c.init_lora_weights);
  if (c.lora_bias) fail(ErrorCode::unsupported, "lora_bias: can be loaded, not trained");
  if (c.use_dora && pissa_iterations(c.init_lora_weights)) {
    fail(ErrorCode::unsupported, "init_lora_weights: " + c.init_lora_weights + " does not go together with use_dora");
  }
}

/// What the model decides: the usual targets, a classifier that is trained with the adapter, the kind of task.
LoraConfig completed(LoraConfig c, const LoadedModel& model, const Modules& modules) {
  const ModelInfo& info = model.model->info();
  if (c.target_modules.empty()) c.target_modules = default_targets(info.model_type);
  if (c.task_type.empty()) c.task_type = !info.is_encoder ? "CAUSAL_LM" : info.labels.empty() ? "" : "SEQ_CLS";
  if (c.base_model_name_or_path.empty()) c.base_model_name_or_path = model.path;
  if (c.task_type != "SEQ_CLS") return c;
  for (const char* head : {"classifier", "score"}) {
    const bool there = std::any_of(modules.all.begin(), modules.all.end(), [&](const std::string& module) {
      return module == head || module.starts_with(std::string(head) + ".");
    });
    const bool listed = std::find(c.modules_to_save.begin(), c.modules_to_save.end(), head) != c.modules_to_save.end();
    if (there && !listed) c.modules_to_save.push_back(head);
  }
  return c;
}

/// The shortest list of names that means exactly these: their last parts, or all of them.
std::vector<std::string> shortest_names(const std::vector<std::string>& chosen, const Modules& modules, bool suffixes) {
  std::set<std::string> last;
  for (const std::string& name : chosen) last.insert(name.substr(name.rfind('.') + 1));
  const auto meant = std::count_if(modules.all.begin(), modules.all.end(), [&](const std::string& module) {
    return std::any_of(last.begin(), last.end(), [&](const std::string& name) { return ends_with_name(module, name); });
  });
  if (suffixes && static_cast<size_t>(meant) == chosen.size()) return {last.begin(), last.end()};
  return chosen;
}

/// Of those that depend on the weights the layers that they leave out: see set_starts().
LoraInit init_of(const std::string& name) {
  if (name == "gaussian") return LoraInit::gaussian;
  return name == "false" ? LoraInit::random : LoraInit::uniform;
}

LoraPlan plan_of(const AdapterTargets& targets, ModuleKind kind, uint64_t seed) {
  const LoraConfig& c = targets.config();
  return [&targets, &c, kind, init = init_of(c.init_lora_weights), seed](std::string_view module) {
    if (!targets.is_target(module, kind)) return std::optional<LoraOptions>();
    return std::optional<LoraOptions>({.rank = targets.rank(module),
                                       .alpha = targets.alpha(module),
                                       .rslora = c.use_rslora,
                                       .dora = c.use_dora,
                                       .dropout = static_cast<float>(c.lora_dropout),
                                       .init = init,
                                       .seed = seed});
  };
}

/// Parameters of the model itself that are trained with the adapter.
std::vector<TrainedParameter> train_whole(Model& model, const AdapterTargets& targets,
                                          const std::function<bool(std::string_view)>& is_adapted, TiedHead tied_head) {
  const LoraConfig& c = targets.config();
  const auto chosen = [&](std::string_view name) {
    if (targets.is_saved(owner_of(name))) return true;
    return name.ends_with(".bias") && (c.bias == "all" || (c.bias == "lora_only" && is_adapted(owner_of(name))));
  };
  return train_parameters(model, chosen, tied_head);
}

Modules modules_of(const LoadedModel& model, const ClassNames& names) {
  ListModules visitor(names);
  model.model->visit(visitor);
  return visitor.modules;
}

std::vector<std::string> targets_in(const AdapterTargets& targets, const Modules& modules) {
  std::vector<std::string> chosen;
  for (const std::string& module : modules.all) {
    const bool is_linear = std::find(modules.linears.begin(), modules.linears.end(), module) != modules.linears.end();
    if (!targets.is_target(module, is_linear ? ModuleKind::linear : ModuleKind::embedding)) continue;
    const LoraConfig& c = targets.config();
    if (!is_linear && (c.use_dora || pissa_iterations(c.init_lora_weights))) {
      fail(ErrorCode::unsupported, "target_modules: " + module + ": is an embedding, for which there is no " +
                                       (c.use_dora ? "use_dora" : c.init_lora_weights));
    }
    chosen.push_back(module);
  }
  return chosen;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

std::set<std::string> meant_modules(const LoadedModel& model, const LoraConfig& config) {
  const ClassNames names(model);
  const Modules modules = modules_of(model, names);
  const auto meant = targets_in(AdapterTargets(completed(config, model, modules), kWhere, names), modules);
  return {meant.begin(), meant.end()};
}

AttachedAdapter new_adapter(LoadedModel& model, const LoraConfig& config, uint64_t seed, TiedHead tied_head) {
  check(config);
  const ClassNames names(model);
  const Modules modules = modules_of(model, names);
  AdapterTargets targets(completed(config, model, modules), kWhere, names);
  const std::vector<std::string> chosen = targets_in(targets, modules);
  if (chosen.empty()) {
    fail(ErrorCode::invalid_argument, "target_modules: no Linear layer of " + model.path + " is meant (layers: " +
                                          printable(joined(shortest_names(modules.linears, modules, true)), 400) + ")");
  }
  // What can fail comes first, so that no layer is left with an adapter.
  const Starts starts = find_starts(model, targets, seed);
  const auto is_adapted = [&](std::string_view module) {
    return std::find(chosen.begin(), chosen.end(), names.of(module)) != chosen.end();
  };
  const std::vector<TrainedParameter> whole = train_whole(*model.model, targets, is_adapted, tied_head);
  AttachedAdapter adapter;
  adapter.unused_targets = targets.unused_names(modules.all);
  adapter.parameters =
      add_lora(*model.model, plan_of(targets, ModuleKind::linear, seed), plan_of(targets, ModuleKind::embedding, seed));
  adapter.starts = set_starts(model, starts, targets);
  adapter.parameters.insert(adapter.parameters.end(), whole.begin(), whole.end());
  adapter.config = targets.config();
  adapter.config.fan_in_fan_out = StoredForm(model.config, model.path, model.parameters).turns_matrices();
  // As PEFT stores it: a list, in which the choice of layers is worked in already.
  adapter.config.target_modules = shortest_names(chosen, modules, !model.model->info().is_encoder);
  adapter.config.exclude_modules = {};
  adapter.config.layers_to_transform.clear();
  adapter.config.layers_pattern.clear();
  return adapter;
}

void write_adapter(OutputFolder& folder, const LoadedModel& model, const AttachedAdapter& adapter) {
  const StoredForm stored(model.config, model.path, model.parameters);
  const ClassNames names(model);
  std::set<std::string, std::less<>> adapted;
  std::vector<TrainedParameter> all = adapter.parameters;
  all.insert(all.end(), adapter.kept.begin(), adapter.kept.end());
  for (const TrainedParameter& p : all) {
    for (const char* part : {".lora_A.weight", ".lora_embedding_A"}) {
      if (p.name.ends_with(part)) adapted.insert(p.name.substr(0, p.name.size() - std::string_view(part).size()));
    }
  }
  std::vector<std::pair<std::string, Tensor>> tensors;
  std::vector<TensorDeclaration> declared;
  for (const TrainedParameter& p : all) {
    const size_t lora = p.name.find(".lora_"), end = std::min(lora, p.name.rfind('.'));
    const std::string module = p.name.substr(0, end);
    const char* inside = lora == std::string::npos && adapted.contains(module) ? ".base_layer" : "";
    const std::string name = names.of(module) + inside + p.name.substr(end);
    const Tensor value = with_start(p.name, p.value, adapter.starts);
    tensors.emplace_back(std::string(kAdapterPrefix) + name, stored.to_file(p.name, value));
    declared.push_back({tensors.back().first, DType::f32, tensors.back().second.shape});
  }
  // What loftq has set is an adapter like any other.
  LoraConfig config = adapter.starts.empty() ? adapter.config : with_doubled_rank(adapter.config);
  if (config.init_lora_weights == "loftq") config.init_lora_weights = "true";
  folder.write_text(kAdapterConfigFile, lora_config_json(config).dump(2) + "\n");
  if (adapter.trained_for) write_merge_target(folder, *adapter.trained_for);
  folder.require_space(safetensors_file_bytes(declared));
  SafetensorsWriter writer(folder.file(kAdapterWeightsFile), declared);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
}

}  // namespace nibble
