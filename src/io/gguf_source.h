#pragma once
// The weights of a GGUF file under their Hugging Face names and in Hugging Face's order of rows.
#include <filesystem>
#include <memory>

#include "core/json.h"
#include "quant/weight_source.h"

namespace nibble {

struct GgufModel {
  Json config;    // as config.json would be
  Json metadata;  // as the file has it
  std::unique_ptr<WeightSource> weights;
};

/// Opens a file and, when the model is split, the other parts beside it.
/// @throws Error{unsupported} for an unknown architecture or tensor.
GgufModel open_gguf(const std::filesystem::path& path);

}  // namespace nibble
