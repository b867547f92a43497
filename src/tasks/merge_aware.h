#pragma once
// Adapters that are trained through the rounding of a merge: which layers compute in their merged form, and the record
// of it in the adapter's folder.
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "core/json.h"
#include "core/output.h"
#include "nibble/lora_config.h"
#include "nibble/merge_target.h"
#include "tasks/loaded_model.h"
#include "train/qat.h"

namespace nibble {

/// Prepares, after its adapters are there, every layer that merge() into config.format would encode; those that are
/// stored so already and have no adapter stay as they are.
/// @throws Error{invalid_argument} as prepare_qat().
MergeTarget prepare_merge_aware(LoadedModel& model, const QatConfig& config);

/// @throws Error{unsupported} for DoRA, Error{invalid_argument} for dropout: neither has a meaning when the merged
/// matrix
///         is what computes.
void refuse_unmergeable(const LoraConfig& config);

/// A merge by its format and those of the layers that it changes.
MergeTarget merge_target(const Format& format, const EncodeOptions& encode, std::span<const std::string_view> bases);

Json merge_target_json(const MergeTarget& target);
/// Beside adapter_config.json, whose unknown fields older versions of PEFT refuse.
void write_merge_target(OutputFolder& folder, const MergeTarget& target);
/// nullopt when the adapter has no such record. @throws Error{format} naming file and field.
std::optional<MergeTarget> read_merge_target(const std::filesystem::path& folder);

}  // namespace nibble
