#pragma once
// The steps that change parameters by their gradients.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "train/parameters.h"

namespace nibble {

/// "adamw": AdamW as torch computes it in f32 (arXiv 1711.05101). "adamw8bit": the same with both moments in 8 bits,
/// blocks of 256, as bitsandbytes on the CPU: decay before the update, the update from the f32 moments, tensors below
/// 4096 values in f32. "sgd": with momentum as torch.
struct OptimizerOptions {
  std::string name = "adamw";
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  // decoupled; of sgd a part of the gradient; towards TrainedParameter::decays_to
  double momentum = 0;      // sgd
};

/// @throws Error{invalid_argument} listing the optimizers.
void check_optimizer_name(const std::string& name);

/// What an optimizer remembers of one parameter; parts that it does not need are empty.
struct OptimizerState {
  Tensor first, second;              // moments: f32, or u8 codes
  Tensor first_scale, second_scale;  // f32, one for a block of codes
};

class Optimizer {
 public:
  /// @throws Error{invalid_argument} for an unknown name and values out of range.
  Optimizer(std::vector<TrainedParameter> parameters, OptimizerOptions options);

  /// One step at this learning rate. A gradient that is empty leaves its parameter alone.
  void step(const std::vector<Tensor>& gradients, double rate);

  int64_t steps() const { return steps_; }
  const std::vector<TrainedParameter>& parameters() const { return parameters_; }

  /// All that a later step depends on, besides steps(): tensors by "PARAMETER.first", ... for a checkpoint.
  std::vector<std::pair<std::string, Tensor>> state() const;
  /// @throws Error{format} when the tensors are not those that state() of this optimizer gives.
  void restore(int64_t steps, const std::vector<std::pair<std::string, Tensor>>& state);

 private:
  std::vector<TrainedParameter> parameters_;
  OptimizerOptions options_;
  std::vector<OptimizerState> states_;  // beside parameters_
  int64_t steps_ = 0;
};

}  // namespace nibble
