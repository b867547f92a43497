#include "ops/dora.h"

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "kernels/kernels.h"
#include "ops/elementwise.h"
#include "ops/matrix.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

/// fn(element of x, element of by in its column), as a new tensor. x: [rows, cols], by: [cols]
template <class Fn>
Tensor by_columns(const Tensor& x, const Tensor& by, Fn fn) {
  Tensor out(DType::f32, x.shape);
  const int64_t cols = x.cols();
  parallel_for(x.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < cols; ++c) out.f32()[r * cols + c] = fn(x.f32()[r * cols + c], by.f32()[c]);
    }
  });
  return out;
}

Tensor scale_of(const Lora& lora, const Tensor& lengths) {
  Tensor scale(DType::f32, lengths.shape);
  for (int64_t i = 0; i < scale.count(); ++i) scale.f32()[i] = lora.magnitude.f32()[i] / lengths.f32()[i];
  return scale;
}

}  // namespace

Tensor dora_row_lengths(const Weight& w, const Lora& lora) {
  const Shape shape = weight_shape(w);
  const int64_t cols = shape[1], rank = lora.a.rows();
  Tensor lengths(DType::f32, {shape[0]});
  parallel_for(shape[0], kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; ++r) {
      decode_rows(w, r, r + 1, row.data());
      for (int64_t j = 0; j < rank; ++j) {
        kernels().axpy(lora.scaling * lora.b.f32()[r * rank + j], lora.a.f32() + j * cols, row.data(), cols);
      }
      double squares = 0;
      for (const float value : row) squares += static_cast<double>(value) * value;
      lengths.f32()[r] = static_cast<float>(std::sqrt(squares));
    }
  });
  return lengths;
}

DoraPass add_dora(const Tensor& x, const Weight& w, const Lora& lora, const Tape* tape, Tensor& y) {
  const bool fixed = !lora.row_lengths.empty();
  DoraPass pass = {
      .weight = w, .lengths = fixed ? lora.row_lengths : dora_row_lengths(w, lora), .scale = {}, .product = {}};
  pass.scale = scale_of(lora, pass.lengths);
  const Tensor seen = lora_input(x, lora, tape);
  pass.product = Tensor(DType::f32, y.shape);
  multiply_decoded(w, {.x = seen.f32(), .y = pass.product.f32(), .tokens = seen.rows()});
  Tensor change = by_columns(pass.product, pass.scale, [](float v, float c) { return (c - 1.0f) * v; });
  Tensor low_rank(DType::f32, y.shape);
  add_lora(seen, {.a = lora.a, .b = lora.b, .scaling = lora.scaling}, nullptr, low_rank);
  add_in_place(pass.product, low_rank);
  add_in_place(change, by_columns(low_rank, pass.scale, [](float v, float c) { return c * v; }));
  add_in_place(y, change);
  return pass;
}

void dora_backward(const Tensor& x, const Lora& lora, const DoraPass& pass, const LoraSlots& slots, const Tensor& dy,
                   Tape& tape) {
  if (slots.magnitude != Tape::kNone) {
    Tensor along = copy_of(dy);
    along = multiply(std::move(along), pass.product, nullptr);
    Tensor sums = column_sums(along);
    for (int64_t i = 0; i < sums.count(); ++i) sums.f32()[i] /= pass.lengths.f32()[i];
    tape.add(slots.magnitude, std::move(sums));
  }
  lora_backward(x, {}, lora, slots, by_columns(dy, pass.scale, [](float d, float c) { return d * c; }), tape);
  if (slots.x == Tape::kNone) return;
  const Tensor change = by_columns(dy, pass.scale, [](float d, float c) { return d * (c - 1.0f); });
  tape.add(slots.x, lora_input(matmul_by_columns(change, pass.weight), lora, &tape));
}

}  // namespace nibble
