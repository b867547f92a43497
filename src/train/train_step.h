#pragma once
// One step of the optimizer over several batches, and what becomes of it when something is not finite.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/gradients.h"
#include "train/optimizer.h"

namespace nibble {

struct StepOptions {
  double rate = 0;
  double max_norm = 0;                                  // of the gradient; 0 = as it is
  std::optional<uint64_t> dropout_seed = std::nullopt;  // of this step; without one nothing is dropped
};

struct StepResult {
  Loss loss;           // of all batches
  double norm = 0;     // of the gradient, before clipping
  std::string broken;  // what is not finite: "the loss", or the gradient of which parameter; "" when all is

  /// Otherwise nothing was changed.
  bool finite() const { return broken.empty(); }
};

/// Adds the gradients of all batches, a label weighing the same in each, and lets the optimizer use them. The tape must
/// watch the optimizer's parameters, and comes back without gradients. @throws Error{interrupted} between batches.
StepResult train_step(const Model& model, const std::vector<LabelledBatch>& batches, Tape& tape, Optimizer& optimizer,
                      const StepOptions& options);

/// Where the batches first give a value that is not finite: the name of a layer, or what stands in front of it when its
/// input is not finite already; "" when all layers give what is finite.
std::string first_nonfinite_layer(const Model& model, const std::vector<LabelledBatch>& batches);

/// The name of a parameter that holds a value that is not finite; "" when none does.
std::string first_nonfinite_parameter(const std::vector<TrainedParameter>& parameters);

}  // namespace nibble
