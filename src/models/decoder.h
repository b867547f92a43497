#pragma once
// What decoder families share: the shape of the model as config.json gives it, and rope scaling in its several
// spellings.
#include <cstdint>
#include <string>

#include "models/config_reader.h"
#include "models/model.h"
#include "ops/rope.h"

namespace nibble {

/// The configuration with what the file leaves out: `defaults` is a JSON object of transformers' own defaults. A key
/// that is there stays, even when it is null.
Json with_defaults(const Json& config, std::string_view defaults);

struct DecoderShape {
  int64_t vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, context_length;
  float norm_eps;
  bool tie_word_embeddings;
};

/// @throws Error{format} naming the key that is missing or out of range, or does not fit the others.
DecoderShape read_decoder_shape(const ConfigReader& config);

/// rope_theta and rope_scaling, or transformers 5's rope_parameters.
/// @throws Error{unsupported} for a rope type that nibble does not know, listing those it knows.
RopeConfig read_rope(const ConfigReader& config, const DecoderShape& shape);
/// The same from the object that holds the parameters. What it leaves out is taken from `config`.
RopeConfig read_rope_parameters(const ConfigReader& parameters, const ConfigReader& config, const DecoderShape& shape);

/// The sliding window of a layer, 0 for full attention: sliding_window, restricted by layer_types or, in older files,
/// by use_sliding_window and max_window_layers.
int64_t layer_window(const ConfigReader& config, int64_t layer, int64_t layers);

/// SmolLM 3: no_rope_layers (1 = with rope), or every no_rope_layer_interval-th layer without.
bool layer_has_rope(const ConfigReader& config, int64_t layer);

/// @throws Error{unsupported} when hidden_act is another activation.
void require_silu(const ConfigReader& config);

ModelInfo decoder_info(const ConfigReader& config, const DecoderShape& shape);
/// The same for families with a rope, whose dynamic scaling reaches beyond the context that it counts from.
ModelInfo rotary_decoder_info(const ConfigReader& config, const DecoderShape& shape);

}  // namespace nibble
