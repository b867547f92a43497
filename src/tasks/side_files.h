#pragma once
// Everything of a model folder that is not weights: configuration, tokenizer, generation settings.
#include "core/json.h"
#include "core/output.h"
#include "io/model_files.h"

namespace nibble {

/// Writes `config` as config.json and carries over the tokenizer and generation files of the source, and the
/// sub-folders that its modules.json names. From a GGUF file the tokenizer files are made anew.
void write_side_files(OutputFolder& folder, const ModelFiles& source, const Json& config);

/// The float type the dense tensors of a model have (config.json's dtype or torch_dtype), nullopt when it does not say.
std::optional<DType> config_dtype(const Json& config, const std::string& where);

/// Sets it, under the key that the configuration uses.
void set_config_dtype(Json& config, DType dtype);

/// The dtype of what stays dense when a model is written in a format; nullopt = as it is. GGUF mixes block formats and
/// f32 vectors, and a Hugging Face folder needs one dtype.
std::optional<DType> dense_dtype_for(const ModelFiles& files, const Format& format);

}  // namespace nibble
