#include "models/decoder.h"

#include <array>

#include "core/error.h"
#include "core/limits.h"

namespace nibble {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 31;

struct RopeType {
  std::string_view name;
  RopeScaling scaling;
};
constexpr std::array<RopeType, 6> kRopeTypes = {{{"default", RopeScaling::none},
                                                 {"none", RopeScaling::none},
                                                 {"linear", RopeScaling::linear},
                                                 {"dynamic", RopeScaling::dynamic},
                                                 {"llama3", RopeScaling::llama3},
                                                 {"yarn", RopeScaling::yarn}}};

RopeScaling parse_rope_type(const std::string& name, const std::string& where) {
  for (const RopeType& type : kRopeTypes) {
    if (name == type.name) return type.scaling;
  }
  fail(ErrorCode::unsupported,
       where + ": rope type '" + name + "' is not supported (known: default, linear, dynamic, " + "llama3, yarn)");
}

/// rope_parameters (transformers 5) or rope_scaling; null when the file has neither.
const Json* rope_member(const ConfigReader& config, std::string& where) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (const Json* value = config.json().find_value(key)) {
      where = config.at(key);
      value->as_object(where);
      return value;
    }
  }
  return nullptr;
}

}  // namespace

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
  s.rms_norm_eps = static_cast<float>(config.positive_or("rms_norm_eps", 1e-6));
  s.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  return s;
}

RopeConfig read_rope(const ConfigReader& config, const DecoderShape& shape) {
  RopeConfig rope;
  rope.head_dim = shape.head_dim;
  rope.theta = config.positive_or("rope_theta", 10000.0);
  rope.original_context = shape.context_length;
  std::string where;
  const Json* member = rope_member(config, where);
  if (member == nullptr) return rope;
  const ConfigReader scaling(*member, where);
  rope.theta = scaling.positive_or("rope_theta", rope.theta);
  if (scaling.positive_or("partial_rotary_factor", 1.0) != 1.0) {
    fail(ErrorCode::unsupported, scaling.at("partial_rotary_factor") + ": only 1.0 is supported");
  }
  const std::string type = scaling.text_or("rope_type", scaling.text_or("type", "default"));
  rope.scaling = parse_rope_type(type, where);
  if (rope.scaling == RopeScaling::none) return rope;
  rope.factor = scaling.positive_or("factor", 1.0);
  rope.original_context = scaling.integer_or("original_max_position_embeddings", shape.context_length, 1, kMaxContext);
  // Dynamic scaling always counts from max_position_embeddings; the others from the length trained on.
  if (rope.scaling == RopeScaling::dynamic) rope.original_context = shape.context_length;
  rope.low_freq_factor = scaling.positive_or("low_freq_factor", 1.0);
  rope.high_freq_factor = scaling.positive_or("high_freq_factor", 4.0);
  if (rope.scaling == RopeScaling::llama3 && rope.high_freq_factor <= rope.low_freq_factor) {
    fail(ErrorCode::format, scaling.at("high_freq_factor") + ": must be above low_freq_factor");
  }
  rope.beta_fast = scaling.positive_or("beta_fast", 32.0);
  rope.beta_slow = scaling.positive_or("beta_slow", 1.0);
  rope.attention_factor = scaling.number_or("attention_factor", 0.0);
  rope.mscale = scaling.number_or("mscale", 0.0);
  rope.mscale_all_dim = scaling.number_or("mscale_all_dim", 0.0);
  rope.truncate = scaling.flag_or("truncate", true);
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
  const bool gated = config.has("use_sliding_window");  // Qwen and SmolLM 3; Mistral has no such switch
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

ModelInfo decoder_info(const ConfigReader& config, const DecoderShape& shape) {
  ModelInfo info;
  info.model_type = config.text_or("model_type", "");
  info.vocab_size = shape.vocab_size;
  info.context_length = shape.context_length;
  info.layers = shape.layers;
  info.kv_heads = shape.kv_heads;
  info.head_dim = shape.head_dim;
  if (const Json* names = config.json().find_value("architectures")) {
    const auto& list = names->as_array(config.at("architectures"));
    if (!list.empty()) info.architecture = list[0].as_string(config.at("architectures"));
  }
  return info;
}

}  // namespace nibble
