#include "models/encoder_config.h"

#include "core/error.h"
#include "core/limits.h"

namespace nibble {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 24;
constexpr int64_t kMaxLabels = 100'000;
constexpr int64_t kMaxTokenTypes = 1024;

void refuse(const ConfigReader& config, std::string_view key, const std::string& what) {
  fail(ErrorCode::unsupported, config.at(key) + ": " + what);
}

void refuse_other_kinds(const ConfigReader& config) {
  if (config.flag_or("is_decoder", false))
    refuse(config, "is_decoder", "encoders that run as decoders are not supported");
  if (config.flag_or("add_cross_attention", false)) {
    refuse(config, "add_cross_attention", "cross attention is not supported");
  }
  const std::string positions = config.text_or("position_embedding_type", "absolute");
  if (positions != "absolute") {
    refuse(config, "position_embedding_type", "'" + printable(positions, 100) + "' is not supported, only absolute is");
  }
}

}  // namespace

EncoderShape read_encoder_shape(const ConfigReader& config, const EncoderKeys& keys) {
  refuse_other_kinds(config);
  EncoderShape s = {};
  s.vocab_size = config.integer("vocab_size", 1, limits::kMaxVocabulary);
  s.hidden_size = config.integer(keys.hidden_size, 1, kMaxWidth);
  s.intermediate_size = config.integer(keys.intermediate_size, 1, kMaxWidth);
  s.layers = config.integer(keys.layers, 1, limits::kMaxLayers);
  s.heads = config.integer(keys.heads, 1, limits::kMaxHeads);
  if (s.hidden_size % s.heads != 0) {
    fail(ErrorCode::format, config.at(keys.heads) + ": " + std::to_string(s.heads) + " does not divide " +
                                std::string(keys.hidden_size) + " " + std::to_string(s.hidden_size));
  }
  s.positions = config.integer_or("max_position_embeddings", 512, 1, kMaxPositions);
  s.token_types = config.integer_or("type_vocab_size", 2, 1, kMaxTokenTypes);
  s.pad_token_id = config.integer_or("pad_token_id", 0, 0, s.vocab_size - 1);
  s.layer_norm_eps = static_cast<float>(config.positive_or("layer_norm_eps", 1e-12));
  s.activation = parse_activation(config.text_or(keys.activation, "gelu"), config.at(keys.activation));
  return s;
}

std::string architecture_of(const ConfigReader& config) {
  const Json* list = config.json().find_value("architectures");
  if (list == nullptr) return "";
  const Json::Array& names = list->as_array(config.at("architectures"));
  return names.empty() ? "" : names[0].as_string(config.at("architectures"));
}

std::vector<std::string> read_labels(const ConfigReader& config) {
  const int64_t given = config.integer_or("num_labels", 0, 0, kMaxLabels);
  const Json* names = config.json().find_value("id2label");
  std::vector<std::string> labels;
  if (names == nullptr) {
    for (int64_t i = 0; i < (given ? given : 2); ++i) labels.push_back("LABEL_" + std::to_string(i));
    return labels;
  }
  const std::string where = config.at("id2label");
  const size_t count = names->as_object(where).size();
  if (count == 0) fail(ErrorCode::format, where + ": is empty");
  if (given != 0 && static_cast<size_t>(given) != count) {
    fail(ErrorCode::format,
         where + ": has " + std::to_string(count) + " labels, but num_labels is " + std::to_string(given));
  }
  for (size_t i = 0; i < count; ++i) {
    const std::string id = std::to_string(i);
    const Json* name = names->find(id);
    if (name == nullptr) {
      fail(ErrorCode::format, where + ": has no \"" + id + "\", expected 0 to " + std::to_string(count - 1));
    }
    labels.push_back(name->as_string(where + ": " + id));
  }
  return labels;
}

}  // namespace nibble
