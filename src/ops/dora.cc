#include "ops/dora.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "kernels/kernels.h"
#include "ops/elementwise.h"
#include "ops/matrix.h"
#include "ops/merged_weight.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

/// see(where a row begins, its length)
template <class See>
void for_rows(const Tensor& x, See see) {
  const int64_t cols = x.cols();
  parallel_for(x.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) see(r * cols, cols);
  });
}

/// fn(element of x, element of by in its column), as a new tensor. x: [rows, cols], by: [cols]
template <class Fn>
Tensor by_columns(const Tensor& x, const Tensor& by, Fn fn) {
  Tensor out = Tensor::uninitialized(DType::f32, x.shape);
  for_rows(x, [&](int64_t first, int64_t cols) {
    for (int64_t c = 0; c < cols; ++c) out.f32()[first + c] = fn(x.f32()[first + c], by.f32()[c]);
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
  const int64_t cols = shape[1];
  Tensor lengths(DType::f32, {shape[0]});
  parallel_for(shape[0], kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>(kRowGrain * cols));
    for (int64_t r = begin; r < end; r += kRowGrain) {
      const int64_t stop = std::min(end, r + kRowGrain);
      decode_rows(w, r, stop, rows.data());
      merge_rows(rows.data(), lora, r, stop, rows.data());
      for (int64_t i = r; i < stop; ++i) {
        const float* row = rows.data() + (i - r) * cols;
        lengths.f32()[i] = std::sqrt(kernels().dot(row, row, cols));
      }
    }
  });
  return lengths;
}

DoraPass add_dora(const Tensor& x, const Linear& layer, const Lora& lora, const Tape* tape, bool is_base, Tensor& y) {
  const bool fixed = !lora.row_lengths.empty();
  DoraPass pass = {.weight = {},
                   .lengths = fixed ? lora.row_lengths : dora_row_lengths(layer.weight, lora),
                   .scale = {},
                   .low_rank = {},
                   .product = Tensor::uninitialized(DType::f32, y.shape),
                   .drops = drops(lora, tape)};
  pass.scale = scale_of(lora, pass.lengths);
  const Tensor seen = lora_input(x, lora, tape);
  const bool multiplies = pass.drops || !is_base;
  if (pass.drops) pass.weight = layer.weight;
  if (multiplies) multiply_decoded(layer.weight, {.x = seen.f32(), .y = pass.product.f32(), .tokens = seen.rows()});
  pass.low_rank = lora_down(seen, lora, tape);
  const Tensor delta = lora_up(pass.low_rank, lora, tape);
  const float* bias = layer.bias ? layer.bias->f32() : nullptr;
  for_rows(y, [&](int64_t first, int64_t cols) {
    float *to = y.f32() + first, *product = pass.product.f32() + first;
    const float *change = delta.f32() + first, *c = pass.scale.f32();
    if (!multiplies) {
      for (int64_t i = 0; i < cols; ++i) product[i] = bias ? to[i] - bias[i] : to[i];
    }
    for (int64_t i = 0; i < cols; ++i) {
      to[i] += (c[i] - 1.0f) * product[i] + c[i] * change[i];
      product[i] += change[i];
    }
  });
  return pass;
}

void add_dora_gradient(const DoraPass& pass, const Tensor& dy, Tensor& through) {
  for_rows(dy, [&](int64_t first, int64_t cols) {
    const float *from = dy.f32() + first, *c = pass.scale.f32();
    float* to = through.f32() + first;
    for (int64_t i = 0; i < cols; ++i) to[i] += (c[i] - 1.0f) * from[i];
  });
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
  lora_backward(x, pass.low_rank, lora, slots, by_columns(dy, pass.scale, [](float d, float c) { return d * c; }),
                tape);
  if (slots.x == Tape::kNone || !pass.drops) return;
  const Tensor change = by_columns(dy, pass.scale, [](float d, float c) { return d * (c - 1.0f); });
  tape.add(slots.x, lora_input(matmul_by_columns(change, pass.weight), lora, &tape));
}

}  // namespace nibble
