#include "ops/linear.h"

#include "core/error.h"
#include "quant/matmul.h"

namespace nibble {

Tensor linear(const Tensor& x, const Linear& layer, const ComputeOptions& options) {
  const Shape shape = weight_shape(layer.weight);
  if (x.cols() != shape[1]) {
    fail(ErrorCode::internal, layer.name + ": input " + shape_text(x.shape) + " does not fit " + shape_text(shape));
  }
  Tensor y(DType::f32, {x.rows(), shape[0]});
  matmul(layer.weight,
         {.x = x.f32(),
          .y = y.f32(),
          .tokens = x.rows(),
          .bias = layer.bias ? layer.bias->f32() : nullptr,
          .name = layer.name},
         options);
  return y;
}

Tensor embedding(std::span<const int32_t> ids, const Weight& table) {
  const Shape shape = weight_shape(table);
  Tensor out(DType::f32, {static_cast<int64_t>(ids.size()), shape[1]});
  float* row = out.f32();
  for (const int32_t id : ids) {
    if (id < 0 || id >= shape[0]) {
      fail(ErrorCode::invalid_argument,
           "token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(shape[0]));
    }
    decode_rows(table, id, id + 1, row);
    row += shape[1];
  }
  return out;
}

}  // namespace nibble
