#include "ops/merged_weight.h"

#include <cmath>

#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr int64_t kRowGrain = 16;

/// Gives a row this length.
void stretch(float* row, int64_t cols, float length) {
  double squares = 0;
  for (int64_t c = 0; c < cols; ++c) squares += static_cast<double>(row[c]) * row[c];
  const float factor = length / static_cast<float>(std::sqrt(squares));
  for (int64_t c = 0; c < cols; ++c) row[c] *= factor;
}

}  // namespace

Tensor merged_weight(const Tensor& w, const Lora& lora) {
  Tensor merged(DType::f32, w.shape);
  const int64_t cols = w.cols(), rank = lora.a.rows();
  parallel_for(w.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = merged.f32() + r * cols;
      for (int64_t j = 0; j < rank; ++j) {
        kernels().axpy(lora.b.f32()[r * rank + j], lora.a.f32() + j * cols, row, cols);
      }
      const float* base = w.f32() + r * cols;
      for (int64_t c = 0; c < cols; ++c) row[c] = base[c] + lora.scaling * row[c];
      if (!lora.magnitude.empty()) stretch(row, cols, lora.magnitude.f32()[r]);
    }
  });
  return merged;
}

}  // namespace nibble
