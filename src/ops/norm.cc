#include "ops/norm.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/parallel.h"
#include "core/profile.h"
#include "kernels/kernels.h"
#include "ops/matrix.h"

namespace nibble {
namespace {

constexpr int64_t kElementGrain = 16 * 1024;
constexpr int64_t kColumnGrain = 16;

int64_t row_grain(int64_t cols) { return std::max<int64_t>(1, kElementGrain / cols); }

/// What a row was normalized with: (x - centre) * scale.
struct Moments {
  float centre = 0, scale = 0;
};

Moments layer_moments(const float* x, int64_t n, float eps) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + eps);
  return {.centre = static_cast<float>(mean), .scale = static_cast<float>(scale)};
}

Moments rms_moments(const float* x, int64_t n, float eps) {
  return {.centre = 0, .scale = 1.0f / std::sqrt(kernels().dot(x, x, n) / static_cast<float>(n) + eps)};
}

using MomentsFn = Moments (*)(const float* x, int64_t n, float eps);

/// Of one normalization, as the backward pass needs it. rows of n elements: tokens, or the heads of all tokens.
struct Normalized {
  Tensor x, weight;
  float eps;
  MomentsFn moments_of;
  bool centred;

  int64_t n() const { return weight.count(); }
  int64_t rows() const { return x.count() / n(); }
};

// With u = (x - centre) * scale and g = dy * weight:  dx = scale * (g - mean(g) - u * mean(g * u)), and without the
// mean(g) where nothing was centred.
Tensor input_gradient(const Normalized& norm, const std::vector<Moments>& moments, const Tensor& dy) {
  Tensor dx = Tensor::uninitialized(DType::f32, norm.x.shape);
  const int64_t n = norm.n();
  const float* weight = norm.weight.f32();
  parallel_for(norm.rows(), row_grain(n), [&](int64_t begin, int64_t end) {
    std::vector<float> g(static_cast<size_t>(n)), u(static_cast<size_t>(n));
    for (int64_t r = begin; r < end; ++r) {
      const float *x = norm.x.f32() + r * n, *d = dy.f32() + r * n;
      const auto [centre, scale] = moments[static_cast<size_t>(r)];
      for (int64_t i = 0; i < n; ++i) {
        g[static_cast<size_t>(i)] = d[i] * weight[i];
        u[static_cast<size_t>(i)] = (x[i] - centre) * scale;
      }
      const double sum = norm.centred ? std::accumulate(g.begin(), g.end(), 0.0) : 0.0;
      const auto mean = static_cast<float>(sum / static_cast<double>(n));
      const float slope = kernels().dot(g.data(), u.data(), n) / static_cast<float>(n);
      float* out = dx.f32() + r * n;
      for (int64_t i = 0; i < n; ++i) {
        out[i] = scale * (g[static_cast<size_t>(i)] - mean - u[static_cast<size_t>(i)] * slope);
      }
    }
  });
  return dx;
}

Tensor weight_gradient(const Normalized& norm, const std::vector<Moments>& moments, const Tensor& dy) {
  Tensor dw(DType::f32, norm.weight.shape);
  const int64_t n = norm.n();
  parallel_for(n, kColumnGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < norm.rows(); ++r) {
      const auto [centre, scale] = moments[static_cast<size_t>(r)];
      const float *x = norm.x.f32() + r * n, *d = dy.f32() + r * n;
      for (int64_t i = begin; i < end; ++i) dw.f32()[i] += d[i] * ((x[i] - centre) * scale);
    }
  });
  return dw;
}

struct NormSlots {
  Tape::Slot x, weight, bias = Tape::kNone;
};

void backward(const Normalized& norm, const NormSlots& slots, const Tensor& dy, Tape& tape) {
  std::vector<Moments> moments(static_cast<size_t>(norm.rows()));
  parallel_for(norm.rows(), row_grain(norm.n()), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      moments[static_cast<size_t>(r)] = norm.moments_of(norm.x.f32() + r * norm.n(), norm.n(), norm.eps);
    }
  });
  if (slots.bias != Tape::kNone) tape.add(slots.bias, column_sums(dy));
  if (slots.weight != Tape::kNone) tape.add(slots.weight, weight_gradient(norm, moments, dy));
  if (slots.x != Tape::kNone) tape.add(slots.x, input_gradient(norm, moments, dy));
}

Tensor rms_normalized(const Tensor& x, const Tensor& weight, float eps) {
  Tensor y = Tensor::uninitialized(DType::f32, x.shape);
  const int64_t n = weight.count(), groups = x.count() / n;
  parallel_for(groups, row_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      kernels().rms_norm(x.f32() + g * n, weight.f32(), eps, y.f32() + g * n, n);
    }
  });
  return y;
}

Tensor layer_normalized(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  Tensor y = Tensor::uninitialized(DType::f32, x.shape);
  const int64_t n = weight.count();
  parallel_for(x.rows(), row_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      kernels().layer_norm({x.f32() + t * n, weight.f32(), bias.f32(), eps, y.f32() + t * n}, n);
    }
  });
  return y;
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, float eps, Tape* tape) {
  const ProfileScope scope("norm");
  Tensor y = rms_normalized(x, weight, eps);
  if (!is_traced(tape, x, weight)) return y;
  const NormSlots slots = {.x = tape->slot(x), .weight = tape->slot(weight)};
  const Normalized norm = {.x = x, .weight = weight, .eps = eps, .moments_of = rms_moments, .centred = false};
  tape->record(
      y, [norm, slots](Tape& t, const Tensor& dy) { backward(norm, slots, dy, t); },
      [norm] { return rms_normalized(norm.x, norm.weight, norm.eps); });
  return y;
}

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tape* tape) {
  const ProfileScope scope("norm");
  Tensor y = layer_normalized(x, weight, bias, eps);
  if (!is_traced(tape, x, weight, bias)) return y;
  const NormSlots slots = {.x = tape->slot(x), .weight = tape->slot(weight), .bias = tape->slot(bias)};
  const Normalized norm = {.x = x, .weight = weight, .eps = eps, .moments_of = layer_moments, .centred = true};
  tape->record(
      y, [norm, slots](Tape& t, const Tensor& dy) { backward(norm, slots, dy, t); },
      [norm, bias] { return layer_normalized(norm.x, norm.weight, bias, norm.eps); });
  return y;
}

}  // namespace nibble
