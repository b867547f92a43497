#pragma once
// The table of training methods: how the base is loaded, what is trained, what is written.
#include <span>
#include <string_view>

#include "core/output.h"
#include "nibble/finetune.h"
#include "tasks/adapter.h"
#include "tasks/loaded_model.h"

namespace nibble {

struct FinetuneMethod {
  std::string_view name;
  bool use_lora;         // trains an adapter; a name with two rows leaves the choice to the user
  double learning_rate;  // when the user gives none
  LoadModelOptions (*load_options)(const FinetuneOptions& options, const std::string& model);
  /// What prepare() would refuse, found without the values of weights; returns what it would warn of.
  std::vector<std::string> (*check)(LoadedModel& model, const FinetuneOptions& options);
  /// Makes the model ready and says what is trained.
  AttachedAdapter (*prepare)(LoadedModel& model, const FinetuneOptions& options);
  /// Writes the result as it is now.
  void (*write)(OutputFolder& folder, const LoadedModel& model, const AttachedAdapter& trained);
};

/// @throws Error{invalid_argument} listing the methods.
const FinetuneMethod& find_finetune_method(const FinetuneOptions& options);

/// Fills in the format that a base or a result gets; of a base that is quantized and stays so it is none.
/// @throws Error{unsupported} when that is not the one that was asked for, Error{invalid_argument} naming an option of
/// rounding that would have no effect.
void settle_format(FinetuneOptions& options, const std::string& model);

/// What can be said of the adapter before the model is loaded. @throws as refuse_unmergeable().
void check_finetune_adapter(const FinetuneOptions& options, const std::string& model);

}  // namespace nibble
