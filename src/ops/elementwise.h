#pragma once
// Operations on each token by itself.
#include <string>

#include "core/tensor.h"

namespace nibble {

/// x / sqrt(mean(x^2) + eps) * weight over the last `weight.count()` elements. x: [tokens, groups * n], weight f32 [n].
Tensor rms_norm(const Tensor& x, const Tensor& weight, float eps);

/// (x - mean) / sqrt(variance + eps) * weight + bias, per token. weight, bias: f32 [cols].
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps);

/// silu(gate) * up, elementwise.
Tensor silu_mul(const Tensor& gate, const Tensor& up);

enum class Activation { relu, silu, tanh, gelu_erf, gelu_tanh };

/// By transformers' name: "relu", "silu", "tanh", "gelu" (erf), "gelu_new" and "gelu_pytorch_tanh" (tanh).
/// @throws Error{unsupported} naming those that are known; `where` names the file and key.
Activation parse_activation(const std::string& name, const std::string& where);

/// In place.
void activate(Activation activation, Tensor& x);

/// x *= y
void multiply_in_place(Tensor& x, const Tensor& y);
/// x *= factor
void scale_in_place(Tensor& x, float factor);
/// cap * tanh(x / cap). Gemma 2, arXiv 2408.00118.
void softcap_in_place(Tensor& x, float cap);

/// Columns [begin, end) of every row. @returns [rows, end - begin]
Tensor slice_columns(const Tensor& x, int64_t begin, int64_t end);

/// x += y
void add_in_place(Tensor& x, const Tensor& y);

}  // namespace nibble
