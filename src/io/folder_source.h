#pragma once
// The weights of a Hugging Face folder: one safetensors file or the shards of an index, with the pieces of quantized
// matrices folded together.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "quant/weight_source.h"

namespace nibble {

/// The file names of a folder's weights: model.safetensors, or the shards of model.safetensors.index.json in order.
/// @throws Error{io} when there are none, Error{format} when the index is not valid.
std::vector<std::string> weight_file_names(const std::filesystem::path& folder);

/// @throws Error{io, format, unsupported} when a file is missing or not valid.
std::unique_ptr<WeightSource> open_folder_weights(const std::filesystem::path& folder);

}  // namespace nibble
