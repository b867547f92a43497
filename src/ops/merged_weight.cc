#include "ops/merged_weight.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr int64_t kRowGrain = 16;

float length_of(const float* row, int64_t cols) {
  double squares = 0;
  for (int64_t c = 0; c < cols; ++c) squares += static_cast<double>(row[c]) * row[c];
  return static_cast<float>(std::sqrt(squares));
}

}  // namespace

void merge_rows(const float* base, const Lora& lora, int64_t begin, int64_t end, float* out) {
  const int64_t cols = lora.a.cols(), rank = lora.a.rows(), count = (end - begin) * cols;
  static thread_local std::vector<float> change;
  change.resize(static_cast<size_t>(count));
  kernels().sum_rows_f32({.x = lora.b.f32() + begin * rank,
                          .w = lora.a.f32(),
                          .y = change.data(),
                          .tokens = end - begin,
                          .k = rank,
                          .cols = cols,
                          .ldx = rank,
                          .ldw = cols,
                          .ldy = cols});
  for (int64_t i = 0; i < count; ++i) out[i] = base[i] + lora.scaling * change[static_cast<size_t>(i)];
}

Tensor merged_weight(const Tensor& w, const Lora& lora) {
  Tensor merged = Tensor::uninitialized(DType::f32, w.shape);
  const int64_t cols = w.cols();
  parallel_for(w.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r += kRowGrain) {
      const int64_t stop = std::min(end, r + kRowGrain);
      float* rows = merged.f32() + r * cols;
      merge_rows(w.f32() + r * cols, lora, r, stop, rows);
      if (lora.magnitude.empty()) continue;
      for (int64_t i = r; i < stop; ++i, rows += cols) {
        const float length = lora.row_lengths.empty() ? length_of(rows, cols) : lora.row_lengths.f32()[i];
        const float factor = lora.magnitude.f32()[i] / length;
        for (int64_t c = 0; c < cols; ++c) rows[c] *= factor;
      }
    }
  });
  return merged;
}

}  // namespace nibble
