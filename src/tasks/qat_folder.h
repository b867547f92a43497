#pragma once
// Quantization-aware training of a model folder: which layers, and the folder that comes out.
#include <string>
#include <vector>

#include "core/output.h"
#include "tasks/loaded_model.h"
#include "train/parameters.h"
#include "train/qat.h"

namespace nibble {

/// prepare_qat() on every Linear layer that quantize() would quantize: all but the output head and those that `skip`
/// names. Load the model with `activations` and `compute_dtype` as it is to run.
/// @throws Error{invalid_argument} as prepare_qat(), and for a name of `skip` that means no layer.
std::vector<std::string> prepare_qat_model(LoadedModel& model, const QatConfig& config,
                                           const std::vector<std::string>& skip = {});

/// Modules of the Linear layers that are not prepared.
std::vector<std::string> unprepared_layers(const LoadedModel& model);

/// Writes the folder of a prepared model as it is now: prepared layers in their format, other trained parameters in
/// f32, everything else as in the source. What runs from it gives the same bits as the prepared model.
/// @param trained  as train_parameters() or add_lora() gave them
void write_qat_model(OutputFolder& folder, const LoadedModel& model, const std::vector<TrainedParameter>& trained);

}  // namespace nibble
