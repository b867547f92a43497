#pragma once
// config.json as Hugging Face would have it, made from the metadata of a GGUF file.
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/json.h"
#include "io/gguf_names.h"

namespace nibble {

/// What the configuration needs to know of the tensors.
struct GgufFacts {
  int64_t vocab_size = 0;   // rows of the embedding
  int64_t token_types = 0;  // rows of the table of token types, 0 when there is none
  bool has_output = false;  // a head of its own
  bool has_attention_bias = false;
  bool has_mlp_bias = false;
  DType dtype = DType::f32;       // of the dense matrices; f32 when they are quantized
  std::vector<float> rope_freqs;  // the divisors of the rope frequencies (tensor rope_freqs.weight), empty when absent
};

/// @throws Error{format} for missing keys and values of a wrong type, Error{unsupported} for a rope that nibble does
///         not have.
Json hf_config_from_gguf(const GgufArchitecture& architecture, const Json& metadata, const GgufFacts& facts,
                         const std::string& where);

}  // namespace nibble
