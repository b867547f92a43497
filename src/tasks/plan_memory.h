#pragma once
// Everything but the weights: the cache, what a forward pass holds at its peak, what training keeps.
#include <cstdint>
#include <vector>

#include "tasks/plan_model.h"

namespace nibble {

/// Widths of the model's intermediate results, in values per token, found from the shapes of its Linear layers.
struct Widths {
  int64_t hidden = 0, vocab = 0, layers = 0;
  int64_t inner = 0;      // of the MLP
  int64_t attention = 0;  // q, k, v, what attention mixes of them, and the result; copies where they are one matrix
  int64_t mlp = 0;        // gate, up and their product at the same time
  int64_t kept = 0;       // by backward, of one layer
};

Widths find_widths(const PlanModel& model);

struct TrainableBytes {
  int64_t parameters = 0;
  uint64_t weights = 0, gradients = 0, optimizer = 0;
};

/// @throws Error{invalid_argument} when target_modules mean no layer.
TrainableBytes plan_trainable(const PlanModel& model, const PlanOptions& options);

/// Fills what depends on context and batch, and the total. What does not (weights, trainable parameters) is there.
void add_activations(const PlanModel& model, const Widths& widths, const PlanOptions& options, MemoryPlan& plan);

}  // namespace nibble
