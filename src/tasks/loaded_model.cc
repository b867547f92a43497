#include "tasks/loaded_model.h"

#include <algorithm>
#include <future>

#include "core/cgroups.h"
#include "core/error.h"
#include "core/file.h"
#include "core/parallel.h"
#include "io/model_files.h"
#include "io/quantization_config.h"
#include "models/registry.h"
#include "models/skip.h"
#include "tasks/adapter.h"
#include "text/chat_template.h"
#include "text/gguf_vocab.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTemplateBytes = 1 << 20;

struct TextParts {
  std::optional<Tokenizer> tokenizer;
  Json config;
  std::optional<std::string> chat_template;
};

TextParts text_parts_of_gguf(const ModelFiles& files) {
  const std::string where = files.path.string();
  TextParts parts;
  if (files.gguf_metadata->find("tokenizer.ggml.model") == nullptr) return parts;
  parts.config = tokenizer_config_from_gguf(*files.gguf_metadata, where);
  parts.tokenizer = Tokenizer::from_json(tokenizer_json_from_gguf(*files.gguf_metadata, where), parts.config, where);
  parts.chat_template = chat_template_source(parts.config, "");
  return parts;
}

TextParts text_parts_of_folder(const fs::path& folder) {
  TextParts parts;
  parts.config = read_tokenizer_config(folder);
  if (Tokenizer::folder_has_tokenizer(folder)) parts.tokenizer = Tokenizer::from_folder(folder);
  const fs::path jinja = folder / "chat_template.jinja";
  parts.chat_template = chat_template_source(
      parts.config, fs::is_regular_file(jinja) ? read_text_file(jinja, kMaxTemplateBytes) : std::string());
  return parts;
}

/// On a thread of its own, beside the weights.
template <class Read>
std::future<TextParts> read_beside(Read read) {
  return std::async([read] {
    const SerialScope beside_the_weights;
    return read();
  });
}

/// The format to encode to while loading, in nibble's words; empty: none.
struct OnLoad {
  std::string format;
  EncodeOptions encode;
};

OnLoad on_load_format(const LoadModelOptions& options) {
  OnLoad on_load = {options.format,
                    {.block = options.block,
                     .double_quant = options.double_quant,
                     .granularity = parse_granularity(options.granularity)}};
  if (!options.quantization_config) return on_load;
  const BitsAndBytesConfig& config = *options.quantization_config;
  config.validate();
  if (!options.format.empty()) {
    fail(ErrorCode::invalid_argument, "format: cannot be given together with quantization_config");
  }
  if (config.load_in_8bit) on_load.format = "int8";
  if (config.load_in_4bit) {
    on_load.format = config.bnb_4bit_quant_type;
    on_load.encode.double_quant = config.bnb_4bit_use_double_quant;
  }
  return on_load;
}

void refuse_requantizing(const ModelFiles& files, const QuantizationConfig& stored, const std::string& format) {
  if (files.is_gguf() || !stored.is_quantized() || format.empty()) return;
  const std::string has = stored.load_in_8bit ? "int8" : stored.quant_type;
  if (has == format) return;
  fail(ErrorCode::unsupported, files.path.string() + ": is quantized to " + has + " already and cannot be loaded as " +
                                   format + "; use the original model");
}

constexpr double kShareOfMemory = 0.9;  // the rest is for activations and the cache; accelerate's share too

/// Bytes of weights that may be in memory; nullopt = all.
std::optional<uint64_t> memory_limit(const LoadModelOptions& options) {
  const std::string& map = options.device_map;
  if (map != "auto" && map != "cpu" && map != "disk") {
    fail(ErrorCode::invalid_argument, "device_map: found '" + map + "', expected auto, cpu or disk");
  }
  for (const auto& [device, bytes] : options.max_memory) {
    if (device != "cpu") fail(ErrorCode::invalid_argument, "max_memory: found device '" + device + "', expected cpu");
    if (map != "auto") fail(ErrorCode::invalid_argument, "max_memory: needs device_map auto, not " + map);
  }
  if (map == "cpu") return std::nullopt;
  if (map == "disk") return 0;
  const auto given = options.max_memory.find("cpu");
  if (given != options.max_memory.end()) return given->second;
  return static_cast<uint64_t>(kShareOfMemory * static_cast<double>(available_memory()));
}

DeviceMap device_map_of(const Loader& loader) {
  DeviceMap map;
  for (const Placement& placed : loader.placements()) {
    map.push_back({placed.layer, placed.residency == Residency::memory ? "cpu" : "disk", placed.bytes});
  }
  return map;
}

/// What packed weights are multiplied with. A compute dtype of 16 bits that is asked for here is for comparing with
/// libraries that round to it; one that the files record is what they would compute in, and integers are more exact.
Activations activations_of(const LoadModelOptions& options) {
  const auto& config = options.quantization_config;
  const DType asked = options.compute_dtype.value_or(config ? config->bnb_4bit_compute_dtype : DType::f32);
  const std::string& name = options.activations;
  if (name == "fp32") return Activations::f32;
  if (name == "auto") return asked == DType::f32 ? Activations::i16 : Activations::f32;
  if (name != "int16" && name != "int8") {
    fail(ErrorCode::invalid_argument, "activations: found '" + name + "', expected auto, int8, int16 or fp32");
  }
  if (asked != DType::f32) {
    fail(ErrorCode::invalid_argument, "activations: " + name + " takes the place of a compute dtype; give one of them");
  }
  return name == "int8" ? Activations::i8 : Activations::i16;
}

/// What the output head may be for running. int8-dynamic stores rows as int8 does; the activations stay as they are.
struct HeadRow {
  std::string_view name, format;  // empty: as it is
};
constexpr HeadRow kHeads[] = {{"keep", ""}, {"nf4", "nf4"}, {"int8", "int8-dynamic"}};

const Format* chosen_head(const LoadModelOptions& options) {
  const Format* format = head_format(options.head);
  if (format && options.quantize_head) {
    fail(ErrorCode::invalid_argument, "head: " + options.head + " stands instead of quantize_head; give one of them");
  }
  return format;
}

LoadOptions loader_options(const ModelFiles& files, const LoadModelOptions& options) {
  const QuantizationConfig stored = parse_quantization_config(files.config, files.path.string());
  const OnLoad on_load = on_load_format(options);
  refuse_requantizing(files, stored, on_load.format);
  LoadOptions load;
  if (!on_load.format.empty() && !stored.is_quantized()) {
    load.format = &find_format(on_load.format);
    check_encode_options(*load.format, on_load.encode);
  }
  load.encode = on_load.encode;
  load.skip_modules = options.skip;
  load.quantize_head = options.quantize_head;
  load.head_format = chosen_head(options);
  load.compute.compute_dtype = stored.compute_dtype;
  load.compute.int8_threshold = stored.threshold;
  if (const auto& config = options.quantization_config) {
    load.skip_modules = config->llm_int8_skip_modules;
    load.compute.compute_dtype = config->bnb_4bit_compute_dtype;
    load.compute.int8_threshold = config->llm_int8_threshold;
  }
  if (options.compute_dtype) load.compute.compute_dtype = *options.compute_dtype;
  load.compute.activations = activations_of(options);
  if (options.activation_range != "token" && options.activation_range != "tensor") {
    fail(ErrorCode::invalid_argument,
         "activation_range: found '" + options.activation_range + "', expected token or tensor");
  }
  load.compute.per_token = options.activation_range == "token";
  load.compute.reduce_range = options.reduce_range;
  check_compute_options(load.compute);
  load.memory_limit = memory_limit(options);
  if (!options.skip.empty()) {
    check_skip_names(options.skip, list_parameters(files.config, files.path.string(), files.weights.get()));
  }
  if (options.progress) {
    load.progress = [fn = options.progress](int64_t done, int64_t total) {
      fn({.unit = "tensors", .done = done, .total = total});
    };
  }
  return load;
}

void refuse_head_without_text(const ModelFiles& files, const LoadOptions& load) {
  const std::string path = files.path.string();
  if (!load.head_format) return;
  const ModelInfo info = outline_model(files.config, path, files.weights.get()).info;
  if (info.predicts_text()) return;
  fail(ErrorCode::invalid_argument, path + (info.is_encoder ? ": is an encoder" : ": is a classifier") +
                                        "; head is for language models, quantize_head for classifiers");
}

/// Whether any layer's result for a token depends on what else is in the batch.
bool mixes_tokens(const WeightSource& weights, const LoadOptions& load) {
  const auto mixes = [&](const Format* format) {
    return format && format->mixes_tokens && format->mixes_tokens(load.compute);
  };
  if (load.format) return mixes(load.format);
  const auto& tensors = weights.tensors();
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const SourceTensor& tensor) { return mixes(find_format_or_null(tensor.format)); });
}

/// fp16 costs nothing that can be seen beside quantized layers (docs/performance.md); dense layers are computed as
/// exactly as they are stored, and so is what was asked to be exact.
DType default_kv_dtype(const WeightSource& weights, const LoadOptions& load) {
  const auto& tensors = weights.tensors();
  const bool quantized = load.format ? !load.format->dense : !std::all_of(tensors.begin(), tensors.end(), is_dense);
  const bool exact = load.compute.activations == Activations::f32 && load.compute.compute_dtype == DType::f32;
  return quantized && !exact ? DType::f16 : DType::f32;
}

/// Takes away what a model computes with.
class RemoveUsed final : public ParameterVisitor {
 public:
  explicit RemoveUsed(std::set<std::string, std::less<>>& names) : names_(names) {}

  void linear(Linear& layer) override {
    names_.erase(layer.name + ".weight");
    names_.erase(layer.name + ".bias");
  }
  void embedding(Embedding& table) override { names_.erase(table.name + ".weight"); }
  void vector(const std::string& name, Tensor&) override { names_.erase(name); }

 private:
  std::set<std::string, std::less<>>& names_;
};

std::set<std::string, std::less<>> left_out_of(const WeightSource& weights, Model& model) {
  std::set<std::string, std::less<>> names;
  for (const SourceTensor& tensor : weights.tensors()) names.insert(tensor.name);
  RemoveUsed visitor(names);
  model.visit(visitor);
  return names;
}

/// Gives what would be quantized its format, without values.
class OutlineQuantized final : public ParameterVisitor {
 public:
  OutlineQuantized(const LoadedModel& model, const Format& format, const std::vector<std::string>& skip)
      : format_(format) {
    for (const Parameter& p : model.parameters) {
      if (p.role == Role::linear && !is_skipped(module_of(p.name), skip))
        modules_.insert(std::string(module_of(p.name)));
    }
  }

  void linear(Linear& layer) override {
    if (!modules_.contains(layer.name)) return;
    layer.weight = QuantizedTensor{.format = &format_, .shape = weight_shape(layer.weight), .parts = {}};
  }
  void embedding(Embedding&) override {}
  void vector(const std::string&, Tensor&) override {}

 private:
  const Format& format_;
  std::set<std::string> modules_;
};

void append_ids(const Json* value, std::vector<int32_t>& ids) {
  if (value == nullptr) return;
  const auto add = [&](const Json& id) {
    if (id.is_integer()) ids.push_back(static_cast<int32_t>(id.as_int("eos_token_id")));
  };
  if (value->is_array()) {
    for (const Json& id : value->as_array("eos_token_id")) add(id);
  } else {
    add(*value);
  }
}

}  // namespace

const Tokenizer& LoadedModel::require_tokenizer() const {
  if (tokenizer) return *tokenizer;
  fail(ErrorCode::invalid_argument, path + ": has no tokenizer files; give token ids instead (--ids)");
}

std::vector<int32_t> LoadedModel::end_ids() const {
  std::vector<int32_t> ids;
  append_ids(generation_config.find_value("eos_token_id"), ids);
  if (ids.empty()) append_ids(config.find_value("eos_token_id"), ids);
  if (ids.empty() && tokenizer && tokenizer->special().eos) ids.push_back(*tokenizer->special().eos);
  return ids;
}

Json LoadedModel::chat_variables() const {
  Json variables = Json::object();
  const auto add = [&variables](const std::string& name, const Json& value) {
    const Json* token = value.is_object() ? value.find_value("content") : &value;
    if (token && token->is_string()) variables.set(name, *token);
  };
  if (!tokenizer_config.is_object()) return variables;
  for (const auto& [key, value] : tokenizer_config.as_object("tokenizer_config")) {
    if (key.ends_with("_token")) add(key, value);  // add_bos_token and its like are no texts
  }
  const Json* extra = tokenizer_config.find_value("extra_special_tokens");
  if (!extra || !extra->is_object()) return variables;  // a list has no names
  for (const auto& [key, value] : extra->as_object("extra_special_tokens")) add(key, value);
  return variables;
}

const Format* head_format(const std::string& head) {
  std::string known;
  for (const HeadRow& row : kHeads) {
    if (head == row.name) return find_format_or_null(row.format);
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(ErrorCode::invalid_argument, "head: found '" + head + "', expected one of " + known);
}

LoadModelOptions exact_by_default(LoadModelOptions options) {
  if (options.activations == "auto") options.activations = "fp32";
  return options;
}

std::shared_ptr<LoadedModel> load_model(const std::string& path, const LoadModelOptions& options) {
  const fs::path found = find_model(path);
  ModelFiles files;
  std::future<TextParts> reading_text;  // ends before what it reads goes away
  // Before the index of the weights is read: a large tokenizer takes about as long as small weights.
  if (fs::is_directory(found)) reading_text = read_beside([&found] { return text_parts_of_folder(found); });
  files = open_model(found.string());
  if (files.is_gguf()) reading_text = read_beside([&files] { return text_parts_of_gguf(files); });
  auto loaded = std::make_shared<LoadedModel>();
  loaded->path = path;
  loaded->config = files.config;
  loaded->generation_config = files.generation_config;
  const LoadOptions load = loader_options(files, options);
  refuse_head_without_text(files, load);
  loaded->mixes_tokens = mixes_tokens(*files.weights, load);
  loaded->kv_dtype = default_kv_dtype(*files.weights, load);
  Loader loader(*files.weights, load);
  loaded->model = build_model(files.config, files.path.string(), loader);
  loaded->parameters = loader.parameters();
  loaded->left_out = left_out_of(*files.weights, *loaded->model);
  loaded->weight_bytes = loader.bytes();
  loaded->device_map = device_map_of(loader);
  loaded->options = options;
  loaded->compute = load.compute;
  TextParts text = reading_text.get();
  loaded->tokenizer = std::move(text.tokenizer);
  loaded->tokenizer_config = std::move(text.config);
  loaded->chat_template = std::move(text.chat_template);
  for (const std::string& folder : options.adapters) attach_adapter(*loaded, folder, AdapterUse::inference);
  return loaded;
}

std::shared_ptr<LoadedModel> load_without_quantizing(const std::string& path, const LoadModelOptions& options) {
  LoadModelOptions as_stored = options;
  as_stored.format.clear();
  as_stored.block = 0;
  as_stored.double_quant = false;
  as_stored.granularity = LoadModelOptions().granularity;
  auto loaded = load_model(path, as_stored);  // which says what is wrong with a name of skip
  loaded->options = options;
  if (options.format.empty()) return loaded;
  OutlineQuantized visitor(*loaded, find_format(options.format), options.skip);
  loaded->model->visit(visitor);
  return loaded;
}

Tokenizer load_tokenizer(const std::string& path) {
  // A folder with tokenizer files only is enough here, so a missing config.json or missing weights do not matter.
  if (fs::is_directory(path) && Tokenizer::folder_has_tokenizer(path)) return Tokenizer::from_folder(path);
  const ModelFiles files = open_model(path);
  const TextParts parts = files.is_gguf() ? text_parts_of_gguf(files) : text_parts_of_folder(files.path);
  if (!parts.tokenizer) fail(ErrorCode::io, path + ": has no tokenizer (tokenizer.json, vocab.txt or tokenizer.model)");
  return *parts.tokenizer;
}

}  // namespace nibble
