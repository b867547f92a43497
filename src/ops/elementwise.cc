#include "ops/elementwise.h"

#include <algorithm>

#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr int64_t kElementGrain = 16 * 1024;

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, float eps) {
  Tensor y(DType::f32, x.shape);
  const int64_t n = weight.count(), groups = x.count() / n;
  parallel_for(groups, std::max<int64_t>(1, kElementGrain / n), [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      kernels().rms_norm(x.f32() + g * n, weight.f32(), eps, y.f32() + g * n, n);
    }
  });
  return y;
}

Tensor silu_mul(const Tensor& gate, const Tensor& up) {
  Tensor y(DType::f32, gate.shape);
  parallel_for(gate.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().silu_mul(gate.f32() + begin, up.f32() + begin, y.f32() + begin, end - begin);
  });
  return y;
}

void add_in_place(Tensor& x, const Tensor& y) {
  parallel_for(x.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().axpy(1.0f, y.f32() + begin, x.f32() + begin, end - begin);
  });
}

}  // namespace nibble
