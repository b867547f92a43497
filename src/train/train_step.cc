#include "train/train_step.h"

#include <cmath>

#include "core/progress.h"
#include "ops/linear.h"
#include "ops/linear_observer.h"
#include "train/schedule.h"

namespace nibble {
namespace {

bool is_finite(const Tensor& values) {
  for (int64_t i = 0; i < values.count(); ++i) {
    if (!std::isfinite(values.f32()[i])) return false;
  }
  return true;
}

/// What of a step is not finite, where it is not the norm of all gradients alone.
std::string broken_part(const Loss& loss, const std::vector<TrainedParameter>& parameters,
                        const std::vector<Tensor>& gradients) {
  if (!std::isfinite(loss.sum)) return "the loss";
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!gradients[i].empty() && !is_finite(gradients[i])) return "the gradient of " + parameters[i].name;
  }
  return "the norm of the gradient";
}

}  // namespace

StepResult train_step(const Model& model, const std::vector<LabelledBatch>& batches, Tape& tape, Optimizer& optimizer,
                      const StepOptions& options) {
  int64_t total = 0;
  for (const LabelledBatch& batch : batches) total += label_count(model, batch);
  StepResult result;
  for (size_t i = 0; i < batches.size(); ++i) {
    check_interrupt();
    if (options.dropout_seed) tape.dropout_seed = *options.dropout_seed + i;
    const Loss loss = add_gradients(model, batches[i], total, tape);
    result.loss.sum += loss.sum;
    result.loss.count += loss.count;
  }
  std::vector<Tensor> gradients;
  for (const TrainedParameter& p : optimizer.parameters()) gradients.push_back(tape.gradient(p.value));
  result.norm = gradient_norm(gradients);
  if (!std::isfinite(result.loss.sum) || !std::isfinite(result.norm)) {
    result.broken = broken_part(result.loss, optimizer.parameters(), gradients);
  } else {
    if (options.max_norm > 0) clip_gradients(gradients, result.norm, options.max_norm);
    optimizer.step(gradients, options.rate);
  }
  tape.clear_gradients();
  return result;
}

std::string first_nonfinite_layer(const Model& model, const std::vector<LabelledBatch>& batches) {
  std::string found;
  const LinearObserver observer([&](const LinearCall& call) {
    if (!found.empty()) return;
    if (!is_finite(call.x)) {
      found = "what stands in front of " + call.layer.name + " (its input)";
    } else if (!is_finite(call.y)) {
      found = call.layer.name;
    }
  });
  for (const LabelledBatch& batch : batches) {
    loss_of(model, batch);
    if (!found.empty()) return found;
  }
  return "";
}

std::string first_nonfinite_parameter(const std::vector<TrainedParameter>& parameters) {
  for (const TrainedParameter& p : parameters) {
    if (!is_finite(p.value)) return p.name;
  }
  return "";
}

}  // namespace nibble
