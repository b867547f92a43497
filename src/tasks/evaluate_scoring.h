#pragma once
// What two models say about the same positions of a text.
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace nibble {

/// What is known of one scored position.
struct Position {
  int32_t chunk = 0;
  int32_t place = 0;  // of the scored id in its chunk
  double nll = 0, reference_nll = 0;
  double kl = 0;       // KL(reference || model), nats
  double delta_p = 0;  // p_model - p_reference of the id that the text has
  bool same_top1 = false;
};

/// Some neighbouring positions of a chunk and the logits that predict them.
struct ScoredRows {
  int32_t chunk = 0;
  int64_t first = 0;                   // place of the first scored id
  std::span<const int32_t> targets;    // ids from there on, at least a row's worth
  Tensor logits = {}, reference = {};  // f32 [rows, vocabulary]; the reference may be empty
};

/// What a row of logits says about each id.
struct LogSoftmax {
  explicit LogSoftmax(std::span<const float> logits);
  double operator()(size_t id) const { return static_cast<double>(logits[id]) - sum; }

  std::span<const float> logits;
  double sum;  // ln of the sum of exp(logits); NaN when that is not finite
};

/// In nats. Ids that the reference holds for impossible contribute nothing.
double kl_divergence(const LogSoftmax& reference, const LogSoftmax& model);

/// Appends a Position per row. Those whose logits are not finite have NaN.
void score_rows(const ScoredRows& rows, std::vector<Position>& positions);

/// Runs `pass` with an eye on every layer. @returns where the first value that is not finite appears, in words:
/// "in the output of model.layers.3.mlp.up_proj"; "" when all values are finite.
std::string find_nonfinite(const std::function<void()>& pass);

}  // namespace nibble
