#pragma once
// What training changes: tensors of a model, or low-rank adapters beside its layers.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/model.h"
#include "ops/lora.h"
#include "ops/tape.h"

namespace nibble {

/// A tensor that training changes, f32, by the name that files give it.
struct TrainedParameter {
  std::string name;        // "model.norm.weight", "model.layers.0.self_attn.q_proj.lora_A.weight"
  Tensor value;            // shares the model's memory
  float decays_to = 0.0f;  // what weight decay moves it towards
};

/// What a head that has the embeddings' matrix does when these are trained: learns with them and counts once, as the
/// embeddings, or is what it was, and a parameter of its own.
enum class TiedHead { follows, stands_alone };

/// Replaces the parameters that are chosen by f32 copies and returns these, in the model's order.
/// @throws Error{unsupported} when a chosen parameter is quantized.
std::vector<TrainedParameter> train_parameters(Model& model, const std::function<bool(std::string_view name)>& chosen,
                                               TiedHead tied_head = TiedHead::follows);

/// A matrix that cannot be trained, since it is no floats.
struct QuantizedParameter {
  std::string name;
  std::string_view format;
};
/// The first of the chosen parameters that is quantized.
std::optional<QuantizedParameter> first_quantized(Model& model,
                                                  const std::function<bool(std::string_view name)>& chosen);
/// @throws Error{unsupported} when train_parameters() would.
void check_trainable(Model& model, const std::function<bool(std::string_view name)>& chosen);

/// How A and B begin. uniform: A within 1 / sqrt(in), B zero; gaussian: A normal, 1 / rank wide, B zero; random: both
/// uniform, so that the adapter changes something from the start.
enum class LoraInit { uniform, gaussian, random };

struct LoraOptions {
  int64_t rank = 8;
  double alpha = 8;
  bool rslora = false;  // scaling alpha / sqrt(rank) instead of alpha / rank
  bool dora = false;    // with a trained length for every row: DoRA
  float dropout = 0;
  LoraInit init = LoraInit::uniform;
  uint64_t seed = 0;  // of the initial values
};

/// The factor of B A in the weight.
float lora_scaling(const LoraOptions& options);

/// What distinguishes the dropout of a layer's adapter from that of others: a number made of the layer's name.
uint64_t dropout_stream(std::string_view module);

using LoraPlan = std::function<std::optional<LoraOptions>(std::string_view module)>;

/// Puts an adapter on every Linear layer for which `linears` has options, and on every embedding for which `embeddings`
/// has; there A is zero and B normal, 1 wide, and nothing is dropped. The values depend on the seed and the layer's
/// name alone. @returns those of the new adapters
/// @throws Error{invalid_argument} for a rank below 1, a dropout outside [0, 1), and when nothing is chosen,
///         Error{unsupported} for DoRA of an embedding.
std::vector<TrainedParameter> add_lora(Model& model, const LoraPlan& linears, const LoraPlan& embeddings = {});

/// The same adapter for all chosen layers.
std::vector<TrainedParameter> add_lora(Model& model, const LoraOptions& options,
                                       const std::function<bool(std::string_view module)>& chosen);

/// Appends the values of one adapter, as lora_parameters() names them.
void list_lora(const std::string& module, const Lora& lora, std::vector<TrainedParameter>& parameters);
void list_embedding_lora(const std::string& module, const Lora& lora, std::vector<TrainedParameter>& parameters);

/// All adapters of a model, by "MODULE.lora_A.weight", "MODULE.lora_B.weight" and "MODULE.lora_magnitude_vector", and
/// those of embeddings by "MODULE.lora_embedding_A" and "MODULE.lora_embedding_B".
std::vector<TrainedParameter> lora_parameters(Model& model);

}  // namespace nibble
