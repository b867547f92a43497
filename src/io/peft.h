#pragma once
// Adapter folders as PEFT writes them: adapter_config.json and adapter_model.safetensors.
//
//   base_model.model.MODULE.lora_A.weight         [r, in]     .lora_B.weight [out, r]   .lora_B.bias [out]
//   base_model.model.MODULE.lora_magnitude_vector [out]       DoRA
//   base_model.model.MODULE.lora_embedding_A      [r, vocab]  .lora_embedding_B [dim, r]
//   base_model.model.MODULE.base_layer.bias       [out]       a parameter of the model itself
//   base_model.model.MODULE.weight                            the same, of modules_to_save
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/json.h"
#include "io/safetensors.h"
#include "nibble/lora_config.h"

namespace nibble {

inline constexpr std::string_view kAdapterPrefix = "base_model.model.";
inline constexpr const char* kAdapterConfigFile = "adapter_config.json";
inline constexpr const char* kAdapterWeightsFile = "adapter_model.safetensors";

struct AdapterFiles {
  LoraConfig config;
  SafetensorsFile tensors;
};

/// A parameter of the model itself that an adapter file brings.
struct ReplacedParameter {
  std::string name;            // as the model has it
  bool in_base_layer = false;  // its module has an adapter too
};
/// By a tensor's name without kAdapterPrefix, which is not one of an adapter's own; nothing for what PEFT keeps of the
/// values before.
std::optional<ReplacedParameter> replaced_parameter(std::string_view tensor);

/// @throws Error{io, format, unsupported} naming file and field. An adapter that was begun by changing its base is
/// refused: the base that its tensors go with is not the one that they are put on.
AdapterFiles open_adapter(const std::filesystem::path& folder);

/// A field that nibble does not have is refused when its value means anything, never ignored.
LoraConfig parse_lora_config(const Json& json, const std::string& where);

/// N of "pissa_niter_N", at most 1000; 0 for "pissa", which stands for as many as it takes; nothing for other names.
std::optional<int64_t> pissa_iterations(std::string_view init_lora_weights);

/// @throws Error{unsupported} for a word of init_lora_weights with which nibble begins no adapter.
void require_beginning(const std::string& init_lora_weights);

/// All fields that PEFT has had since 0.10, so that old and new versions read them.
Json lora_config_json(const LoraConfig& config);

}  // namespace nibble
