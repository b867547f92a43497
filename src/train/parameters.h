#pragma once
// What training changes: tensors of a model, or low-rank adapters beside its layers.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/model.h"
#include "ops/lora.h"
#include "ops/tape.h"

namespace nibble {

/// A tensor that training changes, f32, by the name that files give it.
struct TrainedParameter {
  std::string name;  // "model.norm.weight", "model.layers.0.self_attn.q_proj.lora_A.weight"
  Tensor value;      // shares the model's memory
};

/// Replaces the parameters that are chosen by f32 copies and returns these, in the model's order. A head that is tied
/// to the embeddings stays tied and counts once, as the embeddings.
/// @throws Error{unsupported} when a chosen parameter is quantized.
std::vector<TrainedParameter> train_parameters(Model& model, const std::function<bool(std::string_view name)>& chosen);

struct LoraOptions {
  int64_t rank = 8;
  float alpha = 8;
  bool rslora = false;  // scaling alpha / sqrt(rank) instead of alpha / rank
  bool dora = false;    // with a trained length for every row: DoRA
  float dropout = 0;
  uint64_t seed = 0;  // of the initial values of A
};

/// Puts an adapter on every chosen Linear layer: A uniform within 1 / sqrt(in), B zero, so that the model gives what it
/// gave. The values depend on the seed and the layer's name alone.
/// @throws Error{invalid_argument} for a rank below 1, a dropout outside [0, 1), and when nothing is chosen.
std::vector<TrainedParameter> add_lora(Model& model, const LoraOptions& options,
                                       const std::function<bool(std::string_view module)>& chosen);

/// All adapters of a model, by "MODULE.lora_A.weight", "MODULE.lora_B.weight" and "MODULE.lora_magnitude_vector".
std::vector<TrainedParameter> lora_parameters(Model& model);

}  // namespace nibble
