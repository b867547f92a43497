#pragma once
// Training a layer in the form in which it will be deployed. The forward pass encodes its matrix in the deployed format
// and multiplies as the deployed layer does, so the two give the same bits; the backward pass treats rounding as if it
// were not there (straight-through, arXiv 1308.3432).
#include <optional>

#include "core/tensor.h"
#include "ops/fake_quant_affine.h"
#include "ops/linear.h"
#include "ops/tape.h"
#include "quant/format.h"

namespace nibble {

struct FakeQuant {
  const Format* format = nullptr;
  EncodeOptions encode = {};
  /// int8-dynamic: the range of the inputs, which training observes and then fixes; nullopt = that of each call.
  std::optional<MovingExtents> input = std::nullopt;
  bool observes = true;  // false: the range stays as it is
  bool dither = true;    // a base of adapters that is stored in the format already is dithered, see quant/dither.h
};

/// What the layer is deployed with, as files hold it: its matrix with all adapters merged into it, in the format.
/// @throws Error{unsupported} for a layer with a DoRA adapter.
QuantizedTensor deployed_weight(const Linear& layer, const ComputeOptions& options);

/// What linear() is for a layer with fake_quant. Gradients of its matrix and of A and B are those of the merged matrix;
/// the dropout of adapters does not apply.
Tensor fake_quant_linear(const Tensor& x, const Linear& layer, const ComputeOptions& options, Tape* tape);

}  // namespace nibble
