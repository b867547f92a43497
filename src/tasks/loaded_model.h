#pragma once
// A model in memory with everything that goes with it; what the public CausalLM holds.
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "models/loader.h"
#include "models/model.h"
#include "nibble/model.h"
#include "text/tokenizer.h"

namespace nibble {

struct LoadedModel {
  std::string path;
  Json config, generation_config, tokenizer_config;
  std::optional<Tokenizer> tokenizer;
  std::optional<std::string> chat_template;
  std::unique_ptr<Model> model;
  std::vector<Parameter> parameters;            // of the model, by the names of its files
  std::set<std::string, std::less<>> left_out;  // tensors of the files that the model has no use for
  /// Parameters that adapters have brought; true: only the base's own values, beside an adapter of the module.
  std::map<std::string, bool, std::less<>> replaced;
  uint64_t weight_bytes = 0;
  DeviceMap device_map;
  bool mixes_tokens = false;    // results depend on what shares a batch: sequences have to run one by one
  DType kv_dtype = DType::f32;  // of caches for which nothing else is said
  LoadModelOptions options;     // that it was loaded with
  ComputeOptions compute;       // how its layers multiply

  /// @throws Error{invalid_argument} saying that ids can be given instead, when the model has no tokenizer.
  const Tokenizer& require_tokenizer() const;
  /// Ids that end a text, from generation_config.json, config.json or the tokenizer.
  std::vector<int32_t> end_ids() const;
  /// What chat templates see besides the messages: the texts of the special tokens that have a name.
  Json chat_variables() const;
};

std::shared_ptr<LoadedModel> load_model(const std::string& path, const LoadModelOptions& options);

/// The same for those who look at no values: what it would quantize while loading has the format, and nothing else.
std::shared_ptr<LoadedModel> load_without_quantizing(const std::string& path, const LoadModelOptions& options);

/// The options for a model whose numbers are what is asked for, and not what they lead to: activations "auto" is
/// "fp32".
LoadModelOptions exact_by_default(LoadModelOptions options);

/// What the output head becomes with LoadModelOptions::head; null: it stays. @throws Error{invalid_argument}
const Format* head_format(const std::string& head);

/// The tokenizer of a model without its weights.
Tokenizer load_tokenizer(const std::string& path);

}  // namespace nibble
