#include "ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"

namespace nibble {
namespace {

/// One row; its exponentials are summed in double, because a vocabulary has up to 10^6 terms.
double row_loss(float* logits, int64_t classes, int32_t label, float weight) {
  const float largest = *std::max_element(logits, logits + classes);
  const double loss_at_label = static_cast<double>(largest) - logits[label];
  double sum = 0;
  for (int64_t c = 0; c < classes; ++c) {
    logits[c] = std::exp(logits[c] - largest);
    sum += logits[c];
  }
  const auto scale = static_cast<float>(weight / sum);
  for (int64_t c = 0; c < classes; ++c) logits[c] *= scale;
  logits[label] -= weight;
  return std::log(sum) + loss_at_label;
}

}  // namespace

double cross_entropy(Tensor& logits, std::span<const int32_t> labels, float weight) {
  const int64_t rows = logits.rows(), classes = logits.cols();
  if (static_cast<int64_t>(labels.size()) != rows) {
    fail(ErrorCode::internal,
         "cross_entropy: " + std::to_string(labels.size()) + " labels for " + std::to_string(rows) + " rows");
  }
  for (const int32_t label : labels) {
    if (label != kNoLabel && (label < 0 || label >= classes)) {
      fail(ErrorCode::invalid_argument,
           "label " + std::to_string(label) + " is outside 0 to " + std::to_string(classes - 1) + " (-100 = none)");
    }
  }
  std::vector<double> losses(labels.size());
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = logits.f32() + r * classes;
      const int32_t label = labels[static_cast<size_t>(r)];
      if (label == kNoLabel) {
        std::fill(row, row + classes, 0.0f);
      } else {
        losses[static_cast<size_t>(r)] = row_loss(row, classes, label, weight);
      }
    }
  });
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

double squared_error(Tensor& values, std::span<const float> targets, float weight) {
  if (static_cast<int64_t>(targets.size()) != values.count()) {
    fail(ErrorCode::internal, "squared_error: " + std::to_string(targets.size()) + " targets for " +
                                  std::to_string(values.count()) + " values");
  }
  double sum = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    const float error = values.f32()[i] - targets[i];
    sum += static_cast<double>(error) * error;
    values.f32()[i] = 2.0f * error * weight;
  }
  return sum;
}

}  // namespace nibble
