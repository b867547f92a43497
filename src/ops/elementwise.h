#pragma once
// Operations on each token by itself.
#include "core/tensor.h"

namespace nibble {

/// x / sqrt(mean(x^2) + eps) * weight over the last `weight.count()` elements. x: [tokens, groups * n], weight f32 [n].
Tensor rms_norm(const Tensor& x, const Tensor& weight, float eps);

/// silu(gate) * up, elementwise.
Tensor silu_mul(const Tensor& gate, const Tensor& up);

/// x += y
void add_in_place(Tensor& x, const Tensor& y);

}  // namespace nibble
