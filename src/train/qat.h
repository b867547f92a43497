#pragma once
// Quantization-aware training: a model that computes as if it were quantized already, while what is trained stays f32.
//
//   prepare_qat(model, {.format = "int4"}, is_linear_to_quantize);   // any order with the next line
//   parameters = train_parameters(model, ...);                       // or add_lora(model, ...), or both
//   ... train as always: Tape, add_gradients, Optimizer ...
//   freeze_qat_ranges(model);                                        // near the end, with observed ranges
//   convert_qat(model, compute);                                     // in memory
//
// Afterwards the model gives the same bits as before, and as a folder that quantize() makes of the trained weights, or
// merge() of trained adapters, in the same format: prepared, converted and deployed layers all encode and multiply
// through the format table.
//
// With adapters on a layer it is the merged matrix that is quantized: training that knows of the merge, which rounding
// cannot undo later (see docs/merge.md).
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "models/model.h"
#include "nibble/qat_config.h"
#include "quant/affine.h"
#include "quant/format.h"

namespace nibble {

/// What can be said without a model. @throws Error{invalid_argument, unsupported} as prepare_qat().
void check_qat_config(const QatConfig& config);

/// Marks the chosen Linear layers. @returns their modules, in the model's order
/// @throws Error{invalid_argument} for an unknown or dense format, values that it does not have, and when no layer is
///         chosen.
std::vector<std::string> prepare_qat(Model& model, const QatConfig& config,
                                     const std::function<bool(std::string_view module)>& chosen);

/// From here on observed ranges stay as they are.
void freeze_qat_ranges(Model& model);

/// The ranges of inputs that layers have observed so far, by module: what training with observed ranges needs, besides
/// its parameters, to go on where it was.
using ObservedRanges = std::map<std::string, Extent>;
ObservedRanges observed_ranges(Model& model);
/// Sets them again; a layer that has none there has observed nothing.
/// @throws Error{invalid_argument} naming a module that observes nothing in this model; then none is set.
void restore_observed_ranges(Model& model, const ObservedRanges& ranges);

/// Replaces the weight of every prepared layer by what it is deployed with; its adapters are merged into it and gone.
/// compute: as the model was loaded with.
void convert_qat(Model& model, const ComputeOptions& compute);

}  // namespace nibble
