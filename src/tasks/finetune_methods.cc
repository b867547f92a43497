#include "tasks/finetune_methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"
#include "io/model_files.h"
#include "io/peft.h"
#include "models/registry.h"
#include "tasks/merge_aware.h"
#include "tasks/qat_folder.h"
#include "tasks/side_files.h"
#include "tasks/stored_form.h"
#include "tasks/weights_writer.h"

namespace nibble {
namespace {

constexpr uint64_t kMaxShardSize = 5'000'000'000;
constexpr const char* kUsualFormat = "nf4";

/// Fields of which the modules that they mean are compared instead, when the model is there.
constexpr std::string_view kModuleFields[] = {"target_modules", "exclude_modules", "layers_to_transform",
                                              "layers_pattern"};

LoadModelOptions load_as_stored(const FinetuneOptions& options, const std::string&) {
  return {.compute_dtype = options.compute_dtype,
          .activations = options.activations,
          .device_map = "cpu",
          .progress = options.progress};
}

LoadModelOptions load_quantized(const FinetuneOptions& options, const std::string& model) {
  LoadModelOptions load = load_as_stored(options, model);
  if (options.format.empty()) return load;  // it is quantized
  load.format = options.format;
  load.block = options.block;
  load.double_quant = options.double_quant;
  load.granularity = options.granularity;
  load.skip = options.skip;
  return load;
}

bool predicts_text(const std::string& model) {
  const ModelFiles files = open_model(model);
  return outline_model(files.config, files.path.string(), files.weights.get()).info.predicts_text();
}

/// As the result will be loaded when nothing else is said: of encoders and classifiers the numbers are what counts.
LoadModelOptions load_as_deployed(const FinetuneOptions& options, const std::string& model) {
  LoadModelOptions load = load_as_stored(options, model);
  load.activations = predicts_text(model) ? "auto" : "fp32";
  return load;
}

/// The first option that chooses modules and is not the default; empty when there is none.
std::string module_option(const LoraConfig& lora) {
  const Json given = lora_config_json(lora), usual = lora_config_json(FinetuneOptions().lora);
  for (const std::string_view key : kModuleFields) {
    if (given.find(key)->dump() != usual.find(key)->dump()) return std::string(key);
  }
  return "";
}

/// What was asked for beside an adapter that is trained on, and is not the default, has to mean its modules.
void require_modules(const LoadedModel& model, const AttachedAdapter& adapter, const FinetuneOptions& options) {
  const std::string option = module_option(options.lora);
  if (option.empty()) return;
  const ClassNames names(model);
  std::set<std::string> adapted;
  for (const TrainedParameter& p : adapter.parameters) {
    const size_t end = std::min(p.name.find(".lora_A"), p.name.find(".lora_embedding_A"));
    if (end != std::string::npos) adapted.insert(names.of(p.name.substr(0, end)));
  }
  if (meant_modules(model, options.lora) == adapted) return;
  fail(ErrorCode::invalid_argument, option + ": means other modules than the adapter " + options.init_adapter +
                                        " has, and training goes on with those");
}

AttachedAdapter put_adapter(LoadedModel& model, const FinetuneOptions& options,
                            TiedHead tied_head = TiedHead::stands_alone) {
  if (options.init_adapter.empty()) return new_adapter(model, options.lora, options.seed, tied_head);
  AttachedAdapter adapter = attach_adapter(model, options.init_adapter, AdapterUse::training);
  require_modules(model, adapter, options);
  return adapter;
}

/// What put_adapter() would train.
AdapterDraft draft_of(LoadedModel& model, const FinetuneOptions& options) {
  if (options.init_adapter.empty()) return draft_adapter(model, options.lora);
  AdapterDraft draft;
  for (const TrainedParameter& p : put_adapter(model, options).parameters) draft.parameters.push_back(p.name);
  return draft;
}

std::vector<std::string> check_adapter(LoadedModel& model, const FinetuneOptions& options) {
  return draft_of(model, options).warnings;
}

/// The merge that an adapter is trained for.
QatConfig merge_config(const FinetuneOptions& options) {
  const bool shares_options = options.format.empty() || options.merge_aware == options.format;
  return {.format = options.merge_aware,
          .block = shares_options ? options.block : 0,
          .double_quant = shares_options && options.double_quant};
}

AttachedAdapter prepare_adapter(LoadedModel& model, const FinetuneOptions& options) {
  AttachedAdapter adapter = put_adapter(model, options);
  if (!options.merge_aware.empty()) adapter.trained_for = prepare_merge_aware(model, merge_config(options));
  return adapter;
}

bool is_any(std::string_view) { return true; }

std::vector<std::string> check_full(LoadedModel& model, const FinetuneOptions&) {
  check_trainable(*model.model, is_any);
  return {};
}

AttachedAdapter prepare_full(LoadedModel& model, const FinetuneOptions&) {
  return {.config = {}, .parameters = train_parameters(*model.model, is_any)};
}

QatConfig qat_config(const FinetuneOptions& options) {
  return {.format = options.format,
          .block = options.block,
          .double_quant = options.double_quant,
          .granularity = options.granularity,
          .activations = options.qat_activations};
}

std::vector<std::string> check_qat_full(LoadedModel& model, const FinetuneOptions& options) {
  check_full(model, options);
  prepare_qat_model(model, qat_config(options), options.skip);
  return {};
}

AttachedAdapter prepare_qat_full(LoadedModel& model, const FinetuneOptions& options) {
  AttachedAdapter trained = prepare_full(model, options);
  prepare_qat_model(model, qat_config(options), options.skip);
  return trained;
}

/// A head that shares the embeddings' matrix has none of its own in the result.
void require_place(const LoadedModel& model, const std::string& name) {
  if (name.find(".lora_") != std::string::npos) return;
  const bool there =
      std::any_of(model.parameters.begin(), model.parameters.end(), [&](const Parameter& p) { return p.name == name; });
  if (there) return;
  fail(ErrorCode::unsupported, "modules_to_save: " + name + ": has no place of its own in the result; name the " +
                                   "embeddings that it shares, or train without qat");
}

/// "transformer.h.0" as a regular expression.
std::string escaped(const std::string& module) {
  std::string text;
  for (const char c : module) text += c == '.' ? std::string("\\.") : std::string(1, c);
  return text;
}

void exclude(ModuleChoice& excluded, const std::vector<std::string>& modules) {
  if (excluded.pattern.empty()) {
    excluded.names.insert(excluded.names.end(), modules.begin(), modules.end());
    return;
  }
  excluded.pattern = "(?:" + excluded.pattern + ")";
  for (const std::string& module : modules) excluded.pattern += "|" + escaped(module);
}

/// Here all-linear means all layers that are quantized: the adapter of another one could not be merged without moving a
/// bit.
FinetuneOptions without_kept(FinetuneOptions o, const std::vector<std::string>& kept) {
  if (o.lora.target_modules == "all-linear") exclude(o.lora.exclude_modules, kept);
  return o;
}

void refuse_misplaced(const LoadedModel& model, const std::vector<std::string>& parameters,
                      const std::vector<std::string>& kept) {
  for (const std::string& name : parameters) {
    require_place(model, name);
    const size_t at = name.find(".lora_A.");
    const std::string module = name.substr(0, at);
    if (at == std::string::npos || std::find(kept.begin(), kept.end(), module) == kept.end()) continue;
    fail(ErrorCode::invalid_argument, "target_modules: " + module +
                                          " is not quantized, so its adapter has no place in the result; "
                                          "take it out of target_modules, or out of skip");
  }
}

std::vector<std::string> check_qat_adapter(LoadedModel& model, const FinetuneOptions& options) {
  prepare_qat_model(model, qat_config(options), options.skip);
  const std::vector<std::string> kept = unprepared_layers(model);
  const AdapterDraft draft = draft_of(model, without_kept(options, kept));
  refuse_misplaced(model, draft.parameters, kept);
  return draft.warnings;
}

AttachedAdapter prepare_qat_adapter(LoadedModel& model, const FinetuneOptions& options) {
  prepare_qat_model(model, qat_config(options), options.skip);
  const std::vector<std::string> kept = unprepared_layers(model);
  // The result is one model, tied as before.
  AttachedAdapter trained = put_adapter(model, without_kept(options, kept), TiedHead::follows);
  std::vector<std::string> names;
  for (const TrainedParameter& p : trained.parameters) names.push_back(p.name);
  refuse_misplaced(model, names, kept);
  return trained;
}

void write_quantized(OutputFolder& folder, const LoadedModel& model, const AttachedAdapter& trained) {
  write_qat_model(folder, model, trained.parameters);
}

/// A tensor of the source file in its new form.
struct Planned {
  const SourceTensor* source;
  const Tensor* trained;  // null: as it was
  DType dtype;
};

/// The model folder with the trained parameters in place of the old ones, in the dtypes of the source.
void write_model(OutputFolder& folder, const LoadedModel& model, const AttachedAdapter& trained) {
  const ModelFiles files = open_model(model.path);
  const std::string where = files.path.string();
  const StoredForm stored(files.config, where, model.parameters);
  std::map<std::string, const Tensor*, std::less<>> values;
  for (const TrainedParameter& p : trained.parameters) values.emplace(p.name, &p.value);
  const DType other = config_dtype(files.config, where).value_or(DType::f16);  // for the block formats of GGUF
  std::vector<Planned> tensors;
  std::vector<PlannedTensor> planned;
  const std::vector<SourceTensor> sources = trained_model_tensors(files);
  for (const SourceTensor& source : sources) {
    const auto found = values.find(source.name);
    const Format* format = find_format_or_null(source.format);
    tensors.push_back({.source = &source,
                       .trained = found == values.end() ? nullptr : found->second,
                       .dtype = format && format->dense ? *format->dense : other});
    // An element type that no format has, like i64, is carried over.
    const DType dtype = format ? tensors.back().dtype : stored_dtype(source);
    planned.push_back({.pieces = {{source.name, dtype, source.shape}}, .parameters = element_count(source.shape)});
  }
  write_weights(folder, planned, kMaxShardSize, [&](size_t i) -> NamedTensors {
    const Planned& t = tensors[i];
    const std::string& name = t.source->name;
    if (t.trained) return {{name, stored.to_file(name, *t.trained).cast(t.dtype)}};
    const Weight kept = files.weights->load(name);
    const auto* dense = std::get_if<Tensor>(&kept);
    if (dense && dense->dtype == planned[i].pieces[0].dtype) return {{name, *dense}};
    return {{name, decode(kept).cast(t.dtype)}};
  });
  Json config = files.config;
  if (files.is_gguf()) set_config_dtype(config, other);
  write_side_files(folder, files, config);
}

constexpr FinetuneMethod kMethods[] = {
    {.name = "lora",
     .use_lora = true,
     .learning_rate = 2e-4,
     .load_options = load_as_stored,
     .check = check_adapter,
     .prepare = prepare_adapter,
     .write = write_adapter},
    {.name = "qlora",
     .use_lora = true,
     .learning_rate = 2e-4,
     .load_options = load_quantized,
     .check = check_adapter,
     .prepare = prepare_adapter,
     .write = write_adapter},
    {.name = "full",
     .use_lora = false,
     .learning_rate = 2e-5,
     .load_options = load_as_stored,
     .check = check_full,
     .prepare = prepare_full,
     .write = write_model},
    {.name = "qat",
     .use_lora = false,
     .learning_rate = 2e-5,
     .load_options = load_as_deployed,
     .check = check_qat_full,
     .prepare = prepare_qat_full,
     .write = write_quantized},
    {.name = "qat",
     .use_lora = true,
     .learning_rate = 2e-4,
     .load_options = load_as_deployed,
     .check = check_qat_adapter,
     .prepare = prepare_qat_adapter,
     .write = write_quantized},
};

}  // namespace

const FinetuneMethod& find_finetune_method(const FinetuneOptions& options) {
  const FinetuneMethod* named = nullptr;
  for (const FinetuneMethod& method : kMethods) {
    if (method.name != options.method) continue;
    named = &method;
    if (method.use_lora == options.use_lora) break;
  }
  if (named) return *named;
  std::string known;
  for (const FinetuneMethod& method : kMethods) {
    if (!known.ends_with(method.name)) known += (known.empty() ? "" : ", ") + std::string(method.name);
  }
  fail(ErrorCode::invalid_argument, "method: found '" + options.method + "', expected one of " + known);
}

namespace {

/// As text; lists of names, whose order means nothing, sorted.
std::string setting_text(const Json& value) {
  if (!value.is_array()) return value.dump();
  std::vector<std::string> items;
  for (const Json& item : value.as_array("setting")) items.push_back(item.dump());
  std::sort(items.begin(), items.end());
  return fmt::format("[{}]", fmt::join(items, ","));
}

/// An adapter that is trained on stays what it is: what was asked for beside it, and is not the default, has to be so.
void refuse_other_settings(const FinetuneOptions& options, const LoraConfig& adapter) {
  const Json asked = lora_config_json(options.lora), usual = lora_config_json(FinetuneOptions().lora);
  const Json has = lora_config_json(adapter);
  for (const auto& [key, value] : asked.as_object("lora")) {
    if (std::find(std::begin(kModuleFields), std::end(kModuleFields), key) != std::end(kModuleFields)) continue;
    const std::string found = setting_text(value), is = setting_text(*has.find(key));
    if (found == setting_text(*usual.find(key)) || found == is) continue;
    fail(ErrorCode::invalid_argument, key + ": found " + printable(found, 200) + ", but the adapter " +
                                          options.init_adapter + " has " + printable(is, 200) +
                                          ", and training goes on with what it has");
  }
}

/// What the Linear layers of a model are stored in, where that is not dense.
std::set<std::string> formats_of_layers(const std::string& model) {
  const ModelFiles files = open_model(model);
  std::set<std::string> formats;
  for (const Parameter& p : list_parameters(files.config, files.path.string(), files.weights.get())) {
    const SourceTensor* stored = files.weights->find(p.name);
    if (p.role == Role::linear && stored && !is_dense(*stored)) formats.insert(std::string(stored->format));
  }
  return formats;
}

void check_options_over_quantized(const FinetuneOptions& o, const std::string& model,
                                  const std::set<std::string>& stored) {
  if (!o.format.empty() && stored != std::set<std::string>{o.format}) {
    fail(ErrorCode::unsupported,
         fmt::format("format: found {}, but {} is quantized to {} already; leave it out to train over that, or use the "
                     "original model",
                     printable(o.format, 60), model, fmt::join(stored, ", ")));
  }
  const bool merges = !o.merge_aware.empty();  // block and double_quant are those of the merge
  const struct {
    bool good;
    const char* name;
  } rows[] = {{!o.double_quant || merges, "double_quant"},
              {o.block == 0 || merges, "block"},
              {o.granularity == FinetuneOptions().granularity, "granularity"},
              {o.skip.empty(), "skip"}};
  for (const auto& [good, name] : rows) {
    if (good) continue;
    fail(ErrorCode::invalid_argument, std::string(name) + ": has no effect over " + model +
                                          ", which is quantized already and is used as it is; leave it out, or use " +
                                          "the original model");
  }
}

}  // namespace

void settle_format(FinetuneOptions& o, const std::string& model) {
  const bool qlora = o.method == "qlora", qat = o.method == "qat";
  const std::set<std::string> stored = qlora ? formats_of_layers(model) : std::set<std::string>{};
  if (!stored.empty()) {
    check_options_over_quantized(o, model, stored);
    o.format.clear();
  } else if ((qlora || qat) && o.format.empty()) {
    o.format = kUsualFormat;
  }
  if (!o.format.empty()) check_qat_config(qat_config(o));
  if (!o.merge_aware.empty()) check_qat_config(merge_config(o));
}

void check_finetune_adapter(const FinetuneOptions& options, const std::string& model) {
  const bool is_merged = !options.merge_aware.empty() || (options.method == "qat" && options.use_lora);
  LoraConfig config = options.lora;
  if (!options.init_adapter.empty()) {
    if (!find_finetune_method(options).use_lora) {
      fail(ErrorCode::invalid_argument, "init_adapter: method " + options.method + " trains no adapter");
    }
    config = open_adapter(options.init_adapter).config;
    refuse_other_settings(options, config);
  }
  if (is_merged) refuse_unmergeable(config, model, !options.merge_aware.empty());
}

}  // namespace nibble
