#include "tasks/adapter.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <set>

#include "core/error.h"
#include "io/peft.h"
#include "tasks/adapter_targets.h"
#include "tasks/merge_aware.h"
#include "tasks/stored_form.h"

namespace nibble {
namespace {

constexpr const char* kWhere = "LoraConfig";

// What the output of classifiers is called.
constexpr const char* kHeads[] = {"classifier", "score"};

bool is_in_head(std::string_view module, const std::string& head) {
  return module == head || module.starts_with(head + ".");
}

struct Modules {
  std::vector<std::string> linears, all;
  std::vector<std::string> others;  // norms, which can only be trained whole
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
  void vector(const std::string& name, Tensor&) override { modules.others.push_back(names_.of(owner_of(name))); }

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
  if (!c.layers_pattern.empty() && c.layers_to_transform.empty()) {
    fail(ErrorCode::invalid_argument, "layers_pattern: needs layers_to_transform");
  }
}

/// What the model decides: the usual targets, a classifier that is trained with the adapter, the kind of task.
LoraConfig completed(LoraConfig c, const LoadedModel& model, const Modules& modules) {
  const ModelInfo& info = model.model->info();
  if (c.target_modules.empty()) c.target_modules = default_targets(info.model_type);
  if (c.task_type.empty()) c.task_type = info.predicts_text() ? "CAUSAL_LM" : info.labels.empty() ? "" : "SEQ_CLS";
  if (c.base_model_name_or_path.empty()) c.base_model_name_or_path = model.path;
  if (c.task_type != "SEQ_CLS") return c;
  for (const char* head : kHeads) {
    const bool there = std::any_of(modules.all.begin(), modules.all.end(),
                                   [&](const std::string& module) { return is_in_head(module, head); });
    const bool listed = std::find(c.modules_to_save.begin(), c.modules_to_save.end(), head) != c.modules_to_save.end();
    if (there && !listed) c.modules_to_save.push_back(head);
  }
  return c;
}

/// Their last parts, each once.
std::vector<std::string> last_parts(const std::vector<std::string>& modules) {
  std::set<std::string> last;
  for (const std::string& name : modules) last.insert(name.substr(name.rfind('.') + 1));
  return {last.begin(), last.end()};
}

/// The shortest list of names that means exactly the chosen modules beside what else the configuration says: their last
/// parts, or all of them. Not beside modules_to_save, which older versions of PEFT give adapters too.
std::vector<std::string> shortest_names(const std::vector<std::string>& chosen, const Modules& modules, LoraConfig c) {
  c.target_modules = last_parts(chosen);
  c.modules_to_save.clear();
  const AdapterTargets targets(c, kWhere);
  const auto is_meant = [&](const std::string& module) { return targets.is_target(module, ModuleKind::linear); };
  std::vector<std::string> meant;
  std::copy_if(modules.all.begin(), modules.all.end(), std::back_inserter(meant), is_meant);
  return meant == chosen ? c.target_modules.names : chosen;
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

/// What an adapter is to be put on.
struct Draft {
  ClassNames names;
  Modules modules;
  AdapterTargets targets;
  std::vector<std::string> chosen;  // the modules that get one, by PEFT's names
  const LoraConfig& config() const { return targets.config(); }

  /// A parameter of the model itself that is trained with the adapter.
  bool is_whole(std::string_view name) const {
    if (targets.is_saved(owner_of(name))) return true;
    const std::string& bias = config().bias;
    return name.ends_with(".bias") && (bias == "all" || (bias == "lora_only" && is_adapted(owner_of(name))));
  }
  bool is_adapted(std::string_view module) const {
    return std::find(chosen.begin(), chosen.end(), names.of(module)) != chosen.end();
  }
};

/// The head of a classifier is one of them unless its base keeps it from being quantized.
void refuse_quantized_whole(LoadedModel& model, const Draft& draft) {
  const auto found = first_quantized(*model.model, [&](std::string_view name) { return draft.is_whole(name); });
  if (!found) return;
  const std::string module(owner_of(found->name));
  const bool is_head =
      draft.config().task_type == "SEQ_CLS" &&
      std::any_of(std::begin(kHeads), std::end(kHeads), [&](const char* head) { return is_in_head(module, head); });
  std::string message =
      found->name + ": is stored as " + std::string(found->format) + ", only dense weights can be trained, and " +
      (is_head ? "the head of a classifier has to be trained as it is beside its adapter" : "modules_to_save names it");
  message += model.options.format.empty()
                 ? "; quantize the original of " + model.path + " again and keep it: nibble quantize --skip " + module +
                       ", or llm_int8_skip_modules in transformers"
                 : "; keep it from being quantized (--skip " + module + ")";
  fail(ErrorCode::unsupported, message);
}

/// All that can be refused without values.
Draft draft_of(LoadedModel& model, const LoraConfig& config) {
  check(config);
  const ClassNames names(model);
  Modules modules = modules_of(model, names);
  AdapterTargets targets(completed(config, model, modules), kWhere, names);
  std::vector<std::string> chosen = targets_in(targets, modules);
  if (chosen.empty()) {
    fail(ErrorCode::invalid_argument, "target_modules: no Linear layer of " + model.path + " is meant (layers: " +
                                          printable(joined(last_parts(modules.linears)), 400) + ")");
  }
  Draft draft = {names, std::move(modules), std::move(targets), std::move(chosen)};
  check_starts(model, draft.targets);
  refuse_quantized_whole(model, draft);
  return draft;
}

/// What PEFT stores: a list of modules, and what else chooses among them as it was given.
LoraConfig config_to_write(const LoadedModel& model, const Draft& draft) {
  LoraConfig config = draft.config();
  config.fan_in_fan_out = StoredForm(model.config, model.path, model.parameters).turns_matrices();
  const bool by_full_names = model.model->info().is_encoder;
  config.target_modules = by_full_names ? draft.chosen : shortest_names(draft.chosen, draft.modules, config);
  return config;
}

/// Names the parameters that a draft trains.
class ListDraft final : public ParameterVisitor {
 public:
  explicit ListDraft(const Draft& draft) : draft_(draft) {}

  void linear(Linear& layer) override {
    if (draft_.is_adapted(layer.name)) names.push_back(layer.name + ".lora_A.weight");
    whole(layer.name + ".weight");
    if (layer.bias) whole(layer.name + ".bias");
  }
  void embedding(Embedding& table) override {
    if (draft_.is_adapted(table.name)) names.push_back(table.name + ".lora_embedding_A");
    whole(table.name + ".weight");
  }
  void vector(const std::string& name, Tensor&) override { whole(name); }

  std::vector<std::string> names;

 private:
  void whole(const std::string& name) {
    if (draft_.is_whole(name)) names.push_back(name);
  }

  const Draft& draft_;
};

}  // namespace

std::set<std::string> meant_modules(const LoadedModel& model, const LoraConfig& config) {
  const ClassNames names(model);
  const Modules modules = modules_of(model, names);
  const auto meant = targets_in(AdapterTargets(completed(config, model, modules), kWhere, names), modules);
  return {meant.begin(), meant.end()};
}

AdapterDraft draft_adapter(LoadedModel& model, const LoraConfig& config) {
  const Draft draft = draft_of(model, config);
  ListDraft visitor(draft);
  model.model->visit(visitor);
  return {.parameters = std::move(visitor.names),
          .warnings = draft.targets.unused_names(draft.modules.all, draft.modules.others)};
}

AttachedAdapter new_adapter(LoadedModel& model, const LoraConfig& config, uint64_t seed, TiedHead tied_head) {
  const Draft draft = draft_of(model, config);
  const AdapterTargets& targets = draft.targets;
  // What can fail comes first, so that no layer is left with an adapter.
  const Starts starts = find_starts(model, targets, seed);
  const auto is_whole = [&](std::string_view name) { return draft.is_whole(name); };
  const std::vector<TrainedParameter> whole = train_parameters(*model.model, is_whole, tied_head);
  AttachedAdapter adapter;
  adapter.warnings = targets.unused_names(draft.modules.all, draft.modules.others);
  adapter.parameters =
      add_lora(*model.model, plan_of(targets, ModuleKind::linear, seed), plan_of(targets, ModuleKind::embedding, seed));
  adapter.starts = set_starts(model, starts, targets);
  adapter.parameters.insert(adapter.parameters.end(), whole.begin(), whole.end());
  adapter.config = config_to_write(model, draft);
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
