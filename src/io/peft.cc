#include "io/peft.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// Fields that say where an adapter comes from or how it was made, not what it is.
constexpr std::string_view kIgnored[] = {"auto_mapping",      "corda_config",   "eva_config",     "inference_mode",
                                         "loftq_config",      "lora_ga_config", "megatron_core",  "peft_version",
                                         "qalora_group_size", "revision",       "runtime_config", "peft_type"};

constexpr std::string_view kPissa = "pissa", kPissaIterations = "pissa_niter_", kPissaAnyIterations = "pissa_niter_N";
constexpr int64_t kMaxIterations = 1000;

constexpr std::string_view kConvert =
    "save it from PEFT as plain LoRA (path_initial_model_for_weight_conversion), or train one here with pissa, "
    "which is written as plain LoRA";
constexpr std::string_view kPlainLoftq =
    "make one for plain quantization: with PEFT's replace_lora_weights_loftq, or here with method qlora and loftq";

/// The words of init_lora_weights that PEFT has, and what to do where nibble does not follow: empty where it does.
struct Init {
  std::string_view word;
  std::string_view to_begin;  // a word that adapters can begin with here
  std::string_view to_read;   // of adapters that go with a base that PEFT had changed when it began them
};
constexpr Init kInits[] = {
    {"true", "", ""},
    {"false", "", ""},
    {"gaussian", "", ""},
    {kPissa, "", kConvert},
    {kPissaAnyIterations, "", kConvert},
    {"loftq", "", kPlainLoftq},
    {"eva", "gaussian", ""},
    {"orthogonal", "gaussian", ""},
    {"olora", "pissa", kConvert},
    {"corda", "pissa", kConvert},
    {"lora_ga", "pissa", kConvert},
};

/// Null when PEFT has no such word.
const Init* find_init(std::string_view name) {
  const bool has_iterations = name.starts_with(kPissaIterations) && pissa_iterations(name);
  for (const Init& init : kInits) {
    if (init.word == kPissaAnyIterations ? has_iterations : init.word == name) return &init;
  }
  return nullptr;
}

/// Those that adapters can begin with here.
std::string known_inits() {
  std::string known;
  for (const Init& init : kInits) {
    if (init.to_begin.empty()) known += (known.empty() ? "" : ", ") + std::string(init.word);
  }
  return known;
}

class FieldReader {
 public:
  FieldReader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  std::string at(std::string_view key) const { return where_ + ": " + std::string(key); }
  const Json* find(std::string_view key) { return seen_.emplace_back(key), json_.find_value(key); }

  void read(std::string_view key, bool& out) {
    if (const Json* v = find(key)) out = v->as_bool(at(key));
  }
  // A number that is null is none, and not the default: PEFT has no meaning for it either.
  void read(std::string_view key, int64_t& out) {
    find(key);
    if (const Json* v = json_.find(key)) out = v->as_int(at(key));
  }
  void read(std::string_view key, double& out) {
    find(key);
    if (const Json* v = json_.find(key)) out = v->as_double(at(key));
  }
  void read(std::string_view key, std::string& out) {
    if (const Json* v = find(key)) out = v->as_string(at(key));
  }
  /// One text or a list of texts.
  void read(std::string_view key, std::vector<std::string>& out) {
    const Json* v = find(key);
    if (v && v->is_string()) out = {v->as_string(at(key))};
    if (v && !v->is_string()) out = texts(*v, key);
  }
  void read(std::string_view key, ModuleChoice& out) {
    const Json* v = find(key);
    if (v && v->is_string()) out.pattern = v->as_string(at(key));
    if (v && !v->is_string()) out.names = texts(*v, key);
  }
  void read(std::string_view key, std::vector<int64_t>& out) {
    const Json* v = find(key);
    if (v && v->is_integer()) out = {v->as_int(at(key))};
    if (v == nullptr || v->is_integer()) return;
    for (const Json& item : v->as_array(at(key))) out.push_back(item.as_int(at(key)));
  }
  void read(std::string_view key, std::vector<std::pair<std::string, int64_t>>& out) {
    const Json* v = find(key);
    if (v == nullptr) return;
    for (const auto& [name, value] : v->as_object(at(key))) out.emplace_back(name, value.as_int(at(key)));
  }
  void read(std::string_view key, std::vector<std::pair<std::string, double>>& out) {
    const Json* v = find(key);
    if (v == nullptr) return;
    for (const auto& [name, value] : v->as_object(at(key))) out.emplace_back(name, value.as_double(at(key)));
  }

  /// Every other field must be without effect.
  void refuse_others() const {
    for (const auto& [key, value] : json_.as_object(where_)) {
      const bool known = std::find(seen_.begin(), seen_.end(), key) != seen_.end() ||
                         std::find(std::begin(kIgnored), std::end(kIgnored), key) != std::end(kIgnored);
      if (known || is_without_effect(value)) continue;
      fail(ErrorCode::unsupported, at(printable(key, 100)) + ": found " + printable(value.dump(), 200) +
                                       ", which nibble does not support; only null, false or empty are");
    }
  }

 private:
  static bool is_without_effect(const Json& v) {
    return v.is_null() || (v.is_bool() && !v.as_bool("")) || (v.is_array() && v.as_array("").empty()) ||
           (v.is_object() && v.as_object("").empty());
  }

  std::vector<std::string> texts(const Json& list, std::string_view key) const {
    std::vector<std::string> out;
    for (const Json& item : list.as_array(at(key))) out.push_back(item.as_string(at(key)));
    return out;
  }

  const Json& json_;
  std::string where_;
  std::vector<std::string> seen_;
};

std::string read_init(FieldReader& fields) {
  const Json* value = fields.find("init_lora_weights");
  if (value == nullptr) return "true";
  if (value->is_bool()) return value->as_bool("") ? "true" : "false";
  const std::string& name = value->as_string(fields.at("init_lora_weights"));
  if (find_init(name)) return name;
  fail(ErrorCode::unsupported,
       fields.at("init_lora_weights") + ": found '" + printable(name, 100) + "', expected one of " + known_inits());
}

void check(const LoraConfig& c, const std::string& where) {
  const auto require = [&](bool good, const std::string& what) {
    if (!good) fail(ErrorCode::format, where + ": " + what);
  };
  require(c.r >= 1, "r: found " + std::to_string(c.r) + ", expected at least 1");
  require(std::isfinite(c.lora_alpha), "lora_alpha: expected a finite number");
  for (const auto& [key, alpha] : c.alpha_pattern) {
    require(std::isfinite(alpha), "alpha_pattern: " + printable(key, 100) + ": expected a finite number");
  }
  require(c.lora_dropout >= 0 && c.lora_dropout < 1,
          "lora_dropout: found " + std::to_string(c.lora_dropout) + ", expected at least 0 and below 1");
  require(c.bias == "none" || c.bias == "all" || c.bias == "lora_only",
          "bias: found '" + printable(c.bias, 100) + "', expected none, all or lora_only");
  require(!c.lora_bias || !c.use_dora, "lora_bias: does not go together with use_dora");
  for (const auto& [key, rank] : c.rank_pattern) {
    require(rank >= 1,
            "rank_pattern: " + printable(key, 100) + ": found " + std::to_string(rank) + ", expected at least 1");
  }
}

Json list_of(const std::vector<std::string>& items) {
  Json list = Json::array();
  for (const std::string& item : items) list.push_back(item);
  return list;
}

Json list_or_null(const std::vector<std::string>& items) { return items.empty() ? Json() : list_of(items); }

Json choice_json(const ModuleChoice& choice) {
  if (!choice.pattern.empty()) return choice.pattern;
  return list_or_null(choice.names);
}

template <class Value>
Json pattern_json(const std::vector<std::pair<std::string, Value>>& pattern) {
  Json object = Json::object();
  for (const auto& [key, value] : pattern) object.set(key, value);
  return object;
}

/// PEFT writes 16, not 16.0.
Json number_json(double value) {
  const bool whole = std::abs(value) < 0x1p53 && value == std::trunc(value);
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

Json init_json(const std::string& init) {
  if (init == "true" || init == "false") return init == "true";
  return init;
}

}  // namespace

AdapterFiles open_adapter(const fs::path& folder) {
  const fs::path config = folder / kAdapterConfigFile, weights = folder / kAdapterWeightsFile;
  if (!fs::is_regular_file(config)) {
    fail(ErrorCode::io, folder.string() + ": is no adapter folder, it has no " + kAdapterConfigFile);
  }
  LoraConfig parsed = parse_lora_config(Json::parse_file(config.string()), config.string());
  if (const Init* init = find_init(parsed.init_lora_weights); !init->to_read.empty()) {
    fail(ErrorCode::unsupported, config.string() + ": init_lora_weights: found '" + parsed.init_lora_weights +
                                     "', which has changed the base model that the adapter goes with; " +
                                     std::string(init->to_read));
  }
  if (!fs::exists(weights) && fs::exists(folder / "adapter_model.bin")) {
    fail(ErrorCode::unsupported, (folder / "adapter_model.bin").string() + ": is a pickle file, expected " +
                                     kAdapterWeightsFile + "; save the adapter again with a newer PEFT");
  }
  return {.config = std::move(parsed), .tensors = SafetensorsFile(weights)};
}

std::optional<ReplacedParameter> replaced_parameter(std::string_view tensor) {
  if (tensor.find(".original_module.") != std::string_view::npos) return std::nullopt;
  ReplacedParameter parameter = {.name = std::string(tensor)};
  const auto drop = [&](std::string_view part) {
    const size_t at = parameter.name.rfind(part);
    if (at == std::string::npos) return false;
    parameter.name.replace(at, part.size(), ".");
    return true;
  };
  parameter.in_base_layer = drop(".base_layer.");
  if (!drop(".modules_to_save.default.")) drop(".modules_to_save.");
  return parameter;
}

std::optional<int64_t> pissa_iterations(std::string_view init) {
  if (init == kPissa) return 0;
  if (!init.starts_with(kPissaIterations)) return std::nullopt;
  int64_t count = 0;
  const char *begin = init.data() + kPissaIterations.size(), *end = init.data() + init.size();
  const auto [at, error] = std::from_chars(begin, end, count);
  const bool good = error == std::errc() && at == end && count >= 0 && count <= kMaxIterations;
  return good ? std::optional(count) : std::nullopt;
}

void require_beginning(const std::string& init_lora_weights) {
  const Init* init = find_init(init_lora_weights);
  if (init && init->to_begin.empty()) return;
  fail(ErrorCode::unsupported, "init_lora_weights: found '" + printable(init_lora_weights, 100) +
                                   "', expected one of " + known_inits() +
                                   (init ? "; nearest to it is " + std::string(init->to_begin) : ""));
}

LoraConfig parse_lora_config(const Json& json, const std::string& where) {
  json.as_object(where);
  const Json* type = json.find_value("peft_type");
  if (type == nullptr) fail(ErrorCode::format, where + ": peft_type: is missing, expected LORA");
  if (const std::string& name = type->as_string(where + ": peft_type"); name != "LORA") {
    fail(ErrorCode::unsupported, where + ": peft_type: found '" + printable(name, 100) + "', expected LORA");
  }
  FieldReader fields(json, where);
  LoraConfig c;
  fields.read("r", c.r);
  fields.read("lora_alpha", c.lora_alpha);
  fields.read("lora_dropout", c.lora_dropout);
  fields.read("target_modules", c.target_modules);
  fields.read("exclude_modules", c.exclude_modules);
  fields.read("modules_to_save", c.modules_to_save);
  fields.read("rank_pattern", c.rank_pattern);
  fields.read("alpha_pattern", c.alpha_pattern);
  fields.read("use_rslora", c.use_rslora);
  fields.read("use_dora", c.use_dora);
  fields.read("lora_bias", c.lora_bias);
  fields.read("bias", c.bias);
  c.init_lora_weights = read_init(fields);
  fields.read("layers_to_transform", c.layers_to_transform);
  fields.read("layers_pattern", c.layers_pattern);
  std::erase(c.layers_pattern, "");  // means anything, as none does
  fields.read("fan_in_fan_out", c.fan_in_fan_out);
  fields.read("task_type", c.task_type);
  fields.read("base_model_name_or_path", c.base_model_name_or_path);
  fields.refuse_others();
  check(c, where);
  return c;
}

Json lora_config_json(const LoraConfig& c) {
  Json layers = Json::array();
  for (const int64_t layer : c.layers_to_transform) layers.push_back(layer);
  // Sorted by name, as PEFT does.
  Json out = Json::object({
      {"alpha_pattern", Json::object()},
      {"auto_mapping", Json()},
      {"base_model_name_or_path", c.base_model_name_or_path.empty() ? Json() : Json(c.base_model_name_or_path)},
      {"bias", c.bias},
      {"exclude_modules", choice_json(c.exclude_modules)},
      {"fan_in_fan_out", c.fan_in_fan_out},
      {"inference_mode", true},
      {"init_lora_weights", init_json(c.init_lora_weights)},
      {"layer_replication", Json()},
      {"layers_pattern", list_or_null(c.layers_pattern)},
      {"layers_to_transform", c.layers_to_transform.empty() ? Json() : layers},
      {"loftq_config", Json::object()},
      {"lora_alpha", number_json(c.lora_alpha)},
      {"lora_bias", c.lora_bias},
      {"lora_dropout", c.lora_dropout},
      {"megatron_config", Json()},
      {"megatron_core", "megatron.core"},
      {"modules_to_save", list_or_null(c.modules_to_save)},
      {"peft_type", "LORA"},
      {"r", c.r},
      {"rank_pattern", pattern_json(c.rank_pattern)},
      {"revision", Json()},
      {"target_modules", choice_json(c.target_modules)},
      {"task_type", c.task_type.empty() ? Json() : Json(c.task_type)},
      {"use_dora", c.use_dora},
      {"use_rslora", c.use_rslora},
  });
  Json alphas = Json::object();
  for (const auto& [key, alpha] : c.alpha_pattern) alphas.set(key, number_json(alpha));
  out.set("alpha_pattern", alphas);
  return out;
}

}  // namespace nibble
