#pragma once
// The arguments that every command which runs a model shares: how to load it, what to feed it.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/args.h"
#include "core/json.h"
#include "nibble/model.h"

namespace nibble::cli {

struct ModelArgs {
  std::string model, format;
  std::optional<std::string> compute_dtype;
  std::vector<std::string> skip, adapters;
  int64_t block = 0;
  std::string granularity = "channel";
  std::optional<std::string> activations, activation_range;
  std::string default_activations = "auto";
  bool double_quant = false, reduce_range = false, quantize_head = false;
  std::optional<std::string> device_map, max_memory;
  std::string head = "keep";

  /// MODEL and --format with what belongs to it.
  void declare(Args& args);
  /// --head, of commands that run language models.
  static void declare_head(Args& args, std::string& head);
  LoadModelOptions load_options(const Common& common) const;
  /// Loads the model and says where its layers are, when that was asked for or some are not in memory.
  /// @tparam Auto  what has from_pretrained()
  template <class Auto = AutoModelForCausalLM>
  auto load(const Common& common) const {
    auto loaded = Auto::from_pretrained(model, load_options(common));
    note_placement(loaded.device_map(), common);
    return loaded;
  }

 private:
  void refuse_idle_options() const;
  void note_placement(const DeviceMap& map, const Common& common) const;
};

struct PromptArgs {
  std::optional<std::string> prompt, prompt_file, ids;

  void declare(Args& args);
  bool given() const { return prompt || prompt_file || ids; }
  /// The prompt's text. @throws Error{invalid_argument} unless exactly one of --prompt and --prompt-file is given.
  std::string text() const;
  /// The prompt's ids: --ids, or the text through the model's tokenizer.
  std::vector<int32_t> token_ids(const CausalLM& model) const;
};

/// nullopt for "auto". @throws Error{invalid_argument} for what no cache of keys and values can be in.
std::optional<DType> parse_kv_dtype(const std::string& name);

struct SamplingArgs {
  GenerateOptions options;
  std::string kv_dtype = "auto";
  int64_t seed = 0;

  void declare(Args& args);
  GenerateOptions resolve() const;
};

Json id_list(const std::vector<int32_t>& ids);

}  // namespace nibble::cli
