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
MergeTarget prepare_merge_aware(LoadedModel& model, const QatConfig& config);

/// What an adapter cannot be when its merged and rounded matrix is what computes, said before any weight is read.
/// merges_later: by merge(), which has a place for the adapters of embeddings; a quantized folder has none.
/// @throws Error{unsupported} for DoRA and for the adapter of an embedding, naming the module; Error{invalid_argument}
///         for dropout.
void refuse_unmergeable(const LoraConfig& config, const std::string& model, bool merges_later);

/// Whether a merge takes a matrix over as it is, since encoding it so would only move scales that are quantized
/// themselves. encode.source_dtype: what would be recorded.
bool is_stored_so(const QuantizedTensor& w, const Format& format, const EncodeOptions& encode);

/// How a merge stores what it changes.
struct MergeForm {
  const Format& format;
  const EncodeOptions& encode;
  bool dither;  // matrices that are stored so already, see quant/dither.h
};

/// A merge by its form and the formats of the layers that it changes.
MergeTarget merge_target(const MergeForm& form, std::span<const std::string_view> bases);

Json merge_target_json(const MergeTarget& target);
/// Beside adapter_config.json, whose unknown fields older versions of PEFT refuse.
void write_merge_target(OutputFolder& folder, const MergeTarget& target);
/// nullopt when the adapter has no such record. @throws Error{format} naming file and field.
std::optional<MergeTarget> read_merge_target(const std::filesystem::path& folder);

}  // namespace nibble
