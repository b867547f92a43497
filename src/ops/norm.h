#pragma once
// RMSNorm (arXiv 1910.07467) and LayerNorm (arXiv 1607.06450), with their gradients.
#include "core/tensor.h"
#include "ops/tape.h"

namespace nibble {

/// x / sqrt(mean(x^2) + eps) * weight over the last `weight.count()` elements. x: [tokens, groups * n], weight f32 [n].
Tensor rms_norm(const Tensor& x, const Tensor& weight, float eps, Tape* tape = nullptr);

/// (x - mean) / sqrt(variance + eps) * weight + bias, per token. weight, bias: f32 [cols].
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tape* tape = nullptr);

}  // namespace nibble
