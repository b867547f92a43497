#pragma once
// What encoder families share: the shape of the model as config.json gives it; and the labels of any classifier.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/config_reader.h"
#include "ops/elementwise.h"

namespace nibble {

/// The keys of config.json that families spell differently.
struct EncoderKeys {
  std::string_view hidden_size, intermediate_size, layers, heads, activation;
};

struct EncoderShape {
  int64_t vocab_size, hidden_size, intermediate_size, layers, heads, positions;
  int64_t token_types;  // 0 = the family has none
  int64_t pad_token_id;
  float layer_norm_eps;
  Activation activation;
};

/// @throws Error{format} naming the key that is missing or out of range, Error{unsupported} for decoders and for
///         positions that are not absolute.
EncoderShape read_encoder_shape(const ConfigReader& config, const EncoderKeys& keys);

/// How the class of a classifier is named, behind its family.
inline constexpr std::string_view kClassifierClass = "ForSequenceClassification";

/// "BertForSequenceClassification"; "" when the file does not say.
std::string architecture_of(const ConfigReader& config);

/// Names of the labels by id: id2label, else LABEL_0 to LABEL_(num_labels - 1), two when neither is there.
/// @throws Error{format} when the ids are not 0 to n - 1, or num_labels is another number.
std::vector<std::string> read_labels(const ConfigReader& config);

}  // namespace nibble
