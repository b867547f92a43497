#pragma once
// The one way to open a model: a Hugging Face folder (dense, bitsandbytes or nibble's own formats), a GGUF file, or the
// id of a model in the local Hugging Face cache.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "io/folder_source.h"
#include "io/sentence_modules.h"
#include "quant/weight_source.h"

namespace nibble {

struct ModelFiles {
  std::filesystem::path path;           // the folder or the .gguf file
  Json config;                          // config.json; for GGUF built from the metadata, in Hugging Face's words
  Json generation_config;               // null when absent
  std::vector<SentenceModule> modules;  // empty when there is no modules.json
  std::optional<Json> gguf_metadata;    // for the tokenizer; nullopt for folders
  std::unique_ptr<WeightSource> weights;

  bool is_gguf() const { return gguf_metadata.has_value(); }
};

/// @param path  a folder, a .gguf file, or ORG/NAME[@REVISION] to be found in the local cache (HF_HUB_CACHE,
///              HF_HOME/hub or ~/.cache/huggingface/hub). Nothing is downloaded.
/// @throws Error{io} when nothing is there (the message says what was looked for), Error{format} when the files are not
///         valid, Error{unsupported} for quantization methods and architectures that nibble does not read.
ModelFiles open_model(const std::string& path);

/// The folder or file that open_model would open.
std::filesystem::path find_model(const std::string& path);

}  // namespace nibble
