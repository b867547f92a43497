#include "models/decoder.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/limits.h"
#include "models/encoder_config.h"

namespace nibble {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 31;

struct RopeType {
  std::string_view name;
  RopeScaling scaling;
};
constexpr std::array<RopeType, 8> kRopeTypes = {{{"default", RopeScaling::none},
                                                 {"none", RopeScaling::none},
                                                 {"linear", RopeScaling::linear},
                                                 {"dynamic", RopeScaling::dynamic},
                                                 {"llama3", RopeScaling::llama3},
                                                 {"yarn", RopeScaling::yarn},
                                                 {"longrope", RopeScaling::longrope},
                                                 {"su", RopeScaling::longrope}}};

RopeScaling parse_rope_type(const std::string& name, const std::string& where) {
  for (const RopeType& type : kRopeTypes) {
    if (name == type.name) return type.scaling;
  }
  fail(ErrorCode::unsupported,
       where + ": rope type '" + name + "' is not supported (known: default, linear, dynamic, llama3, yarn, longrope)");
}

/// rope_scaling, or what transformers 5 writes in its place, rope_parameters; null when the file has neither.
const Json* rope_member(const ConfigReader& config, std::string& where) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* value = config.json().find_value(key);
    if (value == nullptr || value->as_object(config.at(key)).empty()) continue;
    where = config.at(key);
    return value;
  }
  return nullptr;
}

/// Elements of a head that are rotated: all, or the part that partial_rotary_factor says.
int64_t rotated_part(const ConfigReader& parameters, const ConfigReader& config, const DecoderShape& shape) {
  const char* key = "partial_rotary_factor";
  const double part = parameters.positive_or(key, config.positive_or(key, 1.0));
  const auto rotated = static_cast<int64_t>(static_cast<double>(shape.head_dim) * std::min(part, 2.0));
  if (part > 1.0 || rotated < 2 || rotated % 2 != 0) {
    fail(ErrorCode::format, parameters.at(key) + ": found " + std::to_string(part) + ", which rotates " +
                                std::to_string(rotated) + " of " + std::to_string(shape.head_dim) +
                                " elements; expected an even number of them");
  }
  return rotated;
}

std::vector<double> read_divisors(const ConfigReader& parameters, std::string_view key, int64_t count) {
  const Json* list = parameters.json().find_value(key);
  if (list == nullptr) fail(ErrorCode::format, parameters.at(key) + ": is missing");
  std::vector<double> divisors;
  for (const Json& item : list->as_array(parameters.at(key))) {
    divisors.push_back(item.as_double(parameters.at(key)));
    if (!(divisors.back() > 0)) fail(ErrorCode::format, parameters.at(key) + ": has an entry that is not above 0");
  }
  if (static_cast<int64_t>(divisors.size()) != count) {
    fail(ErrorCode::format, parameters.at(key) + ": found " + std::to_string(divisors.size()) + " entries, expected " +
                                std::to_string(count));
  }
  return divisors;
}

}  // namespace

Json with_defaults(const Json& config, std::string_view defaults) {
  Json full = config;
  const Json missing = Json::parse(defaults, "defaults");
  for (const auto& [key, value] : missing.as_object("defaults")) {
    if (full.find(key) == nullptr) full.set(key, value);
  }
  return full;
}

DecoderShape read_decoder_shape(const ConfigReader& config) {
  DecoderShape s = {};
  s.vocab_size = config.integer("vocab_size", 1, limits::kMaxVocabulary);
  s.hidden_size = config.integer("hidden_size", 1, kMaxWidth);
  s.intermediate_size = config.integer("intermediate_size", 1, kMaxWidth);
  s.layers = config.integer("num_hidden_layers", 1, limits::kMaxLayers);
  s.heads = config.integer("num_attention_heads", 1, limits::kMaxHeads);
  s.kv_heads = config.integer_or("num_key_value_heads", s.heads, 1, limits::kMaxHeads);
  if (!config.has("head_dim") && s.hidden_size % s.heads != 0) {
    fail(ErrorCode::format, config.at("num_attention_heads") + ": " + std::to_string(s.heads) +
                                " does not divide hidden_size " + std::to_string(s.hidden_size));
  }
  s.head_dim = config.integer_or("head_dim", s.hidden_size / s.heads, 1, kMaxWidth);
  if (s.head_dim % 2 != 0) {
    fail(ErrorCode::format,
         config.at("head_dim") + ": found " + std::to_string(s.head_dim) + ", expected an even number");
  }
  if (s.heads % s.kv_heads != 0) {
    fail(ErrorCode::format, config.at("num_key_value_heads") + ": " + std::to_string(s.kv_heads) +
                                " does not divide num_attention_heads " + std::to_string(s.heads));
  }
  s.context_length = config.integer_or("max_position_embeddings", 2048, 1, kMaxContext);
  s.norm_eps = static_cast<float>(config.positive_or("rms_norm_eps", 1e-6));
  s.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  return s;
}

RopeConfig read_rope(const ConfigReader& config, const DecoderShape& shape) {
  std::string where = config.where();
  const Json* member = rope_member(config, where);
  const Json none = Json::object();
  return read_rope_parameters(ConfigReader(member ? *member : none, where), config, shape);
}

RopeConfig read_rope_parameters(const ConfigReader& parameters, const ConfigReader& config, const DecoderShape& shape) {
  RopeConfig rope;
  rope.theta = parameters.positive_or("rope_theta", config.positive_or("rope_theta", 10000.0));
  if (!(rope.theta > 1.0)) {
    fail(ErrorCode::format, config.at("rope_theta") + ": found " + std::to_string(rope.theta) + ", expected above 1");
  }
  rope.head_dim = rotated_part(parameters, config, shape);
  rope.original_context = shape.context_length;
  rope.scaling =
      parse_rope_type(parameters.text_or("rope_type", parameters.text_or("type", "default")), parameters.where());
  // Early Phi-3 files call it so.
  if (rope.scaling == RopeScaling::yarn && parameters.has("short_factor")) rope.scaling = RopeScaling::longrope;
  if (rope.scaling == RopeScaling::none) return rope;
  // Dynamic scaling always counts from max_position_embeddings; the others from the length trained on, which Phi-3 has
  // beside rope_scaling.
  if (rope.scaling != RopeScaling::dynamic) {
    const char* key = "original_max_position_embeddings";
    rope.original_context =
        (config.has(key) ? config : parameters).integer_or(key, shape.context_length, 1, kMaxContext);
  }
  const bool is_longrope = rope.scaling == RopeScaling::longrope;
  const double stretch = static_cast<double>(shape.context_length) / static_cast<double>(rope.original_context);
  rope.factor = parameters.positive_or("factor", is_longrope ? stretch : 1.0);
  rope.low_freq_factor = parameters.positive_or("low_freq_factor", 1.0);
  rope.high_freq_factor = parameters.positive_or("high_freq_factor", 4.0);
  if (rope.scaling == RopeScaling::llama3 && rope.high_freq_factor <= rope.low_freq_factor) {
    fail(ErrorCode::format, parameters.at("high_freq_factor") + ": must be above low_freq_factor");
  }
  rope.beta_fast = parameters.positive_or("beta_fast", 32.0);
  rope.beta_slow = parameters.positive_or("beta_slow", 1.0);
  rope.attention_factor = parameters.number_or("attention_factor", 0.0);
  rope.mscale = parameters.number_or("mscale", 0.0);
  rope.mscale_all_dim = parameters.number_or("mscale_all_dim", 0.0);
  rope.truncate = parameters.flag_or("truncate", true);
  if (is_longrope) {
    rope.short_factors = read_divisors(parameters, "short_factor", rope.head_dim / 2);
    rope.long_factors = read_divisors(parameters, "long_factor", rope.head_dim / 2);
  }
  return rope;
}

int64_t layer_window(const ConfigReader& config, int64_t layer, int64_t layers) {
  if (!config.has("sliding_window")) return 0;
  const int64_t window = config.integer("sliding_window", 1, kMaxContext);
  if (const Json* types = config.json().find_value("layer_types")) {
    const auto& list = types->as_array(config.at("layer_types"));
    if (static_cast<int64_t>(list.size()) != layers) {
      fail(ErrorCode::format, config.at("layer_types") + ": found " + std::to_string(list.size()) +
                                  " entries, expected " + std::to_string(layers));
    }
    const std::string& type = list[static_cast<size_t>(layer)].as_string(config.at("layer_types"));
    return type == "sliding_attention" ? window : 0;
  }
  const bool gated = config.has("use_sliding_window");  // Qwen and SmolLM 3, by default; Mistral has no such switch
  if (gated && !config.flag_or("use_sliding_window", false)) return 0;
  return gated && layer < config.integer_or("max_window_layers", 28, 0, limits::kMaxLayers) ? 0 : window;
}

bool layer_has_rope(const ConfigReader& config, int64_t layer) {
  const Json* list = config.json().find_value("no_rope_layers");
  if (list == nullptr) {
    const int64_t interval = config.integer_or("no_rope_layer_interval", 4, 1, limits::kMaxLayers);
    return (layer + 1) % interval != 0;
  }
  const auto& flags = list->as_array(config.at("no_rope_layers"));
  if (layer >= static_cast<int64_t>(flags.size())) {
    fail(ErrorCode::format, config.at("no_rope_layers") + ": has no entry for layer " + std::to_string(layer));
  }
  return flags[static_cast<size_t>(layer)].as_int(config.at("no_rope_layers")) != 0;
}

void require_silu(const ConfigReader& config) {
  const std::string activation = config.text_or("hidden_act", "silu");
  if (activation == "silu") return;
  fail(ErrorCode::unsupported, config.at("hidden_act") + ": '" + activation + "', expected silu");
}

ModelInfo decoder_info(const ConfigReader& config, const DecoderShape& shape) {
  ModelInfo info;
  info.model_type = config.text_or("model_type", "");
  info.vocab_size = shape.vocab_size;
  info.context_length = shape.context_length;
  info.layers = shape.layers;
  info.heads = shape.heads;
  info.kv_heads = shape.kv_heads;
  info.head_dim = shape.head_dim;
  info.architecture = architecture_of(config);
  if (info.architecture.ends_with(kClassifierClass)) info.labels = read_labels(config);
  return info;
}

ModelInfo rotary_decoder_info(const ConfigReader& config, const DecoderShape& shape) {
  ModelInfo info = decoder_info(config, shape);
  const RopeConfig rope = read_rope(config, shape);
  if (rope.scaling != RopeScaling::dynamic) return info;
  // Without effect within the context that it counts from.
  const double reach = static_cast<double>(shape.context_length) * std::max(rope.factor, 1.0);
  info.context_length = static_cast<int64_t>(std::min(reach, static_cast<double>(kMaxContext)));
  return info;
}

}  // namespace nibble
