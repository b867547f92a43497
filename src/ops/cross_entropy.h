#pragma once
// What training minimizes, with its gradient.
#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace nibble {

/// A label that counts as none, as in torch and transformers.
inline constexpr int32_t kNoLabel = -100;

/// Sum of -log softmax(logits)[label] over the rows with a label. `logits` [rows, classes] becomes the gradient of
/// that sum, times `weight`: (softmax - one_hot) * weight, zeros in rows without a label.
/// @throws Error{invalid_argument} for a label that is neither kNoLabel nor a class.
double cross_entropy(Tensor& logits, std::span<const int32_t> labels, float weight);

/// Sum of (values - targets)^2. `values` [rows, cols], of rows * cols targets, becomes its gradient times `weight`.
double squared_error(Tensor& values, std::span<const float> targets, float weight);

}  // namespace nibble
