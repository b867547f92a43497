#pragma once
// y = x W^T + b, over a dense or a quantized weight.
#include <optional>
#include <span>
#include <string>

#include "core/tensor.h"
#include "quant/format.h"

namespace nibble {

struct Linear {
  std::string name;            // "model.layers.0.self_attn.q_proj"
  Weight weight;               // [out, in]
  std::optional<Tensor> bias;  // f32 [out]
};

/// x: [tokens, in] f32. @returns [tokens, out] f32
Tensor linear(const Tensor& x, const Linear& layer, const ComputeOptions& options);

/// Rows of an embedding table. @returns [ids.size(), cols] f32
/// @throws Error{invalid_argument} for an id outside the table.
Tensor embedding(std::span<const int32_t> ids, const Weight& table);

}  // namespace nibble
