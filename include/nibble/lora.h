#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "nibble/classify.h"
#include "nibble/lora_config.h"
#include "nibble/model.h"

namespace nibble {

struct AttachedAdapter;  // internal

/// A model with an adapter whose values can be trained. It shares the model it was made from: that one has the adapter
/// too.
class PeftModel {
 public:
  PeftModel(std::shared_ptr<LoadedModel> model, std::shared_ptr<AttachedAdapter> adapter)
      : model_(std::move(model)), adapter_(std::move(adapter)) {}

  struct ParameterCounts {
    int64_t trainable = 0, all = 0;
  };
  ParameterCounts parameter_counts() const;
  /// As it will be saved: target_modules named one by one, what the model decides filled in.
  const LoraConfig& config() const;

  /// Writes adapter_config.json and adapter_model.safetensors, which PEFT loads. An adapter that began with PiSSA
  /// is written as the change of the original model, a plain one of rank 2 r.
  /// @throws Error{exists} when the folder exists and overwrite is not set, or is no adapter or model;
  /// Error{invalid_argument} when it is, or holds, the model.
  enum class Existing { refuse, overwrite };
  void save_pretrained(const std::string& folder, Existing existing = Existing::refuse) const;

  LoadedModel& internal() const { return *model_; }
  AttachedAdapter& adapter() const { return *adapter_; }

 private:
  std::shared_ptr<LoadedModel> model_;
  std::shared_ptr<AttachedAdapter> adapter_;
};

/// Puts a new adapter on a model; until it is trained the model gives what it gave, or with init_lora_weights "false"
/// and "loftq" something else.
///
///     PeftModel peft = get_peft_model(model, {.r = 16, .lora_alpha = 32, .target_modules = "all-linear"});
///
/// The first values depend on the seed and the names of the layers alone.
/// @throws Error{invalid_argument} for values out of range and when no module is meant, Error{unsupported} for
/// "pissa" over quantized layers, and for "loftq" where the files of the model are quantized.
PeftModel get_peft_model(const CausalLM& model, const LoraConfig& config, uint64_t seed = 0);
PeftModel get_peft_model(const SequenceClassifier& model, const LoraConfig& config, uint64_t seed = 0);

/// Reads the configuration of an adapter folder.
/// @throws Error{format, unsupported} naming the field that is malformed, or that nibble does not have.
LoraConfig load_lora_config(const std::string& folder);

}  // namespace nibble
