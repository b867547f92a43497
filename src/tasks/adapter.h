#pragma once
// Adapters on a loaded model: read from PEFT folders, made new for training, written.
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/output.h"
#include "nibble/lora_config.h"
#include "nibble/merge_target.h"
#include "tasks/adapter_init.h"
#include "tasks/loaded_model.h"
#include "train/parameters.h"

namespace nibble {

struct AttachedAdapter {
  LoraConfig config;  // as it is trained: with_doubled_rank() of it is written when there are starts
  SubtractedStarts starts = {};
  std::vector<TrainedParameter> parameters;  // what training changes, by the names of lora_parameters() or of the model
  std::vector<TrainedParameter> kept = {};   // tensors of the base that were read with it and are written again
  std::vector<std::string> warnings = {};    // what its configuration says that means nothing in this model
  std::optional<MergeTarget> trained_for = {};  // through the rounding of this merge
};

enum class AdapterUse {
  inference,  // everything that a product needs is worked out once
  training,   // parameters can be changed afterwards
};

/// Reads an adapter folder and puts it on the model, beside those that it has already.
/// @throws Error{format} listing the first tensors that do not fit the model, and modules that have none;
///         Error{unsupported} for what an adapter can hold and this use cannot.
AttachedAdapter attach_adapter(LoadedModel& model, const std::string& folder, AdapterUse use);

/// A new adapter before there is one.
struct AdapterDraft {
  std::vector<std::string> parameters;  // the A of each module that gets one, and parameters that are trained whole
  std::vector<std::string> warnings;    // as an AttachedAdapter's
};

/// What new_adapter() would train, without looking at the values of weights. @throws as new_adapter().
AdapterDraft draft_adapter(LoadedModel& model, const LoraConfig& config);

/// Puts a new adapter on the model. @throws Error{unsupported} when a parameter that is trained whole is quantized,
///         Error{invalid_argument} when no module is meant.
/// @param tied_head  when modules_to_save name the embeddings; PEFT's copy of a module is its alone
AttachedAdapter new_adapter(LoadedModel& model, const LoraConfig& config, uint64_t seed,
                            TiedHead tied_head = TiedHead::stands_alone);

/// The modules that target_modules of a configuration mean, by PEFT's names.
std::set<std::string> meant_modules(const LoadedModel& model, const LoraConfig& config);

/// Writes the two files of an adapter folder, f32, for the model as its files have it: what was begun with PiSSA as a
/// plain adapter of twice the rank. A third file where it was trained for a merge.
void write_adapter(OutputFolder& folder, const LoadedModel& model, const AttachedAdapter& adapter);

}  // namespace nibble
