#include "ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "core/checked.h"
#include "core/error.h"
#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr int64_t kLeastPiece = 1024, kMostPieces = 256;

/// One row, in pieces: a vocabulary has up to 10^6 terms, so the pieces' sums are added up in double.
double row_loss(float* logits, int64_t classes, int32_t label, float weight) {
  const double at_label = logits[label];
  SoftmaxPart parts[kMostPieces];
  const int64_t piece = std::max(kLeastPiece, ceil_div(classes, kMostPieces)), pieces = ceil_div(classes, piece);
  const auto size = [&](int64_t i) { return std::min(piece, classes - i * piece); };
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  double largest = kNothing, sum = 0;
  for (int64_t i = 0; i < pieces; ++i) {
    parts[i] = kernels().softmax_part(logits + i * piece, size(i));
    if (parts[i].sum == 0) parts[i].max = kNothing;
    largest = std::max(largest, double{parts[i].max});
  }
  for (int64_t i = 0; i < pieces; ++i) sum += parts[i].sum * std::exp(parts[i].max - largest);
  for (int64_t i = 0; i < pieces; ++i) {
    const auto scale = static_cast<float>(std::exp(parts[i].max - largest) * weight / sum);
    for (int64_t c = i * piece; c < i * piece + size(i); ++c) logits[c] *= scale;
  }
  logits[label] -= weight;
  return std::log(sum) + largest - at_label;
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
