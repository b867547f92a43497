#include "io/gguf_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>
#include <optional>

#include "core/error.h"
#include "core/limits.h"

namespace nibble {
namespace {

/// The double whose shortest text is that of the f32, so that a float of 1e-05 is printed as 1e-05.
double shortest(double value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), static_cast<float>(value));
  double result = value;
  std::from_chars(text.data(), end.ptr, result);
  return result;
}

/// The metadata with the prefix of the architecture.
class Metadata {
 public:
  Metadata(const GgufArchitecture& architecture, const Json& metadata, const std::string& where)
      : prefix_(std::string(architecture.name) + "."), metadata_(metadata), where_(where) {}

  const Json* find(std::string_view key) const { return metadata_.find(prefix_ + std::string(key)); }
  std::string place(std::string_view key) const { return where_ + ": " + prefix_ + std::string(key); }

  int64_t integer(std::string_view key, int64_t absent) const {
    const Json* value = find(key);
    return value == nullptr ? absent : value->as_int(place(key));
  }
  double number(std::string_view key, double absent) const {
    const Json* value = find(key);
    return value == nullptr ? absent : shortest(value->as_double(place(key)));
  }
  std::string text(std::string_view key, const std::string& absent) const {
    const Json* value = find(key);
    return value == nullptr ? absent : value->as_string(place(key));
  }

 private:
  std::string prefix_;
  const Json& metadata_;
  std::string where_;
};

void copy_keys(Json& config, const GgufArchitecture& architecture, const Metadata& metadata) {
  for (const GgufKeyRow& row : architecture.keys) {
    const Json* value = metadata.find(row.gguf);
    if (value == nullptr && row.required) fail(ErrorCode::format, metadata.place(row.gguf) + ": is missing");
    if (value == nullptr) continue;
    const std::string place = metadata.place(row.gguf);
    config.set(row.hf, value->is_integer() ? Json(value->as_int(place)) : Json(shortest(value->as_double(place))));
  }
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kTokenKeys = {{
    {"tokenizer.ggml.bos_token_id", "bos_token_id"},
    {"tokenizer.ggml.padding_token_id", "pad_token_id"},
    {"tokenizer.ggml.token_type_count", "type_vocab_size"},
}};

// The ends of a text, of a turn and of a message; the first is what a tokenizer calls eos.
constexpr std::string_view kEndKeys[] = {"tokenizer.ggml.eos_token_id",     "tokenizer.ggml.eot_token_id",
                                         "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.fim_pad_token_id",
                                         "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id"};

// Tokens that end a text or a turn wherever they occur. Published files of Gemma, Phi-3 and the first Llama 3 name only
// the end of a text by its id, and some mark these as ordinary tokens; so llama.cpp goes by the spelling too.
constexpr std::string_view kEndTokens[] = {
    "<|eot_id|>",         "<|eom_id|>",      "<|im_end|>",    "<|end|>",      "<end_of_turn>",
    "<|endoftext|>",      "<|end_of_text|>", "<EOT>",         "_<EOT>",       "\u2581<EOT>",
    "<end_of_utterance>", "<|fim_pad|>",     "<|repo_name|>", "<|file_sep|>", "<|return|>",
    "<|call|>",           "<|flush|>",       "<|calls|>",     "[EOT]",
};

/// eos_token_id as configurations have it: an id, or a list of several; null where the file names none.
Json end_ids(const Json& metadata, const std::string& where) {
  std::vector<int64_t> ids;
  const auto add = [&ids](int64_t id) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  for (const std::string_view key : kEndKeys) {
    if (const Json* id = metadata.find(key)) add(id->as_int(where + ": " + std::string(key)));
  }
  if (const Json* tokens = metadata.find("tokenizer.ggml.tokens"); tokens && tokens->is_array()) {
    int64_t id = 0;
    for (const Json& token : tokens->as_array("tokens")) {
      const bool ends = token.is_string() && std::find(std::begin(kEndTokens), std::end(kEndTokens),
                                                       token.as_string("token")) != std::end(kEndTokens);
      if (ends) add(id);
      ++id;
    }
  }
  if (ids.size() < 2) return ids.empty() ? Json() : Json(ids.front());
  return Json(Json::Array(ids.begin(), ids.end()));
}

/// Rows of rope types whose parameters are a factor and the context that the model was made for.
Json scaling_from_metadata(const Metadata& metadata) {
  // Older files have the factor alone, under its older name.
  const double stored = metadata.number("rope.scaling.factor", metadata.number("rope.scale_linear", 1.0));
  const double factor = stored == 0.0 ? 1.0 : stored;  // as llama.cpp
  const std::string type = metadata.text("rope.scaling.type", "linear");
  const double attention_factor = metadata.number("rope.scaling.attn_factor", 1.0);
  if (attention_factor != 1.0 && type != "yarn") {
    fail(ErrorCode::unsupported, metadata.place("rope.scaling.attn_factor") + ": found " +
                                     std::to_string(attention_factor) + ", which is supported with yarn only");
  }
  if (type == "none" || (type == "linear" && factor == 1.0)) return Json();
  if (type == "linear") return Json::object({{"rope_type", "linear"}, {"factor", factor}});
  if (type == "yarn") {
    Json scaling = Json::object({{"rope_type", "yarn"}, {"factor", factor}});
    const int64_t original = metadata.integer("rope.scaling.original_context_length", 0);
    if (original > 0) scaling.set("original_max_position_embeddings", original);
    // There a factor of the one that follows from the stretch (ggml's rope_yarn), in configurations instead of it.
    if (attention_factor != 1.0) {
      scaling.set("attention_factor", attention_factor * (1.0 + 0.1 * std::log(std::max(factor, 1.0))));
    }
    return scaling;
  }
  fail(ErrorCode::unsupported, metadata.place("rope.scaling.type") + ": '" + printable(type, 100) +
                                   "' is not supported; none, linear and yarn are");
}

struct Llama3Rope {
  double theta, factor, original_context;
};

constexpr double kLowFreqFactor = 1.0, kHighFreqFactor = 4.0;  // of every published Llama 3 model

/// Whether `divisors` are those of Llama 3's rope. Source: transformers modeling_rope_utils.py, "llama3".
bool is_llama3(const std::vector<float>& divisors, const Llama3Rope& rope) {
  constexpr double kTolerance = 1e-4;
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double frequency = std::pow(rope.theta, -static_cast<double>(i) / static_cast<double>(divisors.size()));
    const double turns = rope.original_context * frequency / (2.0 * std::numbers::pi);
    const double smooth = (turns - kLowFreqFactor) / (kHighFreqFactor - kLowFreqFactor);
    const double expected = 1.0 / ((1.0 - std::clamp(smooth, 0.0, 1.0)) / rope.factor + std::clamp(smooth, 0.0, 1.0));
    if (!(std::abs(divisors[i] / expected - 1.0) < kTolerance)) return false;
  }
  return true;
}

/// llama.cpp's converter replaces the parameters of Llama 3's rope by the divisors that follow from them; only the
/// original context length has to be found again.
Json scaling_from_divisors(const std::vector<float>& divisors, double theta, const std::string& where) {
  const double factor = shortest(divisors.back());
  for (int64_t context = 16; context <= (int64_t{1} << 20); context *= 2) {
    if (!is_llama3(divisors, {theta, factor, static_cast<double>(context)})) continue;
    return Json::object({{"rope_type", "llama3"},
                         {"factor", factor},
                         {"low_freq_factor", kLowFreqFactor},
                         {"high_freq_factor", kHighFreqFactor},
                         {"original_max_position_embeddings", context}});
  }
  fail(ErrorCode::unsupported,
       where + ": tensor 'rope_freqs.weight' is not that of a Llama 3 rope, others are not supported");
}

void add_layer_lists(Json& config, const GgufArchitecture& architecture, const Metadata& metadata) {
  const int64_t layers = metadata.integer("block_count", 0);
  if (layers < 1 || layers > limits::kMaxLayers) {
    fail(ErrorCode::format, metadata.place("block_count") + ": " + std::to_string(layers) + ", expected 1 to " +
                                std::to_string(limits::kMaxLayers));
  }
  if (architecture.global_every > 0) {
    Json::Array types;
    for (int64_t i = 1; i <= layers; ++i) {
      types.emplace_back(i % architecture.global_every == 0 ? "full_attention" : "sliding_attention");
    }
    config.set("layer_types", std::move(types));
  }
  if (const Json* interval = config.find("no_rope_layer_interval")) {
    Json::Array has_rope;
    for (int64_t i = 1; i <= layers; ++i) has_rope.emplace_back(i % interval->as_int("interval") == 0 ? 0 : 1);
    config.set("no_rope_layers", std::move(has_rope));
  }
}

/// Gemma divides the scores by the root of its head size, but its 27B models by that of hidden size / heads
/// (46 layers in Gemma 2, 62 in Gemma 3). llama.cpp decides it by the number of layers too.
void add_gemma_scale(Json& config, const Metadata& metadata) {
  const int64_t layers = metadata.integer("block_count", 0), heads = metadata.integer("attention.head_count", 0);
  if (heads < 1) fail(ErrorCode::format, metadata.place("attention.head_count") + ": must be positive");
  const int64_t per_head = metadata.integer("embedding_length", 0) / heads;
  const bool is_27b = layers == 46 || layers == 62;
  config.set("query_pre_attn_scalar", is_27b ? per_head : metadata.integer("attention.key_length", per_head));
}

}  // namespace

Json hf_config_from_gguf(const GgufArchitecture& architecture, const Json& json, const GgufFacts& facts,
                         const std::string& where) {
  const Metadata metadata(architecture, json, where);
  Json config = Json::object(
      {{"architectures", Json::array({Json(architecture.class_name)})}, {"model_type", Json(architecture.model_type)}});
  const Json fixed = Json::parse(architecture.fixed, "architecture");
  for (const auto& [key, value] : fixed.as_object("architecture")) config.set(key, value);
  copy_keys(config, architecture, metadata);
  add_layer_lists(config, architecture, metadata);
  if (architecture.shifted_norms) add_gemma_scale(config, metadata);
  for (const auto& [gguf, hf] : kTokenKeys) {
    if (const Json* value = json.find(gguf)) config.set(hf, value->as_int(where + ": " + std::string(gguf)));
  }
  if (Json ids = end_ids(json, where); !ids.is_null()) config.set("eos_token_id", std::move(ids));
  if (facts.token_types > 0) config.set("type_vocab_size", facts.token_types);
  Json scaling = scaling_from_metadata(metadata);
  if (!facts.rope_freqs.empty()) {
    scaling = scaling_from_divisors(facts.rope_freqs, metadata.number("rope.freq_base", 10000.0), where);
  }
  if (!scaling.is_null()) config.set("rope_scaling", std::move(scaling));
  if (facts.has_attention_bias) config.set("attention_bias", true);
  if (facts.has_mlp_bias) config.set("mlp_bias", true);
  config.set("vocab_size", facts.vocab_size);
  config.set("tie_word_embeddings", !facts.has_output);
  config.set("torch_dtype", Json(torch_dtype_name(facts.dtype)));
  return config;
}

}  // namespace nibble
